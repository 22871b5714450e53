"""The way of one HTTP request: host and origin, route, middleware, body, condition, function, answer.

An ASGI application. Whatever ends a request early is a `Refusal`, and here is where it becomes a response. Knows
nothing of sockets; the routes are filled by `triggers`, `fallbacks` answer where no route does.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Iterable
from functools import partial
from typing import Any

from starlette.middleware.cors import ALL_METHODS, CORSMiddleware
from starlette.responses import Response
from starlette.types import ASGIApp, Message, Receive, Scope, Send
from starlette.websockets import WebSocket

from iii.arguments import Arguments
from iii.failure_text import unnamed
from stdlib_workers.http.access import AccessLog
from stdlib_workers.http.bodies import parse_body
from stdlib_workers.http.channels import Channels
from stdlib_workers.http.items import Items, Iterate, response_of
from stdlib_workers.http.options import Options
from stdlib_workers.http.origins import Origins
from stdlib_workers.http.replies import (
    RETRY_AFTER,
    BadResult,
    Refusal,
    hint_from,
    refusal_of,
    respond,
    response_from,
)
from stdlib_workers.http.requests import BODY_SECONDS, Disconnected, Request, Trigger, payload_from
from stdlib_workers.http.routes import SOCKET, Route, Routes, split_path
from stdlib_workers.http.sockets import Socket
from stdlib_workers.http.streaming import Stream

# Stands in the log where a client has left without an answer, as elsewhere in the trade.
CLIENT_CLOSED = 499
MAX_HEADER_COUNT = 100
# Encoding what is larger takes longer than any other request should wait.
LARGE_BODY = 256 * 1024
_ONCE_ONLY = frozenset({b"content-length", b"transfer-encoding", b"host", b"content-type", b"authorization"})


# Answers GET and HEAD where no route does, of a URL's decoded segments; None when it has nothing there either.
Fallback = Callable[[Request, list[str]], Awaitable[Response | None]]


class Application:
    """Answers requests and WebSockets from the live routes."""

    body_seconds = BODY_SECONDS

    def __init__(self, trigger: Trigger, routes: Routes, options: Options, log: AccessLog) -> None:
        self.origins = Origins(frozenset(), options.origins)
        self.fallbacks: list[Fallback] = []
        self.literals: list[Fallback] = []  # go before routes with parameters, and after all others
        self.in_flight = 0
        self.channels: Channels | None = None
        self.trigger = trigger
        self.iterate: Iterate | None = None  # without it a generator's answer is a list
        self.trigger_aside = trigger  # for payloads whose encoding would hold this loop up
        self._routes = routes
        self.take(options)
        self._log = log

    def take(self, options: Options) -> None:
        """Answer by these options from the next request on."""
        self._options = options
        self._respond: ASGIApp = self._respond_plainly
        if options.origins:
            self._respond = CORSMiddleware(
                self._respond_plainly,
                allow_origins=options.origins,
                allow_methods=options.methods or ALL_METHODS,
                allow_headers=("*",),
            )

    def __repr__(self) -> str:
        return f"<Application {len(self._routes)} routes, {self.in_flight} in flight>"

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        """Serve one request, or one WebSocket to its end."""
        request = Request(scope, receive, self._options.max_body, self._options.timeout, self.body_seconds)
        try:
            if scope["type"] == SOCKET:
                await self._serve_socket(request, send)
            else:
                scope["request"] = request
                await self._respond(scope, receive, partial(_send, request, send))
        except Disconnected:
            request.status = CLIENT_CLOSED
        except Refusal as refusal:
            # A stream has failed: the answer ends without its end, so that no client takes it for whole.
            request.error = refusal.code
            self._tell(request, refusal)
            if request.connection is not None and scope["http_version"] == "1.0":
                request.connection.break_off()
        except asyncio.CancelledError:
            request.error = "SHUTDOWN"
            raise
        except Exception as error:  # such as a file that goes while it is sent; uvicorn closes the connection
            request.error = "INTERNAL_ERROR"
            self._log.warn(f"{request.method} {request.path}: {type(error).__name__}: {error} ({request.id})")
            raise
        finally:
            if request.stream is not None:
                await request.stream.close()
            self._log.note(request)
        if request.connection is not None and scope["type"] == "http":
            request.connection.on_answered()

    async def _serve_socket(self, request: Request, send: Send) -> None:
        client = WebSocket(request.scope, request.receive, send)
        try:
            found = self._find(request)
            if not isinstance(found, Route):
                raise Refusal(404, "NOT_FOUND", "no websocket trigger is bound to this path")
            request.route = found
            socket = request.stream = Socket(self.trigger, request, client, self._options.timeout)
            await socket.connect(payload_from(request, found), self.channels)
        except Refusal as refusal:
            request.status = refusal.status
            await client.send_denial_response(refusal.respond(request.id))
        else:
            request.status = await socket.serve()

    async def _respond_plainly(self, scope: Scope, receive: Receive, send: Send) -> None:
        # Taken out: a request and its scope that held each other would wait for the garbage collector.
        request: Request = scope.pop("request")
        self.in_flight += 1
        try:
            try:
                response = await self._answer(request)
            except Refusal as refusal:
                request.error = refusal.code
                if refusal.status == 500:
                    self._tell(request, refusal)
                response = refusal.respond(request.id)
            await response(request.scope, receive, send)
        finally:
            self.in_flight -= 1

    def _tell(self, request: Request, refusal: Refusal) -> None:
        log = refusal.log
        if log is None:
            log = f"failed: {refusal.code}: {unnamed(request.function_id, refusal.message)}"
        if log:
            self._log.warn(f"{request.function_id} {log} ({request.id})")

    def _find(self, request: Request) -> Route | set[str]:
        """Return the route for the request, or the methods that its path has."""
        self.origins.check(request.method, request.headers)
        request.segments = split_path(request.path)
        return self._routes.find(SOCKET if request.scope["type"] == SOCKET else request.method, request.segments)

    async def _answer(self, request: Request) -> Response:
        _check_head(request)
        if self.in_flight > self._options.concurrency:
            text = f"{self._options.concurrency} requests are in flight, which is the limit"
            raise Refusal(503, "overloaded", text, headers=[RETRY_AFTER])
        found = self._find(request)
        if isinstance(found, Route):
            # Literal paths, which a route with a parameter does not take from other routes either.
            if found.parameters and request.method in ("GET", "HEAD"):
                answer = await _first_answer(self.literals, request)
                if answer is not None:
                    return answer
            request.route = found
            return await self._call(request, found, payload_from(request, found))
        method, response = request.method, None
        if method in ("GET", "HEAD", "OPTIONS"):
            response = await _first_answer((*self.fallbacks, *self.literals), request)
        if response is not None and method != "OPTIONS":
            return response
        methods = found - {SOCKET} | ({"GET"} if response is not None else set())
        if not methods:
            raise Refusal(404, "NOT_FOUND", "no http trigger is bound to this path")
        allowed = ", ".join(sorted(methods | {"OPTIONS"} | ({"HEAD"} if "GET" in methods else set())))
        headers = [(b"allow", allowed.encode())]
        if method == "OPTIONS":
            return respond(204, headers)
        raise Refusal(405, "METHOD_NOT_ALLOWED", f"{method} is not bound here; there are: {allowed}", headers=headers)

    async def _call(self, request: Request, route: Route, payload: dict[str, Any]) -> Response:
        """Bring the payload to the route's function, past middleware and condition, and return its answer."""
        trigger = self.trigger
        if early := await self._ask_middleware(self._options.middleware, request, payload):
            return early
        if route.arguments is None and (route.streams or self._options.channels):
            return await self._stream(request, route, payload)
        if not request.is_whole:
            body = await request.body()
            payload["body"] = await parse_body(request.headers.get("content-type", ""), body)
            if len(body) > LARGE_BODY:
                trigger = self.trigger_aside
        if early := await self._admit(trigger, request, route, payload):
            return early
        if route.arguments is not None:
            return await self._call_with_arguments(trigger, request, route, route.arguments, payload)
        call = request.call(trigger, route.function_id, payload)
        result = await (_call_for(call, request) if route.cancels else call)
        if hint := hint_from(result):
            self._log.warn(f"{route.function_id}: {hint}")
        return response_from(result)

    async def _call_with_arguments(
        self, trigger: Trigger, request: Request, route: Route, arguments: Arguments, payload: dict[str, Any]
    ) -> Response:
        """Make the function's arguments of the request, and the response of what it returns or yields."""
        values, found = arguments.read(payload)
        explain = partial(arguments.mistake_from, payload)
        if found:
            raise refusal_of(found)
        if route.streams is False or self.iterate is None:
            call = request.call(trigger, route.function_id, values, explain=explain)
        else:
            items = request.stream = Items(self.iterate, request, explain, self._options.timeout)
            call = items.respond(route, values)
        result = await (_call_for(call, request) if route.cancels else call)
        return result if isinstance(result, Response) else response_of(result, route.status)

    async def _stream(self, request: Request, route: Route, payload: dict[str, Any]) -> Response:
        if self.channels is None:
            text = "channels need the engine's socket: run the http worker under `iii dev` or `iii start`"
            raise Refusal(500, "channels_off", text)
        stream = request.stream = Stream(self.channels, request, self._options.timeout)
        await stream.open(payload)
        return await self._admit(self.trigger, request, route, payload) or await stream.respond(self.trigger, payload)

    async def _admit(
        self, trigger: Trigger, request: Request, route: Route, payload: dict[str, Any]
    ) -> Response | None:
        """Ask the condition, which stops the request by `false` alone, and the route's own middleware.

        They see no channels. Refusal 422.
        """
        if route.condition is None and not route.middleware:
            return None
        seen = {key: value for key, value in payload.items() if key not in ("request_body", "response")}
        if route.condition is not None and await request.call(trigger, route.condition, seen) is False:
            message = f"the condition {route.condition} does not hold for this request"
            raise Refusal(422, "CONDITION_NOT_MET", message, skipped=True)
        return await self._ask_middleware(route.middleware, request, seen)

    async def _ask_middleware(
        self, names: tuple[str, ...], request: Request, payload: dict[str, Any]
    ) -> Response | None:
        """Ask each middleware in turn; return the response of the first that answers the request itself."""
        for name in names:
            seen = {key: payload[key] for key in ("path_params", "query_params", "headers", "method")}
            event = {"phase": "preHandler", "request": seen, "context": {}}
            result = await request.call(self.trigger, name, event, is_middleware=True)
            if isinstance(result, dict) and result.get("action") == "respond":
                given = result.get("response")
                try:
                    return response_from({"body": None, **(given if isinstance(given, dict) else {})})
                except BadResult as error:
                    raise BadResult(f"middleware {name}: {error.reason}") from None
        return None


