"""Requests to the project's http worker without a socket: its ASGI application is called on the engine's loop."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING, Any, TypedDict
from urllib.parse import unquote

import httpx

from iii.testing.core import CALL_TIMEOUT, Core

if TYPE_CHECKING:
    from collections.abc import Coroutine, Mapping
    from typing import TypeVar, Unpack

    T = TypeVar("T")

_HOST = "localhost"
_NO_SERVER = 'this engine has no http worker; add [workers.http] to iii.toml, or start it: engine.start("http")'


class RequestFields(TypedDict, total=False):
    """What a request may carry, as in httpx: `json`, `data` (a form), `files`, `content` (bytes), `params`."""

    params: Mapping[str, Any]
    headers: Mapping[str, str]
    content: bytes | str
    data: Mapping[str, Any]
    files: Any
    json: Any


class HttpClient:
    """The client of one engine: `iii.http.post("/orders/7", json={"quantity": 2})` returns an `httpx.Response`.

    A method returns when the request and all that it has caused are over. `cookies` are kept from one request to the
    next, as a browser keeps them. Each method has an `_async` twin for `await`. ValueError without an http worker;
    TimeoutError for a request without an answer after 20 real seconds.
    """

    def __init__(self, core: Core) -> None:
        self._core = core
        self._client = httpx.AsyncClient(transport=_Transport(core), base_url=f"http://{_HOST}")

    @property
    def cookies(self) -> httpx.Cookies:
        """The cookies that the next request sends."""
        return self._client.cookies

    def request(self, method: str, path: str, **fields: Unpack[RequestFields]) -> httpx.Response:
        """Send a request and return its whole response."""
        try:
            return self._wait(self._client.request(method, path, **fields), f"{method} {path}")
        finally:
            self._core.settle()

    def get(self, path: str, **fields: Unpack[RequestFields]) -> httpx.Response:
        """Send a GET request."""
        return self.request("GET", path, **fields)

    def post(self, path: str, **fields: Unpack[RequestFields]) -> httpx.Response:
        """Send a POST request."""
        return self.request("POST", path, **fields)

    def put(self, path: str, **fields: Unpack[RequestFields]) -> httpx.Response:
        """Send a PUT request."""
        return self.request("PUT", path, **fields)

    def patch(self, path: str, **fields: Unpack[RequestFields]) -> httpx.Response:
        """Send a PATCH request."""
        return self.request("PATCH", path, **fields)

    def delete(self, path: str, **fields: Unpack[RequestFields]) -> httpx.Response:
        """Send a DELETE request."""
        return self.request("DELETE", path, **fields)

    async def request_async(self, method: str, path: str, **fields: Unpack[RequestFields]) -> httpx.Response:
        """As `request`, for `await`."""
        return await asyncio.to_thread(self.request, method, path, **fields)

    async def get_async(self, path: str, **fields: Unpack[RequestFields]) -> httpx.Response:
        """As `get`, for `await`."""
        return await self.request_async("GET", path, **fields)

    async def post_async(self, path: str, **fields: Unpack[RequestFields]) -> httpx.Response:
        """As `post`, for `await`."""
        return await self.request_async("POST", path, **fields)

    async def put_async(self, path: str, **fields: Unpack[RequestFields]) -> httpx.Response:
        """As `put`, for `await`."""
        return await self.request_async("PUT", path, **fields)

    async def patch_async(self, path: str, **fields: Unpack[RequestFields]) -> httpx.Response:
        """As `patch`, for `await`."""
        return await self.request_async("PATCH", path, **fields)

    async def delete_async(self, path: str, **fields: Unpack[RequestFields]) -> httpx.Response:
        """As `delete`, for `await`."""
        return await self.request_async("DELETE", path, **fields)

    @contextmanager
    def stream(self, method: str, path: str, **fields: Unpack[RequestFields]) -> Iterator[StreamedResponse]:
        """Send a request whose response is read while the handler still writes it.

        Leaving the `with` hangs up.

            with iii.http.stream("GET", "/events") as response:
                first = next(response.iter_lines())
        """
        request = self._client.build_request(method, path, **fields)
        response = self._wait(self._client.send(request, stream=True), f"{method} {path}")
        try:
            yield StreamedResponse(response, self._core)
        finally:
            self._core.wait(response.aclose())
            self._core.settle()

    @contextmanager
    def websocket(self, path: str, *, headers: Mapping[str, str] | None = None) -> Iterator[WebSocket]:
        """Open a WebSocket; leaving the `with` closes it.

        ConnectionRefusedError when the project does not accept it.

            with iii.http.websocket("/chat") as socket:
                socket.send("hello")
                assert socket.receive() == "hello to you"
        """
        request = self._client.build_request("GET", path, headers=dict(headers or {}))
        scope = {**_scope_of(request), "type": "websocket", "scheme": "ws", "subprotocols": []}
        del scope["method"]
        socket = WebSocket(self._core)
        self._wait(socket._open(_application(self._core), scope), f"the WebSocket {path}")
        try:
            yield socket
        finally:
            self._core.wait(socket._end(1000), CALL_TIMEOUT)
            self._core.settle()

    def close(self) -> None:
        """Forget the cookies, and close."""
        self._core.wait(self._client.aclose())

    def _wait(self, work: Coroutine[Any, Any, T], what: str) -> T:
        self._core.settle()  # a binding that was just made has reached the worker
        try:
            return self._core.wait_moving(work)
        except TimeoutError:
            raise TimeoutError(f"{what} has no answer after {CALL_TIMEOUT:g} s") from None


class StreamedResponse:
    """A response that has begun. `status_code` and `headers` are there, the body comes as it is written."""

    def __init__(self, response: httpx.Response, core: Core) -> None:
        self._response = response
        self._core = core
        self.status_code = response.status_code
        self.headers = response.headers

    def iter_bytes(self) -> Iterator[bytes]:
        """Yield the body in the pieces that it was written in."""
        return self._items(self._response.aiter_bytes())

    def iter_lines(self) -> Iterator[str]:
        """Yield the body's lines without their ends: of server-sent events `data: ...` and empty ones between."""
        return self._items(self._response.aiter_lines())

    def _items(self, items: AsyncIterator[Any]) -> Iterator[Any]:
        async def following() -> Any:
            return await anext(items, None)

        while (item := self._core.wait_moving(following())) is not None:
            yield item


