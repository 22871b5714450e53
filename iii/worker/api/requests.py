"""What a caller asks for: the request of `trigger` in every form the public SDK accepts, and how it is delivered.

`request_from` turns a dict, an object or `(function_id, payload)` into a `TriggerRequest`, or refuses it.
`TriggerAction` builds the `action` of a request: without one `trigger` waits for the result; `Void` does not wait;
`Enqueue` hands the call to a queue; `of` names an action that some worker provides. Pure.
"""

from __future__ import annotations

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any, Protocol, Required, TypeAlias, TypedDict

    Action: TypeAlias = "TriggerActionVoid | TriggerActionEnqueue | TriggerActionProvided | dict[str, Any]"

    class TriggerRequestInput(TypedDict, total=False):
        """A `TriggerRequest` as a dict."""

        function_id: Required[str]
        payload: Any
        action: Action | None
        timeout_ms: float | None
        metadata: Any
        namespace: str | None
        trace: Mapping[str, str | None] | None
        awaits_end: bool | None

    class RequestFields(Protocol):
        """An object with fields of `TriggerRequest`, such as the public SDK's; only `function_id` is required."""

        @property
        def function_id(self) -> str: ...

    class Caller(Protocol):
        """What calls functions: of a worker, what its handles need."""

        def trigger(self, request: TriggerRequestInput, /) -> Any: ...
        async def trigger_async(self, request: TriggerRequestInput, /) -> Any: ...

    RequestInput = str | TriggerRequestInput | RequestFields
else:
    TriggerRequestInput = dict

KEYS = ("function_id", "payload", "action", "timeout_ms", "metadata", "namespace", "trace", "awaits_end")
# Ids with these prefixes live in the default namespace, whatever the worker's own is.
SHARED_PREFIXES = ("engine::", "configuration::")


class TriggerActionVoid:
    """Send the call and forget it: `trigger` returns None at once."""

    type = "void"

    def to_wire(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"type": self.type}


class TriggerActionEnqueue:
    """Put the call into `queue`; `trigger` returns the `EnqueueResult` receipt.

    `options` are the queue's: `delay_ms`, `group`, `key`, `priority`, `wait`; those that are None are left out.
    """

    type = "enqueue"

    def __init__(self, queue: str, **options: Any) -> None:
        self.queue = queue
        self.options = {name: value for name, value in options.items() if value is not None}

    def to_wire(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"type": self.type, "queue": self.queue, **self.options}


class TriggerActionProvided:
    """Hand the call to the worker that provides the action `type`, with that action's own options."""

    def __init__(self, type: str, options: dict[str, Any]) -> None:
        self.type = type
        self.options = options

    def to_wire(self) -> dict[str, Any]:
        """Return the JSON form."""
        return {"type": self.type, **self.options}


class TriggerAction:
    """Factories for the `action` of a request.

    worker.trigger({"function_id": "mail::send", "payload": mail, "action": TriggerAction.Enqueue(queue="mails")})
    """

    @staticmethod
    def Void() -> TriggerActionVoid:
        """Send the call and forget it: `trigger` returns None at once, and a failure reaches no caller."""
        return TriggerActionVoid()

    @staticmethod
    def Enqueue(
        *,
        queue: str,
        delay_ms: int | None = None,
        group: str | None = None,
        key: str | None = None,
        priority: int | None = None,
        wait: bool | None = None,
    ) -> TriggerActionEnqueue:
        """Put the call into `queue`; `trigger` returns `{"messageReceiptId"}` as soon as the queue has stored it.

        The queue delivers not before `delay_ms` milliseconds; in order with others of the same `group` (fifo queues);
        once only for the same idempotency `key`; before others of a lower `priority` (0 to 255). With `wait` the call
        returns what the function does, or raises its error once the job is a dead letter; asked again with the same
        `key`, it returns the same. InvocationError `enqueue_error` when the queue does not take the call.
        """
        return TriggerActionEnqueue(queue, delay_ms=delay_ms, group=group, key=key, priority=priority, wait=wait)

    @staticmethod
    def of(action_id: str, /, **options: Any) -> TriggerActionProvided:
        """Hand the call to the worker that provides the action `action_id`: `TriggerAction.of("delay", seconds=5)`.

        `trigger` returns what the provider returns. InvocationError `action_not_found` when no worker provides it.
        """
        return TriggerActionProvided(action_id, options)


