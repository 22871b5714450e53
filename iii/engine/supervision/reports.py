"""What the supervisor reports about workers, as frozen values: screen, log files and console all show this one stream.

The supervisor gets a `Reporter` and calls it with every `Report`. Durations are seconds, times are seconds since the
epoch. The names of classes and fields are public: `iii dev --json` prints them. Pure.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Literal

from msgspec import Struct

from iii.engine.supervision.run import ExitReason, Run, SourceError

Stream = Literal["stderr", "stdout", "engine"]


class Report(Struct, frozen=True):
    """Anything that the supervisor reports."""


class LogLine(Report, frozen=True):
    """One line that a worker wrote, without newline. `is_partial`: its beginning only; the whole line follows.

    A line of the engine about the worker has a `level`, and may have further lines below it (`details`). `causes` are
    those of the calls that may have written it, as text (`iii/engine/routing/causes.py`).
    """

    run: Run
    time: float
    text: str
    stream: Stream = "stderr"
    is_partial: bool = False
    level: str = ""
    details: tuple[str, ...] = ()
    causes: str = ""


class Became(Report, frozen=True):
    """An instance of a worker is ready for the first time."""

    run: Run
    seconds: float


class StartingSlowly(Report, frozen=True):
    """The start of the project takes `seconds` so far: these workers are not up yet."""

    seconds: float
    workers: tuple[str, ...]


class AllReady(Report, frozen=True):
    """The start of the project is over; `failed` names the workers that are not up."""

    seconds: float
    failed: tuple[str, ...] = ()


class Reloaded(Report, frozen=True):
    """A new generation serves. `finishing` calls are still running on the old one."""

    run: Run
    seconds: float
    files: tuple[str, ...] = ()
    finishing: int = 0


class ReloadFailed(Report, frozen=True):
    """The new generation did not become ready; the old one, ready since `since`, goes on serving."""

    run: Run
    reason: ExitReason
    since: float = 0.0


class Exited(Report, frozen=True):
    """A worker died and is started again in `delay` seconds: restart `count` of `limit` (0: no limit)."""

    run: Run
    reason: ExitReason
    delay: float
    count: int
    limit: int


class Failed(Report, frozen=True):
    """A worker died and stays down until a file changes or the user restarts it."""

    run: Run
    reason: ExitReason
    count: int = 0


class Finished(Report, frozen=True):
    """A worker ended by itself, and its restart policy does not start it again."""

    run: Run
    reason: ExitReason


class Holding(Report, frozen=True):
    """A stop or reload waits, at most `seconds` more: for `calls` in flight, or with 0 for the process to exit."""

    run: Run
    calls: int
    seconds: float


class LeftBehind(Report, frozen=True):
    """Processes of a dead worker that are still alive: kept on purpose, or impossible to kill."""

    run: Run
    pids: tuple[int, ...]
    on_purpose: bool


class AllStopped(Report, frozen=True):
    """Every worker has stopped; `workers` is how many were running before."""

    seconds: float
    workers: int


class Notice(Report, frozen=True):
    """A sentence about the engine or one worker: a warning, a paused reload, a missing file."""

    text: str
    worker: str = ""
    level: Literal["info", "warning", "error"] = "warning"
    details: tuple[str, ...] = ()


class CallFailed(Report, frozen=True):
    """A call failed that no caller waits for, or whose caller only passes on events: jobs, ticks, requests.

    `run` is the process that ran it, generation 0 if none did. `cause` is `void`, `job` or the trigger's type;
    `invoked_by` says more in words. `is_final`: it is not tried again although others of its kind are.
    """

    run: Run
    function_id: str
    cause: str
    invoked_by: str
    error: SourceError
    trace_id: str = ""
    is_final: bool = False


class Repeated(Report, frozen=True):
    """A report that was shown has come `count` times more within `seconds`; `is_others`: it, and others like it."""

    report: Report
    count: int
    seconds: float
    is_others: bool = False


Reporter = Callable[[Report], None]
