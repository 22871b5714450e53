"""Who a process is and how it ended, as values.

`Run` names one process of one worker; everything that concerns a process carries it, so that a late event of
an old generation can be told from the present one. `ExitReason` says how it ended, in words. Pure; used by
the supervisor, the reports and the composition root.
"""

from __future__ import annotations

import signal
from typing import Literal

from msgspec import Struct

# Why the engine itself ended a process; "" when it ended on its own.
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

    `words` is one sentence for people; `stderr` its last lines; `blamed` is true when calls were running on
    it.
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
        """True for exit code 0, and for an end that the engine had asked for."""
        return self.exit_code == 0 or self.cause in ("stop", "reload")


def exit_words(exit_code: int | None, signal_number: int | None, cause: Cause = "") -> str:
    """Say how a process ended: `exited with code 3`, `killed by SIGKILL (out of memory?)`."""
    if signal_number is None:
        return f"exited with code {exit_code}"
    words = f"killed by {signal_name(signal_number)}"
    # Nobody of ours sent it: on Linux the usual sender of an unexpected SIGKILL is the kernel's OOM killer.
    return f"{words} (out of memory?)" if signal_number == signal.SIGKILL and not cause else words


def signal_name(number: int) -> str:
    """Return `SIGSEGV` for 11, `signal 99` for a number without a name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