class EnqueueResult(dict[str, str]):
    """The receipt of an enqueued call; `messageReceiptId` is a key and an attribute."""

    @property
    def messageReceiptId(self) -> str:
        """The id under which the queue knows the message."""
        return self["messageReceiptId"]


class TriggerRequest:
    """One call: `function_id`, JSON `payload`, `action`, `timeout_ms`, sidecar `metadata`, `namespace`.

    `trace` (`{"traceparent", "baggage"}`) is the trace to continue in place of the current invocation's.

    `awaits_end`: `timeout_ms` cancels the handler, and the call ends with it: with what the handler then answers, be it
    a result, not before it has really ended. For callers that must not start the next thing beside it.
    """

    def __init__(
        self,
        function_id: str,
        payload: Any = None,
        action: Action | None = None,
        timeout_ms: float | None = None,
        metadata: Any = None,
        namespace: str | None = None,
        trace: Mapping[str, str | None] | None = None,
        awaits_end: bool | None = None,
    ) -> None:
        self.function_id = function_id
        self.payload = payload
        self.action = action
        self.timeout_ms = timeout_ms
        self.metadata = metadata
        self.namespace = namespace
        self.trace = trace
        self.awaits_end = awaits_end


class MiddlewareFunctionInput:
    """The payload of an RBAC middleware: the call of a session, and the `context` that its auth function has returned.

    def middleware(payload):
        call = MiddlewareFunctionInput(**payload)
        return worker.trigger({"function_id": call.function_id, "payload": call.payload})
    """

    def __init__(
        self,
        function_id: str,
        payload: Any = None,
        action: dict[str, Any] | None = None,
        context: Any = None,
        namespace: str | None = None,
        **_: Any,
    ) -> None:
        self.function_id = function_id
        self.payload = payload
        self.action = action
        self.context = context
        self.namespace = namespace


def request_from(request: Any, payload: Any = None) -> TriggerRequest:
    """Return the request meant by a dict, a TriggerRequest, an object with its fields, or an id and a payload.

    TypeError and ValueError say which field is wrong and what it was.
    """
    if request.__class__ is dict:
        request = _request_from_dict(request)
    elif isinstance(request, str):
        request = TriggerRequest(request, payload)
    elif request.__class__ is not TriggerRequest:
        request = _request_from_dict({key: getattr(request, key, None) for key in KEYS})
    function_id, timeout = request.function_id, request.timeout_ms
    if not isinstance(function_id, str) or not function_id.strip():
        raise ValueError(f"function_id must be a service::name, not {function_id!r}")
    if timeout is not None and (isinstance(timeout, bool) or not isinstance(timeout, int | float) or timeout <= 0):
        raise ValueError(f"timeout_ms must be a positive number of milliseconds, not {timeout!r}")
    return request  # type: ignore[no-any-return]


def _request_from_dict(fields: dict[str, Any]) -> TriggerRequest:
    if "function_id" not in fields:
        raise ValueError(f"a request needs a function_id; it has {sorted(fields)}")
    if len(fields) == 2 and "payload" in fields:
        return TriggerRequest(fields["function_id"], fields["payload"])
    get = fields.get
    payload, action, timeout_ms, metadata = get("payload"), get("action"), get("timeout_ms"), get("metadata")
    rest = get("namespace"), get("trace"), get("awaits_end")
    return TriggerRequest(fields["function_id"], payload, action, timeout_ms, metadata, *rest)


def message_from(request: TriggerRequest, worker_namespace: str | None) -> dict[str, Any]:
    """Return the `invokefunction` message of a request, still without invocation id, caller, deadline and payload."""
    message: dict[str, Any] = {"type": "invokefunction", "function_id": request.function_id}
    if request.metadata is not None:
        message["metadata"] = request.metadata
    if request.trace is not None:
        message.update({key: request.trace[key] for key in ("traceparent", "baggage") if request.trace.get(key)})
    if request.action is not None:
        message["action"] = action_to_wire(request.action)
    namespace = request.namespace
    if namespace is None:
        namespace = "default" if request.function_id.startswith(SHARED_PREFIXES) else worker_namespace
    if namespace is not None:
        message["namespace"] = namespace
    return message


def action_to_wire(action: Any) -> dict[str, Any] | None:
    """Return the JSON form of an action: an object with `to_wire`, a dict, or None. TypeError for anything else."""
    if action is None or isinstance(action, dict):
        return action
    to_wire = getattr(action, "to_wire", None)
    if callable(to_wire):
        return dict(to_wire())
    raise TypeError(f"action must be a TriggerAction or a dict with a type, not {action!r}")
