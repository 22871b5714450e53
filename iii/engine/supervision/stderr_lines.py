"""Bytes that a process writes to stderr -> lines of text, within a budget. Pure.

Splits on newlines only, however long a line takes. A worker may write as fast as it likes: lines over the budget of a
second are counted and not kept, and a line tells their number. The owner calls `flush` some time after the last byte,
which shows the beginning of a line that is not finished.
"""

from __future__ import annotations

import codecs

BUDGET = 1024 * 1024  # bytes kept per window: no user can read more, and it would fill the disk
BUDGET_WINDOW = 1.0  # seconds
MAX_LINE = 64 * 1024  # bytes kept of one line
PARTIAL_LINE_TIMEOUT = 0.2  # seconds until the beginning of an unfinished line is shown: a prompt, a progress bar


class StderrLines:
    """Takes bytes and the time, returns lines. Each line that was written is returned or counted as suppressed."""

    __slots__ = ("_is_shown", "_is_skipping", "_suppressed", "_tail", "_used", "_window")

    def __init__(self) -> None:
        self._tail = b""
        self._window = 0.0
        self._used = 0
        self._suppressed = 0
        self._is_skipping = False  # the rest of a line of which the beginning is lost, or returned already
        self._is_shown = False  # the beginning of the unfinished line, by `flush`

    @property
    def is_waiting(self) -> bool:
        """True when `flush` will return something."""
        return bool((self._tail and not self._is_shown) or self._suppressed)

    def feed(self, data: bytes, now: float) -> list[str]:
        """Return the lines completed by `data`; before them, how many lines the last window has suppressed."""
        notes = self._roll(now)
        kept = self._within_budget(self._skip(data))
        if not kept:
            return notes
        lines = (self._tail + kept).split(b"\n")
        self._tail = lines.pop()
        if lines:
            self._is_shown = False
        if len(self._tail) > MAX_LINE:
            lines.append(self._tail)
            self._tail, self._is_skipping = b"", True
            self._suppressed -= 1  # the line's beginning is shown: `_skip` must not count its end
        return notes + [_text(line) for line in lines]

    def flush(self, now: float) -> tuple[list[str], str]:
        """Return how many lines the last window has suppressed, as lines, and the beginning of an unfinished line.

        The beginning is returned once, "" after that; the whole line follows when it is finished.
        """
        notes = self._roll(now)
        begun = "" if self._is_shown else _beginning(self._tail)
        self._is_shown = bool(self._tail)
        return notes, begun

    def close(self) -> list[str]:
        """Return what is left when the process is gone."""
        notes = self._roll(self._window + BUDGET_WINDOW)
        tail, self._tail = self._tail, b""
        return [*notes, _text(tail)] if tail else notes

    def _roll(self, now: float) -> list[str]:
        if now - self._window < BUDGET_WINDOW:
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
            self._tail = b""  # the beginning of the first lost line
        self._is_skipping = not lost.endswith(b"\n")
        return data[:cut]


def _beginning(line: bytes) -> str:
    """Return the text of a line that goes on, without the first bytes of a character that is not whole."""
    return codecs.getincrementaldecoder("utf-8")("replace").decode(line)


def _text(line: bytes) -> str:
    text = line[:MAX_LINE].decode("utf-8", "replace").removesuffix("\r")
    more = len(line) - MAX_LINE
    return f"{text} ... {more} bytes more" if more > 0 else text
