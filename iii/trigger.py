"""The types of triggers, in the public SDK's module of this name. The code is in `iii/worker/api`."""

from __future__ import annotations

from iii.worker.api.requests import TriggerActionVoid
from iii.worker.api.triggers import Trigger, TriggerConfig, TriggerHandler

__all__ = ["Trigger", "TriggerActionVoid", "TriggerConfig", "TriggerHandler"]
