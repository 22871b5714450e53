"""What a connection too many gets: an answer at once, and its end. Used by `listening`."""

from __future__ import annotations

import asyncio

# Closing before the request is read would reset the connection and lose the answer. Few may wait for that.
LINGER_SECONDS = 0.5
MAX_LINGERING = 64
_BODY = b'{"error":{"code":"overloaded","message":"too many connections are open"}}'
_HEAD = (
    b"HTTP/1.1 503 Service Unavailable\r\ncontent-type: application/json\r\nretry-after: 1\r\n"
    b"connection: close\r\ncontent-length: %d\r\n\r\n"
)


class TurnedAway(asyncio.Protocol):
    """A connection that is told to come again."""

    _lingering = 0

    def connection_made(self, transport: asyncio.BaseTransport) -> None:
        """Answer before anything was asked."""
        assert isinstance(transport, asyncio.Transport)
        TurnedAway._lingering += 1
        transport.write(_HEAD % len(_BODY) + _BODY)
        if TurnedAway._lingering > MAX_LINGERING:
            transport.close()
        else:
            transport.write_eof()
            asyncio.get_running_loop().call_later(LINGER_SECONDS, transport.close)

    def connection_lost(self, exc: Exception | None) -> None:  # noqa: ARG002 - the interface's
        """Leave the patience to the next one."""
        TurnedAway._lingering -= 1