async def _first_answer(fallbacks: Iterable[Fallback], request: Request) -> Response | None:
    for fallback in fallbacks:
        response = await fallback(request, request.segments)
        if response is not None:
            return response
    return None


async def _send(request: Request, send: Send, message: Message) -> None:
    """Send a part of the answer: to its head goes what every answer carries, and before its end the body is read."""
    connection = request.connection
    if message["type"] == "http.response.start":
        request.status = message["status"]
        headers = message["headers"]
        # What a function says itself, beside length and type, is not said twice.
        own = {name for name, _ in headers} if len(headers) > 2 else ()
        if b"x-request-id" not in own:
            headers.append((b"x-request-id", request.id.encode()))
        if request.route is not None and b"traceparent" not in own:
            headers.append((b"traceparent", request.trace["traceparent"].encode()))
        if connection is not None:
            if not (request.is_whole or connection.body_left or request.stream):
                await request.discard()
            connection.answer.keeps_next = True
        # Of a body that nobody has read the rest comes still.
        if not request.is_whole or (connection is not None and connection.listening.is_leaving):
            headers.append((b"connection", b"close"))
    elif not request.is_whole and request.stream is None and not message.get("more_body", False):
        await send({**message, "more_body": True})
        await request.discard()
        message = {"type": "http.response.body", "body": b""}
    await send(message)


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
