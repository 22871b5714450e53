"""The public names of the worker SDK.

Each name loads its module on first use: the engine and the command line import `iii` too, and must not pay for the SDK.
"""

from __future__ import annotations

from iii.version import VERSION

TYPE_CHECKING = False
if TYPE_CHECKING:
    from iii.errors import (
        EngineNotRunning,
        HttpError,
        IIIError,
        InvocationError,
        ObserveRejection,
        ProjectError,
        ProtocolError,
        RegistrationRejectedError,
    )
    from iii.http import StreamRequest, StreamResponse
    from iii.runtime import ConnectionStateCallback, IIIConnectionState
    from iii.stream import IStream
    from iii.worker.api.observers import ObserverHandle, ObserverOptions, ObserveSource
    from iii.worker.api.options import DEFAULT_ENGINE_URL, FunctionOptions, InitOptions, TelemetryOptions
    from iii.worker.api.requests import (
        EnqueueResult,
        MiddlewareFunctionInput,
        TriggerAction,
        TriggerActionEnqueue,
        TriggerActionVoid,
        TriggerRequest,
        TriggerRequestInput,
    )
    from iii.worker.api.triggers import (
        FunctionRef,
        Trigger,
        TriggerConfig,
        TriggerHandler,
        TriggerInput,
        TriggerTypeInput,
        TriggerTypeRef,
    )
    from iii.worker.connect import register_worker
    from iii.worker.context.invocation import InvocationContext, current_invocation
    from iii.worker.context.logger import Logger
    from iii.worker.flows.endings import FlowCancelled, FlowParked
    from iii.worker.flows.handle import AsyncFlow, Flow
    from iii.worker.handlers.places import Body, Cookie, Form, FromEvent, Header, Query
    from iii.worker.handlers.queues import QueuedFunction
    from iii.worker.handlers.request import File, Request
    from iii.worker.handlers.response import Event, Response
    from iii.worker.handlers.state import Entry, State
    from iii.worker.handlers.streams import StreamGroup
    from iii.worker.worker import IIIClient, Worker

__version__ = VERSION

# Spelled out, and not made of `_HOMES`, for type checkers.
__all__ = ["DEFAULT_ENGINE_URL", "FunctionOptions", "InitOptions", "TelemetryOptions", "Worker", "register_worker"]
__all__ += ["EnqueueResult", "TriggerAction", "TriggerActionEnqueue", "TriggerActionVoid"]
__all__ += ["TriggerRequest", "TriggerRequestInput"]
__all__ += ["FunctionRef", "Trigger", "TriggerConfig", "TriggerHandler", "TriggerInput"]
__all__ += ["TriggerTypeInput", "TriggerTypeRef"]
__all__ += ["ObserveRejection", "ObserveSource", "ObserverHandle", "ObserverOptions"]
__all__ += ["InvocationContext", "Logger", "StreamRequest", "StreamResponse", "current_invocation"]
__all__ += ["EngineNotRunning", "IIIError", "InvocationError", "ProjectError", "ProtocolError"]
__all__ += ["RegistrationRejectedError"]
__all__ += ["Body", "Cookie", "File", "Form", "FromEvent", "Header", "Query", "Request"]
__all__ += ["Event", "HttpError", "Response"]
__all__ += ["AsyncFlow", "Flow", "FlowCancelled", "FlowParked"]
__all__ += ["Entry", "QueuedFunction", "State", "StreamGroup"]
__all__ += ["ConnectionStateCallback", "IIIClient", "IIIConnectionState", "IStream", "MiddlewareFunctionInput"]

# A module, and names that it defines.
_HOMES = (
    ("iii.errors", "EngineNotRunning", "HttpError", "IIIError", "InvocationError"),
    ("iii.errors", "ObserveRejection", "ProjectError", "ProtocolError", "RegistrationRejectedError"),
    ("iii.http", "StreamRequest", "StreamResponse"),
    ("iii.runtime", "ConnectionStateCallback", "IIIConnectionState"),
    ("iii.stream", "IStream"),
    ("iii.worker.api.observers", "ObserveSource", "ObserverHandle", "ObserverOptions"),
    ("iii.worker.api.options", "DEFAULT_ENGINE_URL", "FunctionOptions", "InitOptions", "TelemetryOptions"),
    ("iii.worker.api.requests", "EnqueueResult", "TriggerAction", "TriggerActionEnqueue", "TriggerActionVoid"),
    ("iii.worker.api.requests", "MiddlewareFunctionInput", "TriggerRequest", "TriggerRequestInput"),
    ("iii.worker.api.triggers", "FunctionRef", "Trigger", "TriggerConfig", "TriggerHandler", "TriggerInput"),
    ("iii.worker.api.triggers", "TriggerTypeInput", "TriggerTypeRef"),
    ("iii.worker.connect", "register_worker"),
    ("iii.worker.context.invocation", "InvocationContext", "current_invocation"),
    ("iii.worker.context.logger", "Logger"),
    ("iii.worker.flows.endings", "FlowCancelled", "FlowParked"),
    ("iii.worker.flows.handle", "AsyncFlow", "Flow"),
    ("iii.worker.handlers.places", "Body", "Cookie", "Form", "FromEvent", "Header", "Query"),
    ("iii.worker.handlers.queues", "QueuedFunction"),
    ("iii.worker.handlers.request", "File", "Request"),
    ("iii.worker.handlers.response", "Event", "Response"),
    ("iii.worker.handlers.state", "Entry", "State"),
    ("iii.worker.handlers.streams", "StreamGroup"),
    ("iii.worker.worker", "IIIClient", "Worker"),
)


# Hidden from type checkers, for which any name would exist: `from iii import Nothing` must be an error.
if not TYPE_CHECKING:

    def __getattr__(name):
        for module, *names in _HOMES:
            if name in names:
                value = getattr(__import__(module, fromlist=[name]), name)
                globals()[name] = value
                return value
        raise AttributeError(f"module 'iii' has no attribute {name!r}")
