"""The errors that callers get from the engine, each named after its code. Pure.

An error names the thing that is wrong and says what to do.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from itertools import islice
from posixpath import commonprefix
from typing import Any

from msgspec.structs import replace

from iii.engine.routing.budget import Budget
from iii.engine.routing.causes import QUIET_TIMEOUT, Causes, limits_of
from iii.engine.routing.invocation import Invocation
from iii.engine.routing.peer import Owner, Peer, Rights
from iii.engine.routing.registry import MAX_ID, Function, Registry
from iii.errors import ErrorCode
from iii.protocol.messages import DEFAULT_NAMESPACE, ErrorBody
from iii.suggestions import standard_worker_of

# Ids whose length is looked at for a missing one, and ids that are compared with it: together about as much as a call.
MAX_LOOKED_AT, MAX_COMPARED = 1024, 64
# The least likeness of a suggestion, from 0 (nothing in common) to 1 (the same id).
MIN_LIKENESS = 0.6
# What a session is told of an error of the engine: facts about its own call, and never about the worker that ran it.
_TOLD_TO_SESSIONS = {"expected", "got", "path", "retry_after_ms", "started"}
_TO_SESSIONS: dict[str, str] = {
    ErrorCode.WORKER_UNAVAILABLE: "the worker of this function is not available",
    ErrorCode.INVOCATION_STOPPED: "the worker stopped while it ran this call",
    ErrorCode.DEADLOCK_DETECTED: "the call waits for itself",
    ErrorCode.LOOP_DETECTED: "calls are nested too deeply",
    ErrorCode.ACTION_NOT_FOUND: "there is no such trigger action",
    ErrorCode.OVERLOADED: "too many calls; try again later",
}


def function_not_found(
    function: Function, registry: Registry, note: str = "", rights: Rights | None = None
) -> ErrorBody:
    """There is no such function: say in which namespaces it is, or which id was probably meant.

    `note` says what happened to a function that was there. With `rights`, the answer names only what the session may
    call. Costs about as much as a call, however many functions there are and however long their ids.
    """
    message = f"Function {_shortened(function.id)} not found in namespace {_shortened(function.namespace)}"
    if rights is not None:
        return ErrorBody(ErrorCode.FUNCTION_NOT_FOUND, message)
    elsewhere = registry.namespaces_with(function.id)
    if elsewhere:
        message += f". It is registered in namespace(s): {', '.join(elsewhere[:10])}"
    suggestions = _suggestions(function, registry)
    if note:
        message += f" ({note})"
    elif suggestions and not elsewhere:
        message += f". Did you mean {suggestions[0]}?"
    elif not elsewhere and (standard := standard_worker_of(function.id)) is not None:
        message += f". It is the {standard} worker's: add that with `iii add {standard}`, or see `iii ps`"
    details: dict[str, object] = {"suggestions": suggestions} if suggestions else {}
    return ErrorBody(ErrorCode.FUNCTION_NOT_FOUND, message, details=details or None)


def _suggestions(function: Function, registry: Registry) -> list[str]:
    """Return up to three ids that begin and end like the missing one, the nearest first.

    A misspelt id shares its beginning and its end with the right one: two comparisons, where a full one takes quadratic
    time. The command line, which has the time, compares in full.
    """
    id = function.id
    if len(id) > MAX_ID:
        return []
    functions = islice(registry.namespaces.get(function.namespace, {}).values(), MAX_LOOKED_AT)
    near = (known.id for known in functions if abs(len(known.id) - len(id)) <= 4 and not known.is_internal)
    rated: list[tuple[float, str]] = []
    for known_id in islice(near, MAX_COMPARED):
        same = len(commonprefix((known_id, id)))
        same += len(commonprefix((known_id[same:][::-1], id[same:][::-1])))
        likeness = 2 * same / (len(known_id) + len(id))
        if likeness >= MIN_LIKENESS:
            rated.append((-likeness, known_id))
    return [known_id for _, known_id in sorted(rated)[:3]]


def _shortened(name: str) -> str:
    return name if len(name) <= MAX_ID else f"{name[:64]}... ({len(name)} characters)"


def without_secrets(error: ErrorBody) -> ErrorBody:
    """Return an error of the engine as a session may read it: nothing about processes, and no last lines of a log."""
    kept = {key: value for key, value in (error.details or {}).items() if key in _TOLD_TO_SESSIONS}
    message = _TO_SESSIONS.get(error.code, error.message)
    return replace(error, message=message, details=kept or None)


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


def memory_used_up(peer: Peer, budget: Budget) -> ErrorBody:
    """The engine holds too much for this peer already; the message was not taken."""
    name, held = peer.name or peer.id, peer.held_for_calls
    if budget.is_over_share(held):
        why = f"the engine holds {_megabytes(held)} for {name}, its share is {_megabytes(budget.share)}"
    else:
        why = f"the engine holds {_megabytes(budget.used)} for all peers, {_megabytes(held)} of it for {name}"
    message = f"{why} of [engine] memory = {_megabytes(budget.total)}; wait for results, then try again"
    details = {"held_bytes": held, "used_bytes": budget.used, "memory_bytes": budget.total}
    return ErrorBody(ErrorCode.OVERLOADED, message, details={"retry_after_ms": 100, **details}, retryable=True)


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.0f} MB"


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


def event_loop(function_id: str, before: Causes) -> ErrorBody:
    """A function is called because of itself, by events or jobs, again and again without a pause."""
    chain = [*before.ids[before.ids.index(function_id) :], function_id]
    burst, rate = limits_of(before)
    message = (
        f"stopped a loop: {' -> '.join(chain)}; a function may cause itself {burst} times at once and {rate:g} times a "
        f"second. It may go on after {QUIET_TIMEOUT:g} quiet seconds"
    )
    return ErrorBody(ErrorCode.LOOP_DETECTED, message, details={"chain": chain})


def timeout(invocation: Invocation) -> ErrorBody:
    waited = "" if invocation.callee else " while waiting for a worker that can run it"
    message = f"{invocation.function.id}: invocation timed out after {round(invocation.timeout * 1000)}ms{waited}"
    return ErrorBody(ErrorCode.TIMEOUT, message, details={"started": invocation.is_started}, retryable=True)


def given_up() -> ErrorBody:
    """Of a call whose caller waits no longer: what its observers get."""
    return ErrorBody(ErrorCode.CANCELLED, "the caller gave up")


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


def invalid_result(function: Function, details: dict[str, object]) -> ErrorBody:
    """The function has returned, and its effect is there; only the result is none that it says it returns."""
    what = str(details["message"]).replace("the payload", "it", 1)
    message = f"{function.id} returned what its response format does not admit: {what}"
    without_message = {key: value for key, value in details.items() if key != "message"}
    return ErrorBody(ErrorCode.INVALID_RESULT, message, details={**without_message, "returned": True})


def invalid_namespace(field: str) -> ErrorBody:
    """The message names a namespace, and the name is blank."""
    message = f"{field} is blank; leave it out to mean {DEFAULT_NAMESPACE!r}, or name a namespace"
    return ErrorBody(ErrorCode.INVALID_NAMESPACE, message)


def invalid_message(message: str) -> ErrorBody:
    """The message can be decoded, but one of its fields has no valid value."""
    return ErrorBody(ErrorCode.INVALID_MESSAGE, message)
