"""A command in a pseudo-terminal, and its screen as a terminal emulator shows it."""

from __future__ import annotations

import fcntl
import os
import select
import signal
import struct
import subprocess
import sys
import termios
import time
from collections.abc import Callable
from pathlib import Path
from types import TracebackType
from typing import Self

import pyte

from tests.support.command import environment

# Every wait has a bound, far beyond what a loaded machine needs.
BOUND = 30.0
ROWS = 24


class Terminal:
    """Runs `iii WORDS...` in a terminal of so many columns. A context manager that ends the command."""

    def __init__(self, folder: Path, *words: str, columns: int = 80, **env: str) -> None:
        self.written = b""  # all that the command wrote
        self._screen = pyte.Screen(columns, ROWS)
        self._stream = pyte.ByteStream(self._screen)
        self._fd, inner = os.openpty()
        self._set_size(columns)
        self.process = subprocess.Popen(
            [sys.executable, "-m", "cli.main", *words],
            cwd=folder,
            env=environment(**{"TERM": "xterm-256color", "NO_COLOR": "1", **env}),
            stdin=inner,
            stdout=inner,
            stderr=inner,
            start_new_session=True,
        )
        os.close(inner)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, tb: TracebackType | None) -> None:
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGINT)
        self.read_until(lambda _: False, or_end=True)
        self.process.wait(BOUND)
        os.close(self._fd)

    @property
    def lines(self) -> list[str]:
        """The lines of the screen that are not empty."""
        return [line.rstrip() for line in self._screen.display if line.strip()]

    @property
    def text(self) -> str:
        return "\n".join(self.lines)

    @property
    def has_cursor(self) -> bool:
        """Whether the cursor is shown."""
        return not self._screen.cursor.hidden

    def wait_for(self, text: str) -> None:
        """Wait until the screen shows a text."""
        self.read_until(lambda screen: text in screen)

    def read_until(self, is_met: Callable[[str], bool], *, or_end: bool = False) -> None:
        """Read until the screen is as wanted; with `or_end`, the end of the command is as good."""
        deadline = time.monotonic() + BOUND
        while not is_met(self.text):
            left = deadline - time.monotonic()
            if not select.select([self._fd], [], [], max(0.0, left))[0]:
                raise AssertionError(f"the screen is still\n{self.text}")
            try:
                data = os.read(self._fd, 65536)
            except OSError:  # the last process has closed the terminal
                data = b""
            if not data:
                if or_end:
                    return
                raise AssertionError(f"the command has ended; the screen is\n{self.text}")
            self.written += data
            self._stream.feed(data)

    def resize(self, columns: int) -> None:
        """Give the terminal another width."""
        self._screen.resize(ROWS, columns)
        self._set_size(columns)

    def _set_size(self, columns: int) -> None:
        fcntl.ioctl(self._fd, termios.TIOCSWINSZ, struct.pack("HHHH", ROWS, columns, 0, 0))
