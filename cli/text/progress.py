"""What is shown on stderr while a command takes its time, if that is a terminal. rich draws it."""

from __future__ import annotations

import os
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager

from cli.text.output import shown

DELAY = 0.5  # seconds; a command that is done by then shows nothing, and does without rich


@contextmanager
def progress(text: str, total: int = 0) -> Iterator[Callable[[int], None]]:
    """Show `text` while the block runs, with a bar where `total` bytes are to be done: call what is yielded with each.

    A pipe, and a terminal that cannot move its cursor (TERM=dumb), get nothing.
    """
    bar = _Bar(shown(text), total)
    if not sys.stderr.isatty() or os.environ.get("TERM") in ("dumb", "unknown"):
        yield bar.advance
        return
    timer = threading.Timer(DELAY, bar.begin)
    timer.start()
    try:
        yield bar.advance
    finally:
        timer.cancel()
        bar.end()


class _Bar:
    def __init__(self, text: str, total: int) -> None:
        self._text = text
        self._total = total
        self._done = 0
        self._lock = threading.Lock()
        self._is_over = False
        self._update: Callable[[], None] = lambda: None
        self._stop: Callable[[], None] = lambda: None

    def begin(self) -> None:
        from rich.console import Console  # for what takes its time in a terminal
        from rich.progress import BarColumn, Progress, ProgressColumn, SpinnerColumn, TaskProgressColumn, TextColumn
        from rich.table import Column

        with self._lock:
            if self._is_over:
                return
            narrow = Column(no_wrap=True, overflow="ellipsis")
            columns: list[ProgressColumn] = [
                SpinnerColumn("line", table_column=Column(min_width=1, no_wrap=True)),
                TextColumn("{task.description}", markup=False, table_column=narrow),
            ]
            if self._total:
                columns += [BarColumn(bar_width=None), TaskProgressColumn()]
            drawn = Progress(*columns, console=Console(stderr=True), transient=True)
            task = drawn.add_task(self._text, total=self._total or None, completed=self._done)
            drawn.start()
            self._update = lambda: drawn.update(task, completed=self._done)
            self._stop = drawn.stop

    def advance(self, size: int) -> None:
        self._done += size
        self._update()

    def end(self) -> None:
        with self._lock:
            self._is_over = True
            self._stop()
