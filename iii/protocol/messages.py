"""One Struct per message of the wire, tagged by `type`. Payloads stay raw JSON bytes.

The messages of the public contract, and our additions (`ready`, `cancel`, `stop`, `registeraction`,
`unregisteraction`, and the optional fields named in docs/protocol.md). Unknown fields are ignored; an absent and
a `null` optional field mean the same. Only the engine uses these types: the SDK and the CLI speak plain dicts.
"""

from __future__ import annotations

from msgspec import Raw, Struct

# The namespace of every function and trigger that names none.
DEFAULT_NAMESPACE = "default"
# What the engine says it can do: observers of functions, and calls that a worker makes of its own functions itself.
OBSERVE, LOCAL_DISPATCH = FEATURES = ["observe.v1", "local-dispatch.v1"]
# The value of a raw field that was not on the wire. Compare with `is`, which costs nothing, and never with `==`.
ABSENT = Raw()
NULL = Raw(b"null")


def is_empty(raw: Raw) -> bool:
    """Whether a raw field was absent or `null`."""
    return raw is ABSENT or bytes(raw) == b"null"


def or_null(raw: Raw) -> Raw:
    """Return a raw field as the receiver expects it: an absent one as `null`."""
    return NULL if raw is ABSENT else raw


class Message(Struct, tag_field="type", tag=str.lower, omit_defaults=True, gc=False):
    """Base of all messages; `gc=False` because no message can be part of a reference cycle."""


class InvokeFunction(Message):
    """Run a function. A caller sends it to the engine, the engine sends it to the callee."""

    function_id: str
    invocation_id: str | None = None
    data: Raw = ABSENT
    metadata: Raw = ABSENT
    namespace: str | None = None
    action: Raw = ABSENT
    traceparent: str | None = None
    baggage: str | None = None
    caller: Raw = ABSENT
    deadline_ms: float | None = None
    idempotent: bool | None = None
    stream: bool | None = None
    window: int | None = None
    awaits_end: bool | None = None  # the caller is answered only when the handler has ended, even after the deadline
    observe_depth: int | None = None  # how many observers led to this call, one because of the other
    activation: Raw = ABSENT  # of a call made for an observer, see `ActivationField`


class InvocationResult(Message):
    """The outcome of one `invokefunction`; with `error`, the call failed."""

    invocation_id: str
    function_id: str | None = None
    result: Raw = ABSENT
    error: Raw = ABSENT
    traceparent: str | None = None
    baggage: str | None = None


class InvocationItem(Message):
    """One item of a streamed result, or the progress of the call; only for calls that asked for a stream."""

    invocation_id: str
    item: Raw = ABSENT
    progress: Raw = ABSENT


class ItemsTaken(Message):
    """The caller has taken `count` more items of a streamed call; the callee may send as many more."""

    invocation_id: str
    count: int


class RegisterFunction(Message):
    """The sender provides a function. `source` is `{"file", "line"}` of its handler; `observe`, see `ObserveField`."""

    id: str
    description: str | None = None
    request_format: Raw = ABSENT
    response_format: Raw = ABSENT
    metadata: Raw = ABSENT
    invocation: Raw = ABSENT
    source: Raw = ABSENT
    observe: Raw = ABSENT


class UnregisterFunction(Message):
    id: str


class RegisterService(Message):
    """A grouping of functions, for information; kept for compatibility, without effect."""

    id: str
    name: str | None = None
    description: str | None = None
    parent_service_id: str | None = None


class RegisterTriggerType(Message):
    """The sender provides a trigger type."""

    id: str
    description: str | None = None
    trigger_request_format: Raw = ABSENT
    call_request_format: Raw = ABSENT
    call_response_format: Raw = ABSENT
    namespace: str | None = None


class UnregisterTriggerType(Message):
    id: str
    namespace: str | None = None


class RegisterTrigger(Message):
    """Bind a function to a trigger type; the engine sends it on to the type's provider."""

    id: str
    trigger_type: str
    function_id: str
    config: Raw = ABSENT
    metadata: Raw = ABSENT
    namespace: str | None = None
    trigger_namespace: str | None = None


class UnregisterTrigger(Message):
    id: str
    trigger_type: str | None = None


class TriggerRegistrationResult(Message):
    id: str
    trigger_type: str | None = None
    function_id: str | None = None
    error: Raw = ABSENT


class RegisterAction(Message):
    """The sender provides the trigger action `id`, carried out by its function `function_id`."""

    id: str
    function_id: str
    description: str | None = None
    options_format: Raw = ABSENT


class UnregisterAction(Message):
    id: str


class Observe(Message):
    """Have the function `target` called for invocations of the function `source`; or the same again, once reconnected.

    Absent limits mean none. `source` and `target` are read in `observing/observer.py`.
    """

    id: str
    source: Raw
    target: Raw
    metadata: Raw = ABSENT
    max_fires: int | None = None
    expires_in_ms: float | None = None
    max_in_flight: int | None = None


