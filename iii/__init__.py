"""The public names of the worker SDK.

Loaded on first use: the engine and the command line import `iii` too, and must not pay for the SDK.
"""

from __future__ import annotations

from iii.version import VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

    from iii.errors import (
        EngineNotRunning,
        IIIError,
        InvocationError,
        ProjectError,
        ProtocolError,
        RegistrationRejectedError,
    )
    from iii.http import StreamRequest, StreamResponse
    from iii.worker.api.actions import EnqueueResult, TriggerAction, TriggerActionEnqueue, TriggerActionVoid
    from iii.worker.api.options import DEFAULT_ENGINE_URL, InitOptions, TelemetryOptions
    from iii.worker.api.requests import TriggerRequest
    from iii.worker.api.triggers import FunctionRef, Trigger, TriggerConfig, TriggerHandler, TriggerTypeRef
    from iii.worker.connect import register_worker
    from iii.worker.context.invocation import InvocationContext, current_invocation
    from iii.worker.context.logger import Logger
    from iii.worker.worker import Worker

__version__ = VERSION

__all__ = [
    "DEFAULT_ENGINE_URL",
    "EngineNotRunning",
    "EnqueueResult",
    "FunctionRef",
    "IIIError",
    "InitOptions",
    "InvocationContext",
    "InvocationError",
    "Logger",
    "ProjectError",
    "ProtocolError",
    "RegistrationRejectedError",
    "StreamRequest",
    "StreamResponse",
    "TelemetryOptions",
    "Trigger",
    "TriggerAction",
    "TriggerActionEnqueue",
    "TriggerActionVoid",
    "TriggerConfig",
    "TriggerHandler",
    "TriggerRequest",
    "TriggerTypeRef",
    "Worker",
    "current_invocation",
    "register_worker",
]

_HOMES = {
    "iii.errors": (
        "EngineNotRunning",
        "IIIError",
        "InvocationError",
        "ProjectError",
        "ProtocolError",
        "RegistrationRejectedError",
    ),
    "iii.http": ("StreamRequest", "StreamResponse"),
    "iii.worker.api.actions": ("EnqueueResult", "TriggerAction", "TriggerActionEnqueue", "TriggerActionVoid"),
    "iii.worker.connect": ("register_worker",),
    "iii.worker.context.invocation": ("InvocationContext", "current_invocation"),
    "iii.worker.context.logger": ("Logger",),
    "iii.worker.api.options": ("DEFAULT_ENGINE_URL", "InitOptions", "TelemetryOptions"),
    "iii.worker.api.requests": ("TriggerRequest",),
    "iii.worker.api.triggers": ("FunctionRef", "Trigger", "TriggerConfig", "TriggerHandler", "TriggerTypeRef"),
    "iii.worker.worker": ("Worker",),
}


def __getattr__(name: str) -> Any:
    for home, names in _HOMES.items():
        if name in names:
            value = getattr(__import__(home, fromlist=[name]), name)
            globals()[name] = value
            return value
    raise AttributeError(f"module 'iii' has no attribute {name!r}")
