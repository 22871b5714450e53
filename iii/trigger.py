"""The types of triggers, under the public SDK's name. Names only; `iii/worker/` has the code."""

from __future__ import annotations

from iii.worker.actions import TriggerActionVoid
from iii.worker.triggers import Trigger, TriggerConfig, TriggerHandler

__all__ = ["Trigger", "TriggerActionVoid", "TriggerConfig", "TriggerHandler"]
