"""`NAME.db.mark`: how far the write-ahead log reached at the last acknowledged commit. Tells a crash what is lost.

SQLite reads a log up to its first damaged frame and takes what comes before for the truth: one flipped bit, and an
older acknowledged value is served without a word. So each commit notes its end outside of the log, and the next start
compares.

The place is taken from the header of the `-shm` file (https://sqlite.org/walformat.html, "WAL-Index Header"), which
SQLite has just written, and noted without an fsync: the kernel keeps the note when the process dies. After a power cut
the note may be older than the log, and never newer: it is written after the log's fsync. What the note does not cover
is looked at in the log itself: a commit that is followed by another one was durable.
"""

from __future__ import annotations

import mmap
import os
import struct
import zlib
from pathlib import Path
from typing import NamedTuple

_HEADER_BYTES = 48
# Offsets 16 to 40 of the header: frames, pages of the file, the last frame's checksum, the log's two salts.
_POSITION = struct.Struct("=I4x8s")
_SALTS = struct.Struct(">II")
# One of two slots, written by turns, so that a kill in the middle of a write leaves the other one whole.
_SLOT = struct.Struct(">QIII8s")
_SLOT_BYTES = 64
_LOG_HEADER_BYTES = 32
# How often a log may have begun anew since a note that the power cut has made old.
MAX_GENERATIONS = 2**16
_FRAME_HEADER = struct.Struct(">IIII")


class LogPosition(NamedTuple):
    """The end of the last commit in a log. `generation` and `salt` change when the log begins anew."""

    generation: int
    salt: int
    frames: int
    checksum: bytes

    def has_lost(self, acknowledged: LogPosition) -> bool:
        """Tell whether a log that ends here misses something of what was acknowledged at another position."""
        if acknowledged.frames == 0:
            return False
        if (self.generation, self.salt) == acknowledged[:2]:
            is_behind = self.frames < acknowledged.frames
            return is_behind or (self.frames == acknowledged.frames and self.checksum != acknowledged.checksum)
        # A log begins anew, with the next generation, only when all of it is in the file. A log whose own header cannot
        # be read has no generation: all zeros.
        is_newer = 0 < (self.generation - acknowledged.generation) % 2**32 < MAX_GENERATIONS
        return not is_newer or (self.generation, self.salt) == (0, 0)


class LogIndex:
    """The mapped `-shm` file of a database that this process has open."""

    def __init__(self, path: Path) -> None:
        # The descriptor stays open: closing it would drop SQLite's own locks on the same file.
        self._descriptor = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
        self._map = mmap.mmap(self._descriptor, _HEADER_BYTES, prot=mmap.PROT_READ)

    def position(self) -> LogPosition:
        """Return where the log ends. Call it on the storage thread, outside of a transaction."""
        frames, checksum = _POSITION.unpack_from(self._map, 16)
        generation, salt = _SALTS.unpack_from(self._map, 32)
        return LogPosition(generation, salt, frames, checksum)

    def close(self) -> None:
        """Let go of the file; after SQLite has closed the database."""
        self._map.close()
        os.close(self._descriptor)


class CommitMark:
    """The note of the last acknowledged commit."""

    def __init__(self, path: Path) -> None:
        self._path = path
        # Written and not mapped: a full disk must be an error here, and no signal.
        self._descriptor = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
        self._writes = 0
        self.clear()

    def note(self, position: LogPosition) -> None:
        """Note that everything up to here is acknowledged. OSError when that cannot be written."""
        self._writes += 1
        slot = _SLOT.pack(self._writes, *position)
        os.pwrite(self._descriptor, slot + zlib.crc32(slot).to_bytes(4), self._writes % 2 * _SLOT_BYTES)

    def clear(self) -> None:
        """Note, durably, that the log may be empty: everything is in the file, or is about to be moved there."""
        os.pwrite(self._descriptor, bytes(2 * _SLOT_BYTES), 0)
        os.fsync(self._descriptor)

    def remove(self) -> None:
        """Take the file away: the database is closed, and whole without it."""
        self._path.unlink(missing_ok=True)
        self.close()

    def close(self) -> None:
        """Leave the note for the next start."""
        os.close(self._descriptor)


def read_mark(path: Path) -> LogPosition | None:
    """Return what an earlier process has noted; None for no note, or none that can be read."""
    try:
        data = path.read_bytes()
    except FileNotFoundError:
        return None
    found: list[tuple[int, LogPosition]] = []
    for start in range(0, len(data) - _SLOT.size - 3, _SLOT_BYTES):
        slot = data[start : start + _SLOT.size]
        if slot.strip(b"\0") and zlib.crc32(slot).to_bytes(4) == data[start + _SLOT.size : start + _SLOT.size + 4]:
            writes, generation, salt, frames, checksum = _SLOT.unpack(slot)
            found.append((writes, LogPosition(generation, salt, frames, checksum)))
    return max(found)[1] if found else None


def has_later_commit(log: Path, position: LogPosition) -> bool:
    """Tell whether a commit that SQLite did not read, after `position`, was followed by another one.

    The second began when the first was durable. A single unread commit at the end was never acknowledged: the process,
    or the machine, died while it was written.
    """
    with log.open("rb") as file:
        header = file.read(_LOG_HEADER_BYTES)
        if len(header) < _LOG_HEADER_BYTES:
            return False
        frame_bytes = 24 + int.from_bytes(header[8:12])
        salts = _SALTS.unpack_from(header, 16)
        number, has_commit = position.frames, False
        while True:
            file.seek(_LOG_HEADER_BYTES + number * frame_bytes)
            frame = file.read(_FRAME_HEADER.size)
            if len(frame) < _FRAME_HEADER.size:
                return False
            _, pages, *frame_salts = _FRAME_HEADER.unpack(frame)
            if tuple(frame_salts) == salts:
                if has_commit:
                    return True
                has_commit = pages != 0  # only the last frame of a commit says how large the file is
            number += 1
