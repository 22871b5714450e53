"""Bytes from the wire to messages, a block of complete lines at a time.

Splits on `b"\\n"` only. A line over the limit costs that line: its first bytes are kept for the invocation id. A
payload that holds references to channels gets live ends in their place; one search of the block's bytes finds them.
"""

from __future__ import annotations

from iii.worker.codec.codec import oversized
from iii.worker.codec.limits import HEAD, MAX_LINE

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from iii.errors import RemoteProtocolError
    from iii.worker.codec.codec import Codec, Message


# Every reference to a channel holds this key.
_CHANNEL_KEY = b'"access_key"'


class LineReader:
    """`feed` bytes, get messages; a refused line gives its error in the message's place.

    `revive` turns the channel references of a payload into live ends.
    """

    def __init__(
        self, codec: Codec, limit: int = MAX_LINE, *, revive: Callable[[Any], Any] = lambda data: data
    ) -> None:
        self._codec = codec
        self._limit = limit
        self._revive = revive
        self._parts: list[bytes] = []
        self._size = 0
        self._head = b""

    def feed(self, data: bytes) -> list[Message | RemoteProtocolError]:
        """Return the messages completed by `data`."""
        cut = data.rfind(b"\n")
        if cut == len(data) - 1 and not self._size:
            return self._decode(data)
        if cut < 0:
            self._keep(data)
            return []
        first = data.find(b"\n")
        messages = self._finish(data[:first])
        messages += self._decode(data[first + 1 : cut])
        self._keep(data[cut + 1 :])
        return messages

    def _decode(self, block: bytes) -> list[Message | RemoteProtocolError]:
        messages = self._codec.decode_block(block)
        if block.find(_CHANNEL_KEY) >= 0:  # `in` takes twice its time
            for message in messages:
                if isinstance(message, dict) and message.get("type") == "invokefunction":
                    message["data"] = self._revive(message.get("data"))
        return messages

    def _keep(self, data: bytes) -> None:
        self._size += len(data)
        if self._size <= self._limit:
            self._parts.append(data)
        elif not self._head:
            self._head = (b"".join(self._parts) + data)[:HEAD]
            self._parts.clear()

    def _finish(self, tail: bytes) -> list[Message | RemoteProtocolError]:
        """Return the message of the kept parts and `tail`, which complete one line."""
        self._keep(tail)
        size, self._size = self._size, 0
        head, self._head = self._head, b""
        if size > self._limit:
            return [oversized(head, size)]
        line = b"".join(self._parts)
        self._parts.clear()
        return self._decode(line)
