"""The identity of a worker's process and how it ended, as values. Pure.

`Run` names one process of one worker. Everything that concerns a process carries it, so that a late event of an old
generation can be told from one of the present generation. `ExitReason` says how the process ended, in words and with
the line of the worker's own code that is wrong, which `stack_traces` finds in its stderr.
"""

from __future__ import annotations

import signal
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


class Frame(Struct, frozen=True):
    """One line of code that was running: where it is, the function it is in, the line itself if it is known."""

    file: str
    line: int
    function: str = ""
    source: str = ""


class SourceError(Struct, frozen=True):
    """An error in a worker's own code: its text, and the innermost line of the project in its traceback.

    `frames` are all lines of the project that were running, the innermost last; `causes` are the errors before it, each
    with its place.
    """

    file: str
    line: int
    text: str  # "SyntaxError: expected ':'"
    source: str = ""  # the line itself, if the traceback shows it
    frames: tuple[Frame, ...] = ()
    causes: tuple[str, ...] = ()

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
        """`error` as plain data: file, line, text, and the source of that line, "" if it is not known."""
        error = self.error
        if error is None:
            return None
        return {"file": error.file, "line": error.line, "text": error.text, "source": error.source}


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
