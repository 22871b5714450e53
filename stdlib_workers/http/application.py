"""The way of one HTTP request: host and origin, route, middleware, body, condition, function, answer.

An ASGI application. Whatever ends a request early is a `Refusal`, and here is where it becomes a response. Knows
nothing of sockets; the routes are filled by `triggers`, `fallbacks` answer where no route does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Coroutine
from typing import Any, Protocol

from iii import InvocationError
from iii.failure_text import unnamed
from stdlib_workers.http.access import AccessLog, Outcome
from stdlib_workers.http.bodies import parse_body
from stdlib_workers.http.calls import Terms, Trigger, ask_middleware, call_function, check_condition
from stdlib_workers.http.channels import ChannelBroken, Channels
from stdlib_workers.http.options import Options
from stdlib_workers.http.origins import Origins
from stdlib_workers.http.replies import (
    RETRY_AFTER,
    BadResult,
    Headers,
    Refusal,
    Reply,
    hint_from,
    refusal_from,
    reply_from,
    reply_to,
)
from stdlib_workers.http.requests import (
    BODY_SECONDS,
    Disconnected,
    Message,
    Receive,
    Request,
    Send,
    payload_from,
    trace_from,
)
from stdlib_workers.http.routes import BadPath, Match, Route, Routes, split_path
from stdlib_workers.http.streaming import EVENTS, Stream, StreamFailed, failure_event

# Stands in the log where a client has left without an answer, as elsewhere in the trade.
CLIENT_CLOSED = 499
MAX_HEADER_COUNT = 100
# Encoding what is larger takes longer than any other request should wait.
LARGE_BODY = 256 * 1024
_ONCE_ONLY = frozenset({b"content-length", b"transfer-encoding", b"host", b"content-type", b"authorization"})


class Fallback(Protocol):
    """Answers GET and HEAD where no route does; None when it has nothing there either."""

    async def answer(self, request: Request, path: list[str]) -> Reply | None:
        """Return the reply to `path`, a URL's decoded segments."""
        ...


class Exchange:
    """One request on its way: what answers it, and what its answer carries in any case."""

    def __init__(self, request: Request) -> None:
        self.request = request
        self.outcome = Outcome(request.method, request.path, *trace_from(request.headers))
        self.headers: Headers = []
        self.stream: Stream | None = None
        self.is_events = False


