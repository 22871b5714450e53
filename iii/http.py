"""Handlers that answer HTTP requests as a stream: `@http` around `async def handler(req, res)`; and functions that
live behind a URL: `HttpInvocationConfig` in place of a handler.

Streams are for routes with `stream = true` in their trigger's config. The request and the response are what the http
worker put into the payload; status and headers go ahead of the first bytes as texts of the same channel (public
contract).
"""

from __future__ import annotations

from iii.worker.api.http_functions import HttpAuthApiKey, HttpAuthBearer, HttpAuthHmac, HttpInvocationConfig
from iii.worker.channels.channels import ChannelReader, ChannelWriter

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Awaitable, Callable
    from typing import Any

    Handler = Callable[["StreamRequest", "StreamResponse"], Awaitable[Any]]

__all__ = [
    "HttpAuthApiKey",
    "HttpAuthBearer",
    "HttpAuthHmac",
    "HttpInvocationConfig",
    "StreamRequest",
    "StreamResponse",
    "http",
]


class StreamRequest:
    """One request: `path_params`, `query_params`, `headers`, `method`, a parsed `body` if it has one, and
    `request_body`, the reader of its raw bytes.
    """

    def __init__(self, payload: dict[str, Any]) -> None:
        self.path_params: dict[str, str] = payload.get("path_params") or {}
        self.query_params: dict[str, Any] = payload.get("query_params") or {}
        self.headers: dict[str, str] = payload.get("headers") or {}
        self.method: str = payload.get("method") or "GET"
        self.body: Any = payload.get("body")
        self.request_body: ChannelReader = payload["request_body"]


class StreamResponse:
    """The answer. Set status and headers first; the first bytes send them."""

    def __init__(self, writer: ChannelWriter) -> None:
        self.writer = writer

    @property
    def stream(self) -> ChannelWriter:
        """The writer of the body."""
        return self.writer

    async def status(self, status_code: int) -> None:
        """Set the status, 200 to 599."""
        await self._control({"type": "set_status", "status_code": status_code})

    async def headers(self, headers: dict[str, str]) -> None:
        """Add headers."""
        await self._control({"type": "set_headers", "headers": headers})

    async def write(self, data: bytes | str) -> None:
        """Send a part of the body. OSError once the client has gone."""
        await self.writer.write(data.encode() if isinstance(data, str) else data)

    async def close(self) -> None:
        """End the body."""
        await self.writer.close_async()

    async def _control(self, message: dict[str, Any]) -> None:
        import json  # loaded by whoever streams

        await self.writer.send_message_async(json.dumps(message))


def http(handler: Handler) -> Callable[[dict[str, Any]], Awaitable[Any]]:
    """Make a function's handler of `async def handler(req, res)`; what it returns, if anything, is the answer instead.

    KeyError when the route passes no channels: its trigger needs `stream: true`.
    """

    async def function(payload: dict[str, Any]) -> Any:
        response = StreamResponse(payload["response"])
        try:
            result = await handler(StreamRequest(payload), response)
        except OSError:
            return None  # the client has gone, and nobody is left to be told
        if result is None:
            await response.close()
        return result

    function.__name__ = getattr(handler, "__name__", "function")
    function.__doc__ = handler.__doc__
    return function
