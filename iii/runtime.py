"""Types of what a worker hands out, in the public SDK's module of this name. The code is in `iii/worker/api`."""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from iii.worker.api.triggers import FunctionRef, TriggerTypeRef

__all__ = ["ConnectionStateCallback", "FunctionRef", "IIIConnectionState", "TriggerTypeRef"]

IIIConnectionState = Literal["disconnected", "connecting", "connected", "reconnecting", "failed"]
ConnectionStateCallback = Callable[[IIIConnectionState], None]
