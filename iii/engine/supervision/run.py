"""The identity of a worker's process and how it ended, as values. Pure.

`Run` names one process of one worker. Everything that concerns a process carries it, so that a late event of an old
generation can be told from one of the present generation. `ExitReason` says how the process ended, in words and with
the line of the worker's own code that is wrong, which `parse_traceback` finds in its stderr.
"""

from __future__ import annotations

import re
import signal
from collections.abc import Sequence
from pathlib import Path
from typing import Any, Literal

from msgspec import Struct

# Why the engine ended a process; "" when the process ended by itself.
Cause = Literal["", "stop", "reload", "memory", "unresponsive", "not ready", "spawn", "pre", "closed"]


class Run(Struct, frozen=True):
    """The identity of one process: worker name, instance from 0, generation from 1."""

    worker: str
    instance: int
    generation: int

    def __str__(self) -> str:
        instance = f"[{self.instance}]" if self.instance else ""
        return f"{self.worker}{instance}#{self.generation}"


class SourceError(Struct, frozen=True):
    """Where a worker's own code is wrong: the innermost project line of its traceback."""

    file: str
    line: int
    text: str  # "SyntaxError: expected ':'"
    source: str = ""  # the line itself, if the traceback shows it

    def __str__(self) -> str:
        return f"{self.text} ({self.file}:{self.line})"


class ExitReason(Struct, frozen=True):
    """How a process ended. Exactly one of `exit_code` and `signal` is set, none if it could not be started.

    `words` is one sentence for the user; `stderr` its last lines; `blamed` is true when calls were running on it.
    """

    words: str
    exit_code: int | None = None
    signal: int | None = None
    stderr: tuple[str, ...] = ()
    blamed: bool = False
    cause: Cause = ""
    error: SourceError | None = None
    permanent: bool = False  # trying again cannot help until a file changes

    @property
    def is_clean(self) -> bool:
        """True for exit code 0, and for an exit that the engine had asked for."""
        return self.exit_code == 0 or self.cause in ("stop", "reload")

    @property
    def source_error(self) -> dict[str, Any] | None:
        """`error` as plain data: file, line, text."""
        error = self.error
        return {"file": error.file, "line": error.line, "text": error.text} if error else None


def exit_words(exit_code: int | None, signal_number: int | None, cause: Cause = "") -> str:
    """Say how a process ended: `exited with code 3`, `killed by SIGKILL (out of memory?)`."""
    if signal_number is None:
        return f"exited with code {exit_code}"
    words = f"killed by {signal_name(signal_number)}"
    # The engine did not send it: on Linux the usual sender of an unexpected SIGKILL is the kernel's OOM killer.
    return f"{words} (out of memory?)" if signal_number == signal.SIGKILL and not cause else words


def signal_name(number: int) -> str:
    """Return `SIGSEGV` for 11, `signal 99` for a number without a name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


_FRAME = re.compile(r'^\s*File "(?P<file>[^"]+)", line (?P<line>\d+)')
# `ValueError: text`, `a.b.CustomError: text`, a bare `KeyboardInterrupt`; frames and source lines are indented.
_ERROR = re.compile(r"^[A-Za-z_][\w.]*(?::\s.*|$)")
_MARKERS = re.compile(r"^[\s^~]*$")


def parse_traceback(lines: Sequence[str], root: Path) -> SourceError | None:
    """Return the innermost frame inside `root` of the last Python traceback, None if there is none.

    A traceback that never touches the project names its innermost frame.
    """
    frames: list[tuple[int, str, int]] = []
    text = ""
    for index, line in enumerate(lines):
        if line.startswith("Traceback (most recent call last)"):
            frames, text = [], ""
        elif match := _FRAME.match(line):
            frames.append((index, match["file"], int(match["line"])))
            text = ""
        elif frames and not text and _ERROR.match(line):
            text = line
    if not frames or not text:
        return None
    index, file, number = _innermost(frames, root)
    following = lines[index + 1] if index + 1 < len(lines) else ""
    is_source = following.startswith("    ") and not _FRAME.match(following) and not _MARKERS.match(following)
    return SourceError(file, number, text, following.strip() if is_source else "")


def _innermost(frames: list[tuple[int, str, int]], root: Path) -> tuple[int, str, int]:
    for index, file, number in reversed(frames):
        path = Path(file)
        if path.is_relative_to(root) and not {".venv", "site-packages"} & set(path.parts):
            return index, str(path.relative_to(root)), number
    return frames[-1]
