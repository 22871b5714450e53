"""The types of triggers, under the public SDK's name. Names only; `iii/worker/` has the code."""

from __future__ import annotations

from iii.worker.api.actions import TriggerActionVoid
from iii.worker.api.triggers import Trigger, TriggerConfig, TriggerHandler

__all__ = ["Trigger", "TriggerActionVoid", "TriggerConfig", "TriggerHandler"]
