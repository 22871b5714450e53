"""One end of a channel over the engine's unix socket: for supervised workers, which need no network.

`ChannelSocket` has the methods of `WebSocket` that `channels.py` uses.
"""

from __future__ import annotations

import contextlib
import select
import socket

from iii.protocol.frames import ChannelFrameError, ChannelFrameSplitter, frame

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

READ_SIZE = 256 * 1024
OPEN_TIMEOUT = 10.0
# The engine's lines before the channel's bytes are short.
_MAX_HEAD = 64 * 1024


class ChannelClosed(OSError):
    """The engine does not open this end of a channel, or has closed it; the text says why."""


class ChannelSocket:
    """One open end. `path` is the engine's socket, `reference` the JSON form. OSError when the engine refuses it."""

    def __init__(self, path: str, reference: dict[str, str]) -> None:
        import json  # few workers have channels

        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._splitter = ChannelFrameSplitter()
        self._received: list[tuple[int, bytes]] = []
        try:
            self.socket.settimeout(OPEN_TIMEOUT)
            self.socket.connect(path)
            self.socket.sendall(json.dumps({"type": "channelopen", **reference}).encode() + b"\n")
            self._received = self._splitter.feed(self._wait_until_open(json.loads))
            self.socket.settimeout(None)
        except BaseException:
            self.socket.close()
            raise
        self._poll = select.poll()
        self._poll.register(self.socket, select.POLLIN)

    def _wait_until_open(self, loads: Any) -> bytes:
        """Read the engine's lines up to the one that opens the end; return the bytes that came behind it."""
        data = b""
        while True:
            line, newline, remaining = data.partition(b"\n")
            if not newline:
                part = self.socket.recv(READ_SIZE)
                if not part or len(data) > _MAX_HEAD:
                    raise ChannelClosed("the engine closed the connection")
                data += part
                continue
            answer = loads(line)
            if answer.get("type") == "error":
                raise ChannelClosed(answer["error"]["message"])
            if answer.get("type") == "channelopened":
                return remaining
            data = remaining  # the engine greets every connection; only peers need that line

    def receive(self, timeout: float | None) -> list[tuple[int, bytes]] | None:
        """Return what has arrived; None after `timeout` seconds. OSError at the end."""
        if self._received:
            received, self._received = self._received, []
            return received
        if timeout is not None and not self._poll.poll(timeout * 1000):
            return None
        data = self.socket.recv(READ_SIZE)
        if not data:
            raise ChannelClosed("the other end is closed")
        try:
            return self._splitter.feed(data)
        except ChannelFrameError as error:
            raise ChannelClosed(f"the engine sent {error}") from None

    def send(self, opcode: int, payload: bytes) -> None:
        """Send one message; blocks while the reader is behind. OSError once the reader is gone."""
        self.socket.sendall(frame(opcode, payload))

    def finish(self, timeout: float) -> None:
        """End the stream, and wait at most `timeout` seconds until the engine has read all of it and closes."""
        try:
            self.socket.shutdown(socket.SHUT_WR)
            self.socket.settimeout(timeout)
            while self.socket.recv(READ_SIZE):
                pass
        except OSError:
            pass  # the engine has closed the connection first, or the reader has left
        finally:
            self.socket.close()

    def close(self) -> None:
        """Close; a thread that blocks in `receive` gets the end."""
        with contextlib.suppress(OSError):  # it is closed already
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