class Unobserve(Message):
    id: str


class ObserveResult(Message):
    """The answer to an `observe`: the state in which the observer is now."""

    id: str
    state: str
    error: Raw = ABSENT
    warnings: list[str] = []


class ObserverStateChanged(Message):
    id: str
    state: str
    reason: Raw = ABSENT
    fires: int | None = None


class FunctionRegistered(Message):
    """The engine has accepted a function; `observers` are all of its observers, in place of those told before."""

    id: str
    namespace: str
    revision: int
    local_dispatch: bool | None = None
    observers: list[Raw] | None = None


class ObserverAdded(Message):
    function_id: str
    namespace: str
    revision: int
    observer: Raw


class ObserverRemoved(Message):
    function_id: str
    namespace: str
    revision: int
    id: str


class ObserverAck(Message):
    """The function's worker has accepted an observer or, with `error`, refused it."""

    function_id: str
    id: str
    revision: int
    namespace: str | None = None
    error: Raw = ABSENT


class InvocationsObserved(Message):
    """What observers of the sender's own functions shall get: calls that it has run itself, and events."""

    items: list[Raw] = []


class LocalInvocationStats(Message):
    """How many calls of its own functions the sender has run itself, and which reports it had to drop."""

    functions: list[Raw] = []
    dropped_reports: list[Raw] = []


class Ready(Message):
    """Registrations are complete; or, with `failed`, the worker's start has ended in an error.

    `files`: absolute paths of the files imported so far, without installed packages; `digests`: by path, BLAKE2b of 16
    bytes over the sources that were compiled; `missing`: paths where imports have found nothing, folders with a slash
    at the end. `lingers`: asked to stop, the worker first ends clients of its own, and may call functions for them.
    `vouches`: the worker promises that all its lines are what an encoder writes, see `decode_trusted`.
    """

    files: list[str] = []
    digests: dict[str, str] = {}
    missing: list[str] = []
    failed: bool = False
    lingers: bool = False
    vouches: bool = False


class Telemetry(Message):
    """Ended spans that the sender has opened itself: an array, see docs/observability.md.

    `dropped`: how many it could not send before them.
    """

    spans: Raw = ABSENT
    dropped: int = 0


class Cancel(Message):
    """The caller gave up, or the deadline passed."""

    invocation_id: str


class Stop(Message):
    """The receiver finishes its calls within `deadline_ms`, then exits."""

    deadline_ms: float


class Ping(Message):
    pass


class Pong(Message):
    pass


class Reattach(Message):
    previous_worker_id: str
    reattach_token: str | None = None


class WorkerRegistered(Message):
    """The engine's first message on every connection."""

    worker_id: str
    reattach_token: str | None = None
    generation: int | None = None
    instance: int | None = None
    features: list[str] = []


class RegistrationRejected(Message):
    """A name is taken, or one function cannot be registered for the `reason` and `message` given.

    The public SDKs end the worker for every code but FUNCTION_NAMESPACE_CONFLICT: a function that cannot be registered
    is rejected with that code, whatever the reason.
    """

    code: str
    namespace: str
    owner_worker_id: str
    worker_name: str | None = None
    function_id: str | None = None
    reason: str | None = None
    message: str | None = None


class ChannelOpen(Message):
    """The first line of a local connection that is to be one end of a channel; only channel data follows."""

    channel_id: str
    access_key: str
    direction: str


class ChannelOpened(Message):
    """The connection is an end of the channel now: frames follow, see `frames.py`."""


class Error(Message):
    """An error of the connection itself, right before it is closed."""

    error: Raw


class ErrorBody(Struct, omit_defaults=True, gc=False):
    """The value of `error` fields. `details` is a JSON object; `retryable`: a later try may succeed."""

    code: str
    message: str
    stacktrace: str | None = None
    details: dict[str, object] | None = None
    retryable: bool = False


class CallerField(Struct, gc=False):
    """The part of `caller` that the engine reads: the running invocation that made this call."""

    invocation_id: str | None = None
    function_id: str | None = None


class ActivationField(Struct, omit_defaults=True, gc=False):
    """The value of `activation`. A worker that has a target called itself names only the observer."""

    observer_id: str
    activation_id: str | None = None


class ObserveField(Struct, gc=False):
    """How a function may be observed: the value of `observe` of its registration.

    With `delivery` "owner", observers get what the function's worker gives them, and no calls. `args_format` is the
    JSON Schema of what an observer may ask such a worker for. Bindings to `legacy_trigger_type` become observers.
    """

    delivery: str = "auto"
    args_format: Raw = ABSENT
    allow: bool = True
    legacy_trigger_type: str | None = None


class ActionField(Struct, gc=False):
    """The part of `action` that the engine reads."""

    type: str
    queue: str | None = None
