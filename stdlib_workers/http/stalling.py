"""The client that does not read: what an HTTP connection and a WebSocket do about it.

asyncio says when more waits to be read than may; `Listening` asks about once a second whether that has lasted too long.
"""

from __future__ import annotations

import asyncio

# How long a client may accept no byte of an answer that waits for it.
STALL_SECONDS = 30.0


class StallLimit(asyncio.BaseProtocol):
    """Cuts off who stalls. Stands before uvicorn's protocol among the bases: that has the loop and the transport."""

    loop: asyncio.AbstractEventLoop
    transport: asyncio.Transport
    _stalled_since: float | None = None

    def pause_writing(self) -> None:
        """Note since when the client has not read."""
        super().pause_writing()
        self._stalled_since = self.loop.time()

    def resume_writing(self) -> None:
        """It reads again."""
        super().resume_writing()
        self._stalled_since = None

    def expire(self, now: float) -> None:
        """Cut off who has not read for too long."""
        if self._stalled_since is not None and now - self._stalled_since > STALL_SECONDS:
            self.transport.abort()
