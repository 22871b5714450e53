"""What is served: the page's files to everybody, and below API its session, calls and events to who has a session."""

from __future__ import annotations

import json
from collections.abc import Awaitable, Callable
from pathlib import Path
from typing import Any

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import JSONResponse, Response, StreamingResponse
from starlette.routing import Mount, Route
from starlette.staticfiles import StaticFiles
from starlette.types import ASGIApp, Message, Receive, Scope, Send

from iii.one_time_keys import redeem
from stdlib_workers.console.access import API, Sessions, refusal_of_request
from stdlib_workers.console.calls import BadRequest, Calls
from stdlib_workers.console.live import ALWAYS, MAX_PAGES, ON_REQUEST, Live
from stdlib_workers.loopback.requests import fields_of, hosts_of
from stdlib_workers.loopback.server import bounded
from stdlib_workers.values import encode

STATIC = Path(__file__).parent / "static"
# Bytes of a request's body.
MAX_BODY = 4 * 1024 * 1024
HEADERS = {
    "content-security-policy": (
        "default-src 'self'; base-uri 'none'; form-action 'none'; frame-ancestors 'none'; object-src 'none'"
    ),
    "cross-origin-opener-policy": "same-origin",
    "cross-origin-resource-policy": "same-origin",
    "referrer-policy": "no-referrer",
    "x-content-type-options": "nosniff",
    "x-frame-options": "DENY",
}
NO_SESSION = "this browser has no session; `iii console` opens the page with a new key"

About = Callable[[], dict[str, Any]]


class Guard:
    """The ASGI application around the others: refuses what is not for this server, adds the headers to every answer."""

    def __init__(self, application: ASGIApp, port: int) -> None:
        self._application = application
        self._hosts = hosts_of(port)

    async def __call__(self, scope: Scope, receive: Receive, send: Send) -> None:
        async def send_with_headers(message: Message) -> None:
            if message["type"] == "http.response.start":
                added = [(name.encode(), value.encode()) for name, value in HEADERS.items()]
                message["headers"] = [*message.get("headers", ()), *added]
            await send(message)

        refused = refusal_of_request(scope["method"], scope["path"], fields_of(scope["headers"]), self._hosts)
        if refused is not None:
            status, text = refused
            answer = JSONResponse({"error": {"code": "refused", "message": text}}, status, {"connection": "close"})
            await answer(scope, receive, send_with_headers)
            return
        await self._application(scope, bounded(receive), send_with_headers)


class Api:
    """The handlers below API."""

    def __init__(self, state_dir: Path, sessions: Sessions, calls: Calls, live: Live, about: About) -> None:
        self._state_dir = state_dir
        self._sessions = sessions
        self._calls = calls
        self._live = live
        self._about = about
        self.routes = [
            Route("/session", self._begin, methods=["POST"]),
            Route("/session", self._with_session(self._show), methods=["GET"]),
            Route("/call", self._with_session(self._call), methods=["POST"]),
            Route("/stream", self._with_session(self._stream), methods=["POST"]),
            Route("/events", self._with_session(self._events), methods=["GET"]),
        ]

    async def _begin(self, request: Request) -> Response:
        """Exchange a one-time key for a session."""
        body = await _body_of(request)
        key = body.get("key") if isinstance(body, dict) else None
        if not isinstance(key, str) or not redeem(self._state_dir, key):
            return _failure(
                401, "wrong_key", "this link was used already, or never was one; `iii console` makes a new one"
            )
        return JSONResponse(self._about(), headers={"set-cookie": self._sessions.begin(), "cache-control": "no-store"})

    async def _show(self, _: Request) -> Response:
        return _json(self._about())

    async def _call(self, request: Request) -> Response:
        try:
            return _json(await self._calls.call(await _body_of(request)))
        except BadRequest as error:
            return _failure(400, "bad_request", str(error))

    async def _stream(self, request: Request) -> Response:
        """Answer with a line of JSON for every item, report of progress, and at last the outcome."""
        lines = self._calls.stream(await _body_of(request))
        try:
            first = await anext(lines)
        except BadRequest as error:
            return _failure(400, "bad_request", str(error))

        async def text() -> Any:
            yield encode(first) + b"\n"
            async for line in lines:
                yield encode(line) + b"\n"

        return StreamingResponse(text(), media_type="application/x-ndjson", headers={"cache-control": "no-store"})

    async def _events(self, request: Request) -> Response:
        topic = request.query_params.get("topic")
        if topic is not None and topic not in ON_REQUEST:
            return _failure(400, "bad_request", f"topic must be one of {', '.join(ON_REQUEST)}")
        if self._live.count >= MAX_PAGES:
            return _failure(503, "overloaded", f"{MAX_PAGES} pages are open; close one")
        headers = {"cache-control": "no-store", "x-accel-buffering": "no"}
        return StreamingResponse(
            self._live.stream(ALWAYS if topic is None else ON_REQUEST[topic]),
            media_type="text/event-stream",
            headers=headers,
        )

    def _with_session(
        self, handler: Callable[[Request], Awaitable[Response]]
    ) -> Callable[[Request], Awaitable[Response]]:
        async def checked(request: Request) -> Response:
            if not self._sessions.is_open(request.headers.get("cookie", "")):
                return _failure(401, "no_session", NO_SESSION)
            return await handler(request)

        return checked


class PageFiles(StaticFiles):
    """The files of the page; every address without a file is one of its views, and gets the page itself."""

    async def get_response(self, path: str, scope: Scope) -> Response:
        try:
            response = await super().get_response(path, scope)
        except HTTPException as error:
            if error.status_code != 404 or "." in path.rpartition("/")[2]:
                raise
            response = await super().get_response("index.html", scope)
        response.headers["cache-control"] = "no-cache"  # asked for again, and mostly answered 304
        return response


def application(api: Api, port: int) -> Guard:
    """Return the whole ASGI application of a console on `port`."""
    routes = [Mount(API, routes=api.routes), Mount("/", PageFiles(directory=STATIC, html=True))]
    return Guard(Starlette(routes=routes), port)


async def _body_of(request: Request) -> Any:
    """Return the body's JSON, None for what is none. HTTPException for one that is too long."""
    body = bytearray()
    async for chunk in request.stream():
        body += chunk
        if len(body) > MAX_BODY:
            raise HTTPException(413, f"a request may have {MAX_BODY} bytes")
    try:
        return json.loads(body)
    except ValueError:
        return None


def _json(value: Any) -> Response:
    return Response(encode(value), media_type="application/json", headers={"cache-control": "no-store"})


def _failure(status: int, code: str, message: str) -> Response:
    return JSONResponse({"error": {"code": code, "message": message}}, status, {"cache-control": "no-store"})
