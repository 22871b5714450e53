"""Writes the lines of the screen, and below them on a terminal the workers that have still to come up.

`Writer` owns the descriptor and a thread, so that a terminal cannot hold up the engine. `LiveRows` has rich draw what
changes.
"""

from __future__ import annotations

import contextlib
import io
import os
import queue
import select
import threading
import time
from collections.abc import Mapping
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from rich.console import ConsoleRenderable
    from rich.live import Live

LIVE_DELAY = 0.25  # seconds; a project that is up by then does without rich, whose import is a part of that
REFRESH_INTERVAL = 0.2  # seconds
MAX_JOINED = 200  # lines of one write
MAX_ROWS = 10  # more workers than that are counted: the lines above have to stay in sight
MAX_ROW_WIDTH = 72  # a wide terminal that is made narrower then breaks few rows, which rich could not erase

# What each worker that has still to come up does, by its name.
Starting = Mapping[str, str]


class Writer:
    """Writes lines to a descriptor from a thread: a terminal stopped with Ctrl-S must not stop the engine.

    Over `limit` waiting lines new ones are dropped, counted and mentioned. After an error (the terminal is closed, the
    reader of the pipe has gone) everything is dropped in silence.
    """

    def __init__(self, fd: int, limit: int = 10_000) -> None:
        self.dropped = 0
        self._fd = fd
        self._limit = limit
        self._lines: queue.SimpleQueue[tuple[list[str], Starting] | None] = queue.SimpleQueue()
        self._thread = threading.Thread(target=self._write_all, name="terminal", daemon=True)
        self._thread.start()

    def write(self, lines: list[str], starting: Starting | None = None) -> None:
        """Queue lines (without newline). `starting` is drawn below them until the next lines: for terminals only."""
        if self._lines.qsize() >= self._limit:
            self.dropped += len(lines)
        else:
            self._lines.put((lines, starting or {}))

    def close(self, timeout: float = 1.0) -> None:
        """Write what waits, for at most `timeout` seconds."""
        self._lines.put(None)
        self._thread.join(timeout)

    def _write_all(self) -> None:
        rows = LiveRows()
        starting: Starting = {}
        item: tuple[list[str], Starting] | None = [], {}
        with contextlib.suppress(OSError):
            while True:
                try:
                    item = self._lines.get(timeout=REFRESH_INTERVAL if starting else None)
                except queue.Empty:
                    item = [], starting
                lines, starting = item or ([], {})
                lines = lines.copy()
                while item and not starting and len(lines) < MAX_JOINED and not self._lines.empty():
                    item = self._lines.get()
                    further, starting = item or ([], {})
                    lines += further
                if self.dropped and self._lines.empty():
                    lines.append(f"  {self.dropped} lines not shown: the terminal was too slow")
                    self.dropped = 0
                self._write(rows.draw("".join(f"{line}\n" for line in lines), starting))
                if item is None:
                    return
        while item is not None:
            item = self._lines.get()  # the terminal is gone, but the queue must not grow

    def _write(self, text: str) -> None:
        view = memoryview(text.encode("utf-8", "backslashreplace"))
        while view:
            try:
                view = view[os.write(self._fd, view) :]
            except BlockingIOError:  # another program has made the terminal that it shares non-blocking
                select.select((), (self._fd,), ())


class LiveRows:
    """One row for each worker that has still to come up, drawn again and again below the lines written meanwhile."""

    def __init__(self) -> None:
        self._drawn = io.StringIO()  # what rich writes, until it is taken
        self._live: Live | None = None
        self._since: float | None = None

    def draw(self, text: str, starting: Starting) -> str:
        """Return what writes the lines in `text`, and the rows below them in place of the former ones."""
        now = time.monotonic()
        if not starting:
            if self._live is not None:
                self._live.stop()
            self._live = self._since = None
            return self._take() + text
        self._since = self._since or now
        if self._live is None and now - self._since < LIVE_DELAY:
            return text
        live = self._live = self._live or self._begin()
        if text:
            # As it is: the lines have their own colors, and the terminal breaks long ones.
            live.console.out(text, end="", highlight=False)
        live.update(_rows(starting, now - self._since), refresh=True)
        return self._take()

    def _begin(self) -> Live:
        from rich.console import Console  # a terminal only, and only for a start that takes its time
        from rich.live import Live

        console = Console(file=self._drawn, force_terminal=True, color_system=None, highlight=False)
        live = Live(console=console, auto_refresh=False, transient=True, redirect_stdout=False, redirect_stderr=False)
        live.start()
        console.show_cursor(show=True)  # an engine that is killed now leaves no terminal without a cursor
        return live

    def _take(self) -> str:
        drawn = self._drawn.getvalue()
        self._drawn.seek(0)
        self._drawn.truncate()
        return drawn


def _rows(starting: Starting, seconds: float) -> ConsoleRenderable:
    from rich.constrain import Constrain  # as above
    from rich.text import Text

    shown = list(starting.items())[:MAX_ROWS]
    width = max(len(name) for name, _ in shown)
    rows = [f"  . {name:<{width}}  {seconds:.1f} s  {state}" for name, state in shown]
    if len(starting) > MAX_ROWS:
        rows.append(f"  . and {len(starting) - MAX_ROWS} more")
    return Constrain(Text("\n".join(rows), no_wrap=True, overflow="ellipsis"), MAX_ROW_WIDTH)