class Application:
    """Answers requests from the live routes."""

    body_seconds = BODY_SECONDS

    def __init__(self, trigger: Trigger, routes: Routes, options: Options, log: AccessLog) -> None:
        self.origins = Origins(frozenset(), options.cors)
        self.fallbacks: list[Fallback] = []
        self.in_flight = 0
        self.channels: Channels | None = None
        self.trigger = trigger
        self.trigger_aside = trigger  # for payloads whose encoding would hold this loop up
        self._routes = routes
        self._options = options
        self._log = log

    def __repr__(self) -> str:
        return f"<Application {len(self._routes)} routes, {self.in_flight} in flight>"

    async def __call__(self, scope: Message, receive: Receive, send: Send) -> None:
        """Serve one request."""
        exchange = Exchange(Request(scope, receive, self._options.max_body, self.body_seconds))
        outcome, connection = exchange.outcome, exchange.request.connection
        self.in_flight += 1
        try:
            await self._send(exchange, send, await self._settle(exchange))
        except Disconnected:
            outcome.status = CLIENT_CLOSED
        except StreamFailed as failed:
            outcome.error = failed.refusal.code
            await self._break_off(exchange, send, failed.refusal)
        except asyncio.CancelledError:
            outcome.error = "SHUTDOWN"
            raise
        except Exception as error:  # such as a file that goes while it is sent; uvicorn closes the connection
            outcome.error = "INTERNAL_ERROR"
            self._log.warn(f"{outcome.method} {outcome.path}: {type(error).__name__}: {error} ({exchange.request.id})")
            raise
        finally:
            self.in_flight -= 1
            if exchange.stream is not None:
                await exchange.stream.close()
            self._log.note(outcome)
        if connection is not None:
            connection.on_answered()

    async def _settle(self, exchange: Exchange) -> Reply:
        outcome, request_id = exchange.outcome, exchange.request.id
        try:
            return await self._answer(exchange)
        except Refusal as refusal:
            refused = refusal
            if refused.status == 500:
                message = unnamed(outcome.function_id, refused.message)
                self._log.warn(f"{outcome.function_id} failed: {refused.code}: {message} ({request_id})")
        except BadResult as error:
            self._log.warn(f"{outcome.function_id} returned no HTTP response: {error} ({request_id})")
            refused = Refusal(500, "invalid_response", "the function returned no HTTP response; the log has the reason")
        outcome.error = refused.code
        return reply_to(refused, request_id)

    async def _answer(self, exchange: Exchange) -> Reply:
        request = exchange.request
        exchange.headers = self.origins.headers_for(request)
        _check_head(request)
        self.origins.check(request)
        if self.in_flight > self._options.concurrency:
            text = f"{self._options.concurrency} requests are in flight, which is the limit"
            raise Refusal(503, "overloaded", text, headers=[RETRY_AFTER])
        try:
            path = split_path(request.path)
        except BadPath as error:
            raise Refusal(400, "BAD_PATH", str(error)) from None
        found = self._routes.find(request.method, path)
        if isinstance(found, Match):
            return await self._call(exchange, found)
        return await self._answer_unbound(request, path, found)

    async def _answer_unbound(self, request: Request, path: list[str], methods: set[str]) -> Reply:
        method = request.method
        reply = None
        if method in ("GET", "HEAD", "OPTIONS"):
            for fallback in self.fallbacks:
                reply = await fallback.answer(request, path)
                if reply is not None:
                    break
        if reply is not None and method != "OPTIONS":
            return reply
        allowed = methods | {"OPTIONS"} | ({"HEAD"} if "GET" in methods else set())
        if reply is not None:
            allowed |= {"GET", "HEAD"}
        if method == "OPTIONS" and (methods or reply is not None):
            return self.origins.preflight(request, allowed)
        if methods:
            text = f"{method} is not bound here; there are: {', '.join(sorted(allowed))}"
            headers = [(b"allow", ", ".join(sorted(allowed)).encode())]
            raise Refusal(405, "METHOD_NOT_ALLOWED", text, headers=headers)
        raise Refusal(404, "NOT_FOUND", "no http trigger is bound to this path")

    async def _call(self, exchange: Exchange, match: Match) -> Reply:
        route, request = match.route, exchange.request
        exchange.outcome.route = route.template
        exchange.outcome.function_id = route.function_id
        terms = Terms(self._options.timeout, exchange.outcome.trace)
        exchange.headers.append((b"traceparent", terms.trace["traceparent"].encode()))
        payload = payload_from(request, match)
        early = await ask_middleware(self.trigger, self._options.middleware, route, payload, terms)
        if early is not None:
            return early
        if route.streams or self._options.channels:
            return await self._stream(exchange, route, payload, terms)
        trigger = self.trigger
        if not request.is_whole:
            body = await request.body()
            payload["body"] = await parse_body(request.headers.get("content-type", ""), body)
            if len(body) > LARGE_BODY:
                trigger = self.trigger_aside
        early = await self._admit(trigger, route, payload, terms)
        if early is not None:
            return early
        call = call_function(trigger, route.function_id, payload, route, terms)
        try:
            result = await (_call_for(call, request) if route.cancels else call)
        except InvocationError as error:
            raise refusal_from(error) from None
        hint = hint_from(result)
        if hint is not None:
            self._log.warn(f"{route.function_id}: {hint}")
        return reply_from(result)

    async def _stream(self, exchange: Exchange, route: Route, payload: dict[str, Any], terms: Terms) -> Reply:
        if self.channels is None:
            text = "channels need the engine's socket: run the http worker under `iii dev` or `iii start`"
            raise Refusal(500, "channels_off", text)
        stream = exchange.stream = Stream(self.channels, exchange.request, self._options.timeout, self._log.warn)
        try:
            await stream.open(payload)
            early = await self._admit(self.trigger, route, payload, terms)
            return early or await stream.reply(self.trigger, route, payload, terms)
        except ChannelBroken as error:
            raise Refusal(500, "channel_broken", str(error)) from None

    async def _admit(self, trigger: Trigger, route: Route, payload: dict[str, Any], terms: Terms) -> Reply | None:
        """Ask the condition and the route's own middleware, which see no channels."""
        if route.condition is None and not route.middleware:
            return None
        seen = {key: value for key, value in payload.items() if key not in ("request_body", "response")}
        await check_condition(trigger, route, seen, terms)
        return await ask_middleware(trigger, route.middleware, route, seen, terms)

    async def _send(self, exchange: Exchange, send: Send, reply: Reply) -> None:
        request = exchange.request
        exchange.outcome.status = reply.status
        headers = [*exchange.headers, (b"x-request-id", request.id.encode())]
        if len(reply.headers) > 1:  # what a function says itself is not said twice; a browser refuses two of some
            own = {name for name, _ in reply.headers if name != b"vary"}
            headers = [header for header in headers if header[0] not in own]
        headers = [*reply.headers, *headers]
        connection = request.connection
        if connection is not None and connection.has_whole_body:
            await request.discard()
        # Of a body that nobody has read the rest comes still.
        if (connection is not None and connection.is_leaving) or not request.is_whole:
            headers.append((b"connection", b"close"))
        if reply.response is not None:
            await self._send_response(exchange, send, reply.response, headers)
            return
        is_head = request.method == "HEAD"
        chunks, body = reply.chunks, b"" if is_head else reply.body
        if chunks is None and reply.status not in (204, 304):
            headers.append((b"content-length", b"%d" % len(reply.body)))
        if connection is not None:
            connection.on_head()
        await send({"type": "http.response.start", "status": reply.status, "headers": headers})
        if chunks is not None and not is_head:
            exchange.is_events = any(name == b"content-type" and value.startswith(EVENTS) for name, value in headers)
            async for chunk in chunks:
                await send({"type": "http.response.body", "body": chunk, "more_body": True})
        elif not request.is_whole:
            await send({"type": "http.response.body", "body": body, "more_body": True})
            await request.discard()
            body = b""
        await send({"type": "http.response.body", "body": body})

    async def _send_response(self, exchange: Exchange, send: Send, response: Any, headers: Headers) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                exchange.outcome.status = message["status"]
                message["headers"] = [*message["headers"], *headers]
            await send(message)

        await response(exchange.request.scope, exchange.request.receive, send_with_headers)

    async def _break_off(self, exchange: Exchange, send: Send, refusal: Refusal) -> None:
        """End an answer without its end, so that no client takes it for whole."""
        request, outcome = exchange.request, exchange.outcome
        function_id = outcome.function_id
        message = unnamed(function_id, refusal.message)
        self._log.warn(f"{function_id} failed within its answer: {refusal.code}: {message} ({request.id})")
        if exchange.is_events:
            event = failure_event(refusal, request.id)
            await send({"type": "http.response.body", "body": event, "more_body": True})
        if request.connection is not None:
            request.connection.break_off(is_reset=request.scope["http_version"] == "1.0")


