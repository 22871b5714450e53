"""One end of a channel over the engine's unix socket: what supervised workers use, no network needed.

Looks like `Wire` of `websocket.py` to `channels.py`.
"""

from __future__ import annotations

import contextlib
import select
import socket

from iii.protocol.channel_frames import ChannelFrameError, ChannelFrameSplitter, frame

TYPE_CHECKING = False
if TYPE_CHECKING:
    from typing import Any

READ_SIZE = 256 * 1024
OPEN_SECONDS = 10.0
# The engine's lines before the channel's bytes are short.
_MAX_HEAD = 64 * 1024


class ChannelGone(OSError):
    """The engine does not let us at this end of a channel; the text says why."""


class LocalWire:
    """One open end. `path` is the engine's socket, `reference` the JSON form. OSError when the end cannot be had."""

    def __init__(self, path: str, reference: dict[str, str]) -> None:
        import json  # few workers have channels

        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._splitter = ChannelFrameSplitter()
        self._received: list[tuple[int, bytes]] = []
        try:
            self.socket.settimeout(OPEN_SECONDS)
            self.socket.connect(path)
            self.socket.sendall(json.dumps({"type": "channelopen", **reference}).encode() + b"\n")
            rest = self._wait_until_open(json.loads)
            self._received = self._splitter.feed(rest)
            self.socket.settimeout(None)
        except BaseException:
            self.socket.close()
            raise
        self._poll = select.poll()
        self._poll.register(self.socket, select.POLLIN)

    def _wait_until_open(self, loads: Any) -> bytes:
        """Read the engine's lines up to the one that opens the end; return what came behind it."""
        data = b""
        while True:
            line, end, rest = data.partition(b"\n")
            if not end:
                part = self.socket.recv(READ_SIZE)
                if not part or len(data) > _MAX_HEAD:
                    raise ChannelGone("the engine closed the connection")
                data += part
                continue
            answer = loads(line)
            if answer.get("type") == "error":
                raise ChannelGone(answer["error"]["message"])
            if answer.get("type") == "channelopened":
                return rest
            data = rest  # a greeting for those that stay peers

    def receive(self, timeout: float | None) -> list[tuple[int, bytes]] | None:
        """Return what has arrived; None after `timeout` seconds. OSError at the end."""
        if self._received:
            received, self._received = self._received, []
            return received
        if timeout is not None and not self._poll.poll(timeout * 1000):
            return None
        data = self.socket.recv(READ_SIZE)
        if not data:
            raise ChannelGone("the other end is closed")
        try:
            return self._splitter.feed(data)
        except ChannelFrameError as error:
            raise ChannelGone(f"the engine sent {error}") from None

    def send(self, opcode: int, payload: bytes) -> None:
        """Send one message; blocks while the reader is behind. OSError once it is gone."""
        self.socket.sendall(frame(opcode, payload))

    def finish(self, seconds: float) -> None:
        """End the stream, and wait until the engine has all of it: it closes then."""
        try:
            self.socket.shutdown(socket.SHUT_WR)
            self.socket.settimeout(seconds)
            while self.socket.recv(READ_SIZE):
                pass
        except OSError:
            pass  # the engine was faster, or the reader has left
        finally:
            self.socket.close()

    def close(self) -> None:
        """Close; a thread that blocks in `receive` gets the end."""
        with contextlib.suppress(OSError):  # it is closed already
            self.socket.shutdown(socket.SHUT_RDWR)
        self.socket.close()
