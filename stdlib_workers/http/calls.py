"""Calls of functions on behalf of one HTTP request, all of them within its deadline.

Middleware, condition and handler share the time a request has; what a failed call means for the client is decided in
`failures`. Called by `application`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from typing import Any

from iii import InvocationError, TriggerRequestInput
from stdlib_workers.http.replies import BadResult, Refusal, Reply, refusal_from, reply_from
from stdlib_workers.http.routes import Route

# Longer than any stream: the engine's deadline of a call counts its length, ours the silence in it.
ENDLESS_MS = 30 * 24 * 3600 * 1000

Trigger = Callable[[TriggerRequestInput], Awaitable[Any]]


class Terms:
    """What all calls of a request share: the moment its time is over, on the running loop's clock, and its trace."""

    def __init__(self, seconds: float, trace: dict[str, str]) -> None:
        self._loop = asyncio.get_running_loop()
        self._end = self._loop.time() + seconds
        self.trace = trace

    @property
    def remaining_ms(self) -> int:
        """Milliseconds that are left, at least 1."""
        return max(1, int((self._end - self._loop.time()) * 1000))


async def call_function(
    trigger: Trigger, function_id: str, payload: Any, route: Route, terms: Terms, *, is_endless: bool = False
) -> Any:
    """Call a function in the route's namespace, with the route's metadata. InvocationError for every failure.

    `is_endless`: the caller itself sees to it that the call does not stand still.
    """
    call: TriggerRequestInput = {
        "function_id": function_id,
        "payload": payload,
        "timeout_ms": ENDLESS_MS if is_endless else terms.remaining_ms,
        "metadata": route.metadata,
        "namespace": route.namespace,
        "trace": terms.trace,
    }
    return await trigger(call)


async def check_condition(trigger: Trigger, route: Route, payload: dict[str, Any], terms: Terms) -> None:
    """Ask the route's condition. Refusal 422 when it says `false`; anything else lets the request pass."""
    if route.condition is None:
        return
    try:
        verdict = await call_function(trigger, route.condition, payload, route, terms)
    except InvocationError as error:
        raise refusal_from(error) from None
    if verdict is False:
        message = f"the condition {route.condition} does not hold for this request"
        raise Refusal(422, "CONDITION_NOT_MET", message, skipped=True)


async def ask_middleware(
    trigger: Trigger, names: tuple[str, ...], route: Route, payload: dict[str, Any], terms: Terms
) -> Reply | None:
    """Ask each middleware in turn; return the reply of the first that answers the request itself."""
    if not names:
        return None
    request = {key: payload[key] for key in ("path_params", "query_params", "headers", "method")}
    for name in names:
        event = {"phase": "preHandler", "request": request, "context": {}}
        try:
            result = await call_function(trigger, name, event, route, terms)
        except InvocationError as error:
            raise refusal_from(error, timeout_code="MIDDLEWARE_TIMEOUT") from None
        if isinstance(result, dict) and result.get("action") == "respond":
            return _middleware_reply(name, result.get("response"))
    return None


def _middleware_reply(name: str, response: Any) -> Reply:
    fields = response if isinstance(response, dict) else {}
    try:
        return reply_from({"body": None, **fields})
    except BadResult as error:
        raise BadResult(f"middleware {name}: {error}") from None