async def _call_for(call: Coroutine[Any, Any, Any], request: Request) -> Any:
    """Await the call for as long as the client does. Disconnected once it has left; the function is cancelled."""
    calling, leaving = asyncio.ensure_future(call), asyncio.ensure_future(request.wait_until_gone())
    try:
        await asyncio.wait({calling, leaving}, return_when=asyncio.FIRST_COMPLETED)
        if calling.done():
            return calling.result()
        raise Disconnected
    finally:
        calling.cancel()
        leaving.cancel()


def _check_head(request: Request) -> None:
    """Refuse what could be read in more than one way, or is too much; nothing more is read from its connection."""
    headers = request.headers
    status, code, text = 400, "BAD_REQUEST", ""
    if len(headers) != len(request.raw_headers):
        names = [name for name, _ in request.raw_headers if name in _ONCE_ONLY]
        if len(names) != len(set(names)):
            text = "a header that can be there once is there twice"
    if len(request.raw_headers) > MAX_HEADER_COUNT:
        status, code, text = 431, "HEADERS_TOO_LARGE", f"a request has at most {MAX_HEADER_COUNT} headers"
    elif "host" not in headers:
        text = "a request has exactly one Host header"
    elif headers.get("transfer-encoding", "chunked").lower() != "chunked":
        text = "the only transfer-encoding is chunked"
    elif request.scope["http_version"] not in ("1.1", "1.0"):
        status, code, text = 505, "HTTP_VERSION_NOT_SUPPORTED", "this server speaks HTTP/1.1"
    elif request.scope["http_version"] == "1.0" and "content-type" in headers and request.is_whole:
        # Its body would be taken for none; a client of HTTP/1.1 that says no length has none.
        status, code, text = 411, "LENGTH_REQUIRED", "a body of HTTP/1.0 needs a content-length"
    if text:
        raise Refusal(status, code, text, headers=[(b"connection", b"close")])
