"""HTTP for workers: handlers that stream their response, and the names of functions that live behind a URL.

`@http` is for routes whose trigger's config has `"stream": true`. The http worker puts two channels into the payload;
status and headers go ahead of the body's first bytes, as texts of the same channel (public contract).
"""

from __future__ import annotations

from iii.worker.api.http_functions import HttpAuthApiKey, HttpAuthBearer, HttpAuthHmac, HttpInvocationConfig
from iii.worker.channels import ChannelClosed, ChannelReader, ChannelWriter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

    Handler = Callable[["StreamRequest", "StreamResponse"], Awaitable[Any]]

__all__ = ["HttpAuthApiKey", "HttpAuthBearer", "HttpAuthHmac", "HttpInvocationConfig"]
__all__ += ["StreamRequest", "StreamResponse", "http"]


class StreamRequest:
    """One request: `path_params`, `query_params`, `headers`, `method`, and its body.

    `body` is the parsed body, None without one; `request_body` reads its raw bytes.
    """

    def __init__(self, payload: dict[str, Any]) -> None:
        self.path_params: dict[str, str] = payload.get("path_params") or {}
        self.query_params: dict[str, Any] = payload.get("query_params") or {}
        self.headers: dict[str, str] = payload.get("headers") or {}
        self.method: str = payload.get("method") or "GET"
        self.body: Any = payload.get("body")
        self.request_body: ChannelReader = payload["request_body"]


class StreamResponse:
    """One response. Set status and headers first: the first bytes of the body send them."""

    def __init__(self, writer: ChannelWriter) -> None:
        self.writer = writer

    @property
    def stream(self) -> ChannelWriter:
        """The writer of the body."""
        return self.writer

    async def status(self, status_code: int) -> None:
        """Set the status, 200 to 599."""
        await self._send_control({"type": "set_status", "status_code": status_code})

    async def headers(self, headers: dict[str, str]) -> None:
        """Add headers."""
        await self._send_control({"type": "set_headers", "headers": headers})

    async def write(self, data: bytes | str) -> None:
        """Send a part of the body. OSError once the client is gone."""
        await self.writer.write(data.encode() if isinstance(data, str) else data)

    async def close(self) -> None:
        """End the body."""
        await self.writer.close_async()

    async def _send_control(self, message: dict[str, Any]) -> None:
        import json  # few workers stream

        await self.writer.send_message_async(json.dumps(message))


def http(handler: Handler) -> Callable[[dict[str, Any]], Awaitable[Any]]:
    """Return a function's handler that calls `async def handler(req, res)` with a request and a response.

    A result other than None is the response's body in place of a stream. KeyError when the payload has no channels: the
    trigger's config needs `"stream": true`.

        @http
        async def page(req: StreamRequest, res: StreamResponse) -> None:
            await res.status(200)
            await res.write("hello")

        worker.register_function("site::page", page)
    """

    async def function(payload: dict[str, Any]) -> Any:
        response = StreamResponse(payload["response"])
        try:
            result = await handler(StreamRequest(payload), response)
        except ChannelClosed:
            return None  # the client is gone, and with it the only one to tell
        if result is None:
            await response.close()
        return result

    function.__name__ = getattr(handler, "__name__", "function")
    function.__doc__ = handler.__doc__
    return function
