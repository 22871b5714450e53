"""The errors that callers get from the engine, each named after its code. Pure.

An error names the thing that is wrong and says what to do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from typing import Any

from iii.engine.routing.invocation import Invocation
from iii.engine.routing.peer import Owner
from iii.engine.routing.registry import Function, Registry
from iii.errors import ErrorCode
from iii.protocol.messages import DEFAULT_NAMESPACE, ErrorBody
from iii.suggestions import nearest_names


def function_not_found(function: Function, registry: Registry, note: str = "") -> ErrorBody:
    """There is no such function: say in which namespaces it is, or which id was probably meant.

    `note` says what happened to a function that was there.
    """
    message = f"Function {function.id} not found in namespace {function.namespace}"
    elsewhere = registry.namespaces_with(function.id)
    if elsewhere:
        message += f". It is registered in namespace(s): {', '.join(elsewhere)}"
    ids = [known.id for known in registry if known.namespace == function.namespace and not known.is_internal]
    suggestions = nearest_names(function.id, ids, count=3)
    if note:
        message += f" ({note})"
    elif suggestions and not elsewhere:
        message += f". Did you mean {suggestions[0]}?"
    details: dict[str, object] = {"suggestions": suggestions} if suggestions else {}
    return ErrorBody(ErrorCode.FUNCTION_NOT_FOUND, message, details=details or None)


def worker_unavailable(owner: Owner) -> ErrorBody:
    """The function's worker is down and will not come back by itself."""
    details: Mapping[str, Any] = owner.why_unavailable or {"state": "stopped", "words": "it is stopped"}
    why = details.get("words") or details.get("state")
    message = f"worker {owner.name} is not available: {why}"
    return ErrorBody(ErrorCode.WORKER_UNAVAILABLE, message, details=dict(details), retryable=True)


def overloaded(reason: str) -> ErrorBody:
    """A bound was reached; the call was not started."""
    message = f"{reason}; try again later"
    return ErrorBody(ErrorCode.OVERLOADED, message, details={"retry_after_ms": 100}, retryable=True)


def deadlock_detected(invocation: Invocation) -> ErrorBody:
    """The calls that fill its worker's concurrency wait for this call."""
    chain = " -> ".join(invocation.chain)
    message = (
        f"{invocation.function.id} waits for itself: {chain}; raise `concurrency` of worker "
        f"{invocation.function.owner.name} or break the cycle"
    )
    return ErrorBody(ErrorCode.DEADLOCK_DETECTED, message, details={"chain": invocation.chain})


def loop_detected(invocation: Invocation, limit: int) -> ErrorBody:
    """Calls are nested deeper than the limit: a function calls itself by way of others."""
    chain = invocation.chain
    message = f"calls are nested deeper than {limit}: {' -> '.join([*chain[:3], '...', *chain[-3:]])}"
    return ErrorBody(ErrorCode.LOOP_DETECTED, message, details={"chain": chain})


def timeout(invocation: Invocation) -> ErrorBody:
    waited = "" if invocation.callee else " while waiting for a worker that can run it"
    message = f"{invocation.function.id}: invocation timed out after {round(invocation.timeout * 1000)}ms{waited}"
    return ErrorBody(ErrorCode.TIMEOUT, message, details={"started": invocation.is_started}, retryable=True)


def invocation_stopped(invocation: Invocation, reason: Mapping[str, Any]) -> ErrorBody:
    """The worker that ran the call is gone. `reason` may hold `words`, `signal`, `exit_code`, `stderr`."""
    name = invocation.callee.name if invocation.callee else "its worker"
    words = reason.get("words") or "it disconnected"
    message = f"Invocation stopped: {invocation.function.id} was running on {name}: {words}"
    details = {"reason": "worker_exited", "started": True, "worker": name, **reason}
    return ErrorBody(ErrorCode.INVOCATION_STOPPED, message, details=details)


def engine_stopping() -> ErrorBody:
    return ErrorBody(ErrorCode.ENGINE_STOPPING, "the engine is stopping and takes no new calls", retryable=True)


def action_not_found(action: str, known: Iterable[str]) -> ErrorBody:
    names = sorted({"void", *known})
    message = f"unknown trigger action {action!r}; there are: {', '.join(names)}"
    return ErrorBody(ErrorCode.ACTION_NOT_FOUND, message, details={"actions": names})


def no_queue() -> ErrorBody:
    message = (
        "No queue provider is installed: no worker provides engine::queue::enqueue. "
        "Add the standard one with `iii add queue`"
    )
    return ErrorBody(ErrorCode.ENQUEUE_ERROR, message)


def no_http_worker(function: Function) -> ErrorBody:
    message = (
        f"Function {function.id} lives behind a URL, and no worker makes requests: "
        "add the standard one with `iii add http_functions`"
    )
    return ErrorBody(ErrorCode.FUNCTION_NOT_FOUND, message)


def invalid_payload(function: Function, details: dict[str, object]) -> ErrorBody:
    message = f"{function.id}: {details['message']}"
    without_message = {key: value for key, value in details.items() if key != "message"}
    return ErrorBody(ErrorCode.INVALID_PAYLOAD, message, details=without_message)


def invalid_namespace(field: str) -> ErrorBody:
    """The message names a namespace, and the name is blank."""
    message = f"{field} is blank; leave it out to mean {DEFAULT_NAMESPACE!r}, or name a namespace"
    return ErrorBody(ErrorCode.INVALID_NAMESPACE, message)


def invalid_message(message: str) -> ErrorBody:
    """The message can be decoded, but one of its fields has no valid value."""
    return ErrorBody(ErrorCode.INVALID_MESSAGE, message)