class WebSocket:
    """An open WebSocket of a test."""

    def __init__(self, core: Core) -> None:
        self._core = core
        self._to_server: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._to_client: asyncio.Queue[dict[str, Any]] = asyncio.Queue()
        self._serving: asyncio.Task[None] | None = None
        self._is_closed = False

    def send(self, message: str | bytes) -> None:
        """Send a text or bytes."""
        key = "text" if isinstance(message, str) else "bytes"
        self._core.wait(self._to_server.put({"type": "websocket.receive", key: message}))

    def receive(self) -> str | bytes:
        """Return the next message. ConnectionError once the server has closed, TimeoutError after 20 real seconds."""
        message = self._core.wait(self._to_client.get(), CALL_TIMEOUT)
        if message["type"] == "websocket.close":
            self._is_closed = True
            raise ConnectionError(f"the server has closed the WebSocket with {message.get('code', 1000)}")
        found: str | bytes = message["bytes"] if message.get("text") is None else message["text"]
        return found

    async def _open(self, application: Any, scope: dict[str, Any]) -> None:
        scope["extensions"] = {"websocket.http.response": {}}
        self._to_server.put_nowait({"type": "websocket.connect"})
        serving = application(scope, self._to_server.get, self._to_client.put)
        self._serving = asyncio.get_running_loop().create_task(serving)
        answer = await self._to_client.get()
        if answer["type"] != "websocket.accept":
            self._is_closed = True
            body = await self._to_client.get() if "status" in answer else {}
            text = f"the server answered {answer.get('status', 403)} {body.get('body', b'').decode()}"
            raise ConnectionRefusedError(text.strip())

    async def _end(self, code: int) -> None:
        if not self._is_closed:
            self._is_closed = True
            self._to_server.put_nowait({"type": "websocket.disconnect", "code": code})
        if self._serving is not None:
            await asyncio.wait({self._serving})


class _Transport(httpx.AsyncBaseTransport):
    """Calls the application for each request, and hands its response over from its first byte on."""

    def __init__(self, core: Core) -> None:
        self._core = core

    async def handle_async_request(self, request: httpx.Request) -> httpx.Response:
        body = await request.aread()
        answer = _Answer(body)
        application = _application(self._core)(_scope_of(request), answer.receive, answer.send)
        answer.task = asyncio.get_running_loop().create_task(application)
        answer.task.add_done_callback(answer.end)
        status, headers = await answer.head
        return httpx.Response(status, headers=headers, stream=answer, request=request)


class _Answer(httpx.AsyncByteStream):
    """One response on its way from the application."""

    task: asyncio.Task[None]

    def __init__(self, body: bytes) -> None:
        self._body: bytes | None = body
        self._gone = asyncio.Event()
        self._chunks: asyncio.Queue[bytes | None] = asyncio.Queue()
        self._is_whole = False
        self.head: asyncio.Future[tuple[int, Any]] = asyncio.get_running_loop().create_future()

    async def receive(self) -> dict[str, Any]:
        if self._body is not None:
            body, self._body = self._body, None
            return {"type": "http.request", "body": body, "more_body": False}
        await self._gone.wait()
        return {"type": "http.disconnect"}

    async def send(self, message: dict[str, Any]) -> None:
        if message["type"] == "http.response.start":
            self.head.set_result((message["status"], message["headers"]))
            return
        if message.get("body"):
            self._chunks.put_nowait(message["body"])
        if not message.get("more_body", False):
            self._is_whole = True
            self._chunks.put_nowait(None)

    def end(self, task: asyncio.Task[None]) -> None:
        """The application has returned; an answer that it has not completed is broken off."""
        self._chunks.put_nowait(None)
        if not self.head.done():
            error = None if task.cancelled() else task.exception()
            self.head.set_exception(error or RuntimeError("the http worker has not answered"))

    async def __aiter__(self) -> AsyncIterator[bytes]:
        while (chunk := await self._chunks.get()) is not None:
            yield chunk
        if not self._is_whole:
            raise httpx.RemoteProtocolError("the handler failed within its answer, which is broken off")

    async def aclose(self) -> None:
        self._gone.set()


def _application(core: Core) -> Any:
    if core.asgi is None:
        raise ValueError(_NO_SERVER)
    return core.asgi


def _scope_of(request: httpx.Request) -> dict[str, Any]:
    raw_path = request.url.raw_path.partition(b"?")[0]
    return {
        "type": "http",
        "asgi": {"version": "3.0"},
        "http_version": "1.1",
        "method": request.method,
        "scheme": "http",
        "path": unquote(raw_path.decode("latin-1")),
        "raw_path": raw_path,
        "root_path": "",
        "query_string": request.url.query,
        "headers": [(name.lower(), value) for name, value in request.headers.raw],
        "server": (_HOST, 80),
        "client": ("127.0.0.1", 0),
        "state": {},
    }
