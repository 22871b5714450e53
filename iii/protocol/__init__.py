"""Bytes <-> messages. Pure: no asyncio, no clock, no operating system. `lines` needs only the standard library.

Workers find here what the public SDK's module of this name has of use to them: the inputs of a worker's methods.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

__all__ = ["RegisterTriggerInput", "RegisterTriggerTypeInput", "TriggerRequest"]


def __getattr__(name: str) -> Any:
    # They are the SDK's, which stands above this package: only a program that asks for them loads it.
    if name not in __all__:
        raise AttributeError(f"module 'iii.protocol' has no attribute {name!r}")
    module = "requests" if name == "TriggerRequest" else "triggers"
    value = getattr(__import__(f"iii.worker.api.{module}", fromlist=[name]), name)
    globals()[name] = value
    return value
