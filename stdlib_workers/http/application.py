"""The way of one HTTP request: host and origin, route, middleware, body, condition, function, answer.

An ASGI application. Whatever ends a request early is a `Refusal`, and here is where it becomes a response. Knows
nothing of sockets; the routes are filled by `triggers`, `fallbacks` answer where no route does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any, Protocol

from iii import InvocationError
from stdlib_workers.http.access import AccessLog
from stdlib_workers.http.bodies import parse_body
from stdlib_workers.http.calls import Terms, Trigger, ask_middleware, call_function, check_condition
from stdlib_workers.http.channels import ChannelBroken, Channels
from stdlib_workers.http.failures import RETRY_AFTER_SECONDS, Refusal, refusal_from, reply_to
from stdlib_workers.http.intake import Body, Disconnected, Message, Receive, request_from
from stdlib_workers.http.options import Options
from stdlib_workers.http.origins import Origins
from stdlib_workers.http.patterns import BadPath, split_path
from stdlib_workers.http.replies import BadResult, Headers, Reply, hint_from, reply_from
from stdlib_workers.http.requests import Request, payload_from, trace_from
from stdlib_workers.http.routes import Match, Route, Routes
from stdlib_workers.http.streaming import Stream

Send = Callable[[Message], Awaitable[None]]

# Stands in the log where a client has left without an answer, as elsewhere in the trade.
CLIENT_CLOSED = 499


class Fallback(Protocol):
    """Answers GET and HEAD where no route does; None when it has nothing there either."""

    async def answer(self, request: Request, path: list[str]) -> Reply | None:
        """Return the reply to `path`, a URL's decoded segments."""
        ...


@dataclass(slots=True)
class Exchange:
    """One request on its way: what answers it, and what its answer carries in any case."""

    request: Request
    body: Body
    function_id: str = ""
    headers: Headers = field(default_factory=list)
    stream: Stream | None = None


