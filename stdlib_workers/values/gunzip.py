"""`Gunzip`: decompresses gzip piece by piece, and never to more than a limit. Pure.

A decoder without a limit makes a thousand bytes out of one, all at once: what comes from outside is never handed to a
library that decompresses by itself.
"""

from __future__ import annotations

from collections.abc import Iterator
from zlib import MAX_WBITS, decompressobj
from zlib import error as ZlibError

# gzip alone, not zlib's own form.
_GZIP = 16 + MAX_WBITS


class Gunzip:
    """One compressed body of at most `limit` bytes when decompressed; several gzip members in a row are one body."""

    def __init__(self, limit: int) -> None:
        self._room = limit
        self._member = decompressobj(_GZIP)
        self._is_empty = True

    def feed(self, data: bytes) -> bytes:
        """Return what `data` decompresses to. ValueError for what is no gzip, OverflowError over the limit."""
        return b"".join(self._parts_of(data))

    def _parts_of(self, data: bytes) -> Iterator[bytes]:
        while data:
            if self._member.eof:
                self._member = decompressobj(_GZIP)
            try:
                part = self._member.decompress(data, self._room + 1)
            except ZlibError as error:
                raise ValueError(f"this is no gzip: {error}") from None
            self._is_empty = False
            self._room -= len(part)
            if self._room < 0:
                raise OverflowError("it is larger than the limit when decompressed")
            yield part
            data = self._member.unconsumed_tail or self._member.unused_data

    def close(self) -> None:
        """Raise ValueError when the body ended in the middle; an empty one is whole."""
        if not self._is_empty and not self._member.eof:
            raise ValueError("the gzip ends in the middle")
