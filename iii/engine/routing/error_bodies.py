"""The words of every refusal: error bodies that name the thing and the way out. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from iii.engine.routing.invocation import Invocation
from iii.engine.routing.peer import Owner
from iii.engine.routing.registry import Function, Registry
from iii.errors import ErrorCode
from iii.protocol.messages import DEFAULT_NAMESPACE, ErrorBody
from iii.suggestions import nearest_names

NO_QUEUE = (
    "No queue provider is installed: no worker provides engine::queue::enqueue. "
    "Add the standard one with `iii add queue`"
)


def not_found(function: Function, registry: Registry, note: str = "") -> ErrorBody:
    """No such function: say where else it exists, and what was probably meant."""
    message = f"Function {function.id} not found in namespace {function.namespace}"
    elsewhere = registry.namespaces_with(function.id)
    if elsewhere:
        message += f". It is registered in namespace(s): {', '.join(elsewhere)}"
    known = [other.id for other in registry if other.namespace == function.namespace and not other.is_internal]
    suggestions = nearest_names(function.id, known, count=3)
    if note:
        message += f" ({note})"
    elif suggestions and not elsewhere:
        message += f". Did you mean {suggestions[0]}?"
    details: dict[str, object] = {"suggestions": suggestions} if suggestions else {}
    return ErrorBody(ErrorCode.FUNCTION_NOT_FOUND, message, details=details or None)


def unavailable(owner: Owner) -> ErrorBody:
    """The function's worker is down and will not come back by itself."""
    details: Mapping[str, Any] = owner.refusal or {"state": "stopped", "words": "it is stopped"}
    why = details.get("words") or details.get("state")
    message = f"worker {owner.name} is not available: {why}"
    return ErrorBody(ErrorCode.WORKER_UNAVAILABLE, message, details=dict(details), retryable=True)


def overloaded(reason: str, retry_after_ms: int = 100) -> ErrorBody:
    """A bound was reached; nothing was started."""
    return ErrorBody(
        ErrorCode.OVERLOADED,
        f"{reason}; try again later",
        details={"retry_after_ms": retry_after_ms},
        retryable=True,
    )


def deadlock(invocation: Invocation) -> ErrorBody:
    """The call waits for a slot held by a call that waits for it."""
    chain = " -> ".join(invocation.chain)
    message = (
        f"{invocation.function.id} waits for itself: {chain}; raise `concurrency` of worker "
        f"{invocation.function.owner.name} or break the cycle"
    )
    return ErrorBody(ErrorCode.DEADLOCK_DETECTED, message, details={"chain": invocation.chain})


def loop(invocation: Invocation, limit: int) -> ErrorBody:
    """The chain of calls is deeper than any honest one."""
    chain = invocation.chain
    shown = " -> ".join([*chain[:3], "...", *chain[-3:]])
    return ErrorBody(
        ErrorCode.LOOP_DETECTED, f"calls are nested deeper than {limit}: {shown}", details={"chain": chain}
    )


def timeout(invocation: Invocation) -> ErrorBody:
    """The deadline passed."""
    waited = "" if invocation.callee else " while waiting for a worker that can run it"
    message = f"{invocation.function.id}: invocation timed out after {round(invocation.timeout * 1000)}ms{waited}"
    return ErrorBody(ErrorCode.TIMEOUT, message, details={"started": invocation.is_started}, retryable=True)


def stopped(invocation: Invocation, reason: Mapping[str, Any]) -> ErrorBody:
    """The worker that ran the call is gone. `reason` may hold `words`, `signal`, `exit_code`, `stderr`."""
    name = invocation.callee.name if invocation.callee else "its worker"
    words = reason.get("words") or "it disconnected"
    message = f"Invocation stopped: {invocation.function.id} was running on {name}: {words}"
    details = {"reason": "worker_exited", "started": True, "worker": name, **reason}
    return ErrorBody(ErrorCode.INVOCATION_STOPPED, message, details=details)


def stopping() -> ErrorBody:
    """The engine shuts down and starts nothing new."""
    return ErrorBody(ErrorCode.ENGINE_STOPPING, "the engine is stopping and takes no new calls", retryable=True)


def unknown_action(action: str, known: Iterable[str]) -> ErrorBody:
    """Nobody provides this trigger action."""
    names = sorted({"void", *known})
    message = f"unknown trigger action {action!r}; there are: {', '.join(names)}"
    return ErrorBody(ErrorCode.ACTION_NOT_FOUND, message, details={"actions": names})


def no_queue() -> ErrorBody:
    """An enqueue action without a queue worker."""
    return ErrorBody(ErrorCode.ENQUEUE_ERROR, NO_QUEUE)


def no_http_worker(function: Function) -> ErrorBody:
    """A function behind a URL, and nobody who makes requests."""
    message = (
        f"Function {function.id} lives behind a URL, and no worker makes requests: "
        "add the standard one with `iii add http_functions`"
    )
    return ErrorBody(ErrorCode.FUNCTION_NOT_FOUND, message)


def invalid_payload(function: Function, details: dict[str, object]) -> ErrorBody:
    """The payload does not fit the function's request format."""
    message = f"{function.id}: {details['message']}"
    rest = {key: value for key, value in details.items() if key != "message"}
    return ErrorBody(ErrorCode.INVALID_PAYLOAD, message, details=rest)


def blank_namespace(field: str) -> ErrorBody:
    """A namespace that is there but empty."""
    return ErrorBody(
        ErrorCode.INVALID_NAMESPACE,
        f"{field} is blank; leave it out to mean {DEFAULT_NAMESPACE!r}, or name a namespace",
    )


def invalid_message(message: str) -> ErrorBody:
    """A message that decodes but makes no sense."""
    return ErrorBody(ErrorCode.INVALID_MESSAGE, message)