class Application:
    """Answers requests from the live routes."""

    def __init__(self, trigger: Trigger, routes: Routes, options: Options, log: AccessLog) -> None:
        self.origins = Origins(frozenset(), options.cors)
        self.fallbacks: list[Fallback] = []
        self.in_flight = 0
        self.channels: Channels | None = None
        self.trigger = trigger
        self._routes = routes
        self._options = options
        self._log = log

    def __repr__(self) -> str:
        return f"<Application {len(self._routes)} routes, {self.in_flight} in flight>"

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one request."""
        started = perf_counter()
        exchange = Exchange(request_from(scope), Body(receive, self._options.max_body))
        self.in_flight += 1
        try:
            reply = await self._settle(exchange)
            await _send(send, exchange, reply)
            status = reply.status
        except Disconnected:
            status = CLIENT_CLOSED
        finally:
            self.in_flight -= 1
            if exchange.stream is not None:
                await exchange.stream.close()
        request = exchange.request
        elapsed = (perf_counter() - started) * 1000
        self._log.note((request.method, request.path), status, exchange.function_id, elapsed)

    async def _settle(self, exchange: Exchange) -> Reply:
        request_id = exchange.request.request_id
        try:
            return await self._answer(exchange)
        except Refusal as refusal:
            if refusal.status == 500:
                self._log.warn(f"{exchange.function_id} failed: {refusal.code}: {refusal.message} ({request_id})")
            return reply_to(refusal, request_id)
        except BadResult as error:
            self._log.warn(f"{exchange.function_id} returned no HTTP response: {error} ({request_id})")
            text = "the function returned no HTTP response; the log has the reason"
            return reply_to(Refusal(500, "invalid_response", text), request_id)

    async def _answer(self, exchange: Exchange) -> Reply:
        request = exchange.request
        exchange.headers = self.origins.check(request)
        if self.in_flight > self._options.concurrency:
            text = f"{self._options.concurrency} requests are in flight, which is the limit"
            raise Refusal(503, "overloaded", text, headers=[(b"retry-after", b"%d" % RETRY_AFTER_SECONDS)])
        path = _path_of(request)
        found = self._routes.find(request.method, path)
        if isinstance(found, Match):
            return await self._call(exchange, found)
        return await self._answer_unbound(exchange, path, found)

    async def _answer_unbound(self, exchange: Exchange, path: list[str], methods: set[str]) -> Reply:
        request = exchange.request
        allowed = methods | {"OPTIONS"} | ({"HEAD"} if "GET" in methods else set())
        if methods and request.method == "OPTIONS":
            return self.origins.preflight(request, exchange.headers, allowed)
        if request.method in ("GET", "HEAD"):
            for fallback in self.fallbacks:
                reply = await fallback.answer(request, path)
                if reply is not None:
                    return reply
        if methods:
            text = f"{request.method} is not bound here; there are: {', '.join(sorted(allowed))}"
            headers = [(b"allow", ", ".join(sorted(allowed)).encode())]
            raise Refusal(405, "METHOD_NOT_ALLOWED", text, headers=headers)
        raise Refusal(404, "NOT_FOUND", "no http trigger is bound to this path")

    async def _call(self, exchange: Exchange, match: Match) -> Reply:
        route = match.route
        exchange.function_id = route.function_id
        terms = Terms(self._options.timeout, trace_from(exchange.request))
        exchange.headers.append((b"traceparent", terms.trace["traceparent"].encode()))
        payload = payload_from(exchange.request, match)
        early = await ask_middleware(self.trigger, self._options.middleware, route, payload, terms)
        if early is not None:
            return early
        if route.streams or self._options.channels:
            return await self._stream(exchange, route, payload, terms)
        body = await exchange.body.read(exchange.request)
        payload["body"] = parse_body(exchange.request.headers.get("content-type", ""), body)
        early = await self._admit(route, payload, terms)
        if early is not None:
            return early
        return self._reply(route.function_id, await self._result(exchange, route, payload, terms))

    async def _stream(self, exchange: Exchange, route: Route, payload: dict[str, Any], terms: Terms) -> Reply:
        if self.channels is None:
            text = "channels need the engine's WebSocket listener; set `listen` under [engine] in iii.toml"
            raise Refusal(500, "channels_off", text)
        stream = exchange.stream = Stream(self.channels, exchange.body)
        try:
            await stream.open(exchange.request, payload)
            early = await self._admit(route, payload, terms)
            return early or await stream.reply(self.trigger, route, payload, terms)
        except ChannelBroken as error:
            raise Refusal(500, "channel_broken", str(error)) from None

    async def _admit(self, route: Route, payload: dict[str, Any], terms: Terms) -> Reply | None:
        """Ask the condition and the route's own middleware, which see no channels."""
        seen = {key: value for key, value in payload.items() if key not in ("request_body", "response")}
        await check_condition(self.trigger, route, seen, terms)
        return await ask_middleware(self.trigger, route.middleware, route, seen, terms)

    async def _result(self, exchange: Exchange, route: Route, payload: dict[str, Any], terms: Terms) -> Any:
        call = call_function(self.trigger, route.function_id, payload, route, terms)
        try:
            return await (_call_for(call, exchange.body) if route.cancels else call)
        except InvocationError as error:
            raise refusal_from(error) from None

    def _reply(self, function_id: str, result: Any) -> Reply:
        hint = hint_from(result)
        if hint is not None:
            self._log.warn(f"{function_id}: {hint}")
        return reply_from(result)


async def _call_for(call: Coroutine[Any, Any, Any], body: Body) -> Any:
    """Await the call for as long as the client does. Disconnected once it has left; the function is cancelled."""
    calling, leaving = asyncio.ensure_future(call), asyncio.ensure_future(body.wait_until_gone())
    try:
        await asyncio.wait({calling, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if calling.done():
            return calling.result()
        raise Disconnected
    finally:
        calling.cancel()
        leaving.cancel()


def _path_of(request: Request) -> list[str]:
    try:
        return split_path(request.path)
    except BadPath as error:
        raise Refusal(400, "BAD_PATH", str(error)) from None


async def _send(send: Send, exchange: Exchange, reply: Reply) -> None:
    headers = [*reply.headers, *exchange.headers, (b"x-request-id", exchange.request.request_id.encode())]
    if reply.chunks is None and reply.status not in (204, 304):
        headers.append((b"content-length", b"%d" % len(reply.body)))
    await send({"type": "http.response.start", "status": reply.status, "headers": headers})
    is_head = exchange.request.method == "HEAD"
    if reply.chunks is not None and not is_head:
        async for chunk in reply.chunks:
            await send({"type": "http.response.body", "body": chunk, "more_body": True})
    await send({"type": "http.response.body", "body": b"" if is_head else reply.body})
