"""One WebSocket's connection: uvicorn's protocol with the bounds that it does not have.

A message in more fragments than anybody needs ends its connection; a client that does not read gets no pongs, holds
back who writes to it, and is cut off when it stays so. `expire` is called about once a second, as for every connection.
"""

from __future__ import annotations

from typing import Any

from uvicorn.protocols.websockets.websockets_sansio_impl import WebSocketsSansIOProtocol
from websockets.frames import CloseCode, Frame

from stdlib_workers.http.stalling import StallLimit

# As at the engine's own listener.
MAX_FRAGMENTS = 4096
# For the close frame to leave; behind it nobody is expected to answer.
GOODBYE_SECONDS = 1.0


class LimitedSocket(StallLimit, WebSocketsSansIOProtocol):
    """A WebSocket whose client can hold nothing but itself up."""

    def handle_cont(self, event: Frame) -> None:
        """Count the fragments."""
        if len(self.frames) < MAX_FRAGMENTS:
            super().handle_cont(event)
        elif not self.close_sent:
            self.conn.fail(CloseCode.MESSAGE_TOO_BIG, f"a message has at most {MAX_FRAGMENTS} fragments")
            self.handle_parser_exception()

    def send_receive_event_to_app(self) -> None:
        """Hand a message on if it is what it says, without a traceback in the log if it is not."""
        if self.curr_msg_data_type == "text" and not self.close_sent and not _is_text(b"".join(self.frames)):
            self.frames = []
            self.conn.fail(CloseCode.INVALID_DATA, "the text is not UTF-8")
            self.handle_parser_exception()
        else:
            super().send_receive_event_to_app()

    async def send(self, message: Any) -> None:
        """Send, and take a handshake that was refused with an answer of its own for completed."""
        await super().send(message)
        if message["type"] == "websocket.http.response.body":
            self.handshake_complete = True

    def handle_ping(self) -> None:
        """Answer, unless earlier answers still wait to be read."""
        if self.writable.is_set():
            super().handle_ping()
        else:
            self.conn.data_to_send()

    def keepalive_timeout(self) -> None:
        """End a connection whose client is gone, with what it has not read."""
        super().keepalive_timeout()
        self.loop.call_later(GOODBYE_SECONDS, self.transport.abort)


def _is_text(data: bytes) -> bool:
    try:
        data.decode()
    except UnicodeDecodeError:
        return False
    return True
