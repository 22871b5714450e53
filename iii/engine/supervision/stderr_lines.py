"""Bytes that a process writes to its log -> lines of text, within a budget.

Splits on newlines only. A worker may write as fast as it likes: what is over the budget of a second is
counted, not kept, and the count comes out as a line. The unfinished last line comes out when `flush` is
called 200 ms later. Pure; one feed a process.
"""

from __future__ import annotations

BUDGET = 1024 * 1024  # bytes kept of one second: more nobody reads, and it would fill the disk
WINDOW = 1.0
MAX_LINE = 64 * 1024  # bytes kept of one line
FLUSH_AFTER = 0.2  # seconds until an unfinished line is shown: a prompt, a progress bar


class StderrLines:
    """Feed bytes and the time in, get lines out. Lines out plus suppressed lines are the lines written."""

    __slots__ = ("_is_skipping", "_suppressed", "_tail", "_used", "_window")

    def __init__(self) -> None:
        self._tail = b""
        self._window = 0.0
        self._used = 0
        self._suppressed = 0
        self._is_skipping = False  # the rest of a line whose head is lost

    @property
    def is_waiting(self) -> bool:
        """True when `flush` will have something to say."""
        return bool(self._tail or self._suppressed)

    def feed(self, data: bytes, now: float) -> list[str]:
        """Return the lines completed by `data`, and before them how many an ended second has suppressed."""
        notes = self._roll(now)
        kept = self._within_budget(self._skip(data))
        if not kept:
            return notes
        lines = (self._tail + kept).split(b"\n")
        self._tail = lines.pop()
        if len(self._tail) > MAX_LINE:
            lines.append(self._tail)
            self._tail, self._is_skipping = b"", True
            self._suppressed -= 1  # its head is shown: the end of it will not count
        return notes + [_text(line) for line in lines]

    def flush(self, now: float) -> list[str]:
        """Return the unfinished line, and what a second that is over has suppressed."""
        notes = self._roll(now)
        tail, self._tail = self._tail, b""
        return [*notes, _text(tail)] if tail else notes

    def close(self) -> list[str]:
        """Return what is left when the process is gone."""
        return self.flush(self._window + WINDOW)

    def _roll(self, now: float) -> list[str]:
        if now - self._window < WINDOW:
            return []
        self._window, self._used = now, 0
        suppressed, self._suppressed = self._suppressed, min(self._suppressed, 0)
        return [f"{suppressed} lines suppressed (over 1 MiB a second)"] if suppressed > 0 else []

    def _skip(self, data: bytes) -> bytes:
        if not self._is_skipping:
            return data
        end = data.find(b"\n")
        if end < 0:
            return b""
        self._is_skipping = False
        self._suppressed += 1
        return data[end + 1 :]

    def _within_budget(self, data: bytes) -> bytes:
        room = BUDGET - self._used
        if len(data) <= room:
            self._used += len(data)
            return data
        cut = data.rfind(b"\n", 0, max(room, 0)) + 1
        self._used = BUDGET
        lost = data[cut:]
        self._suppressed += lost.count(b"\n")
        if not cut:
            self._tail = b""  # the head of the first lost line
        self._is_skipping = not lost.endswith(b"\n")
        return data[:cut]


def _text(line: bytes) -> str:
    text = line[:MAX_LINE].decode("utf-8", "replace").removesuffix("\r")
    more = len(line) - MAX_LINE
    return f"{text} ... {more} bytes more" if more > 0 else text
