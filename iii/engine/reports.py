"""What the supervisor tells about workers, as frozen values: the one stream that screen, files and console
show.

Whoever wants to know gives the supervisor a callable that takes a `Report`. Durations are seconds, times are
seconds since the epoch. Pure.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Literal

from iii.engine.run import ExitReason, Run

Stream = Literal["stderr", "stdout", "engine"]


@dataclass(frozen=True, slots=True)
class LogLine:
    """One line that a worker wrote, without newline. `is_partial`: shown early, more of it may come."""

    run: Run
    time: float
    text: str
    stream: Stream = "stderr"
    is_partial: bool = False


@dataclass(frozen=True, slots=True)
class Became:
    """A worker's first generation of this start is ready."""

    run: Run
    seconds: float


@dataclass(frozen=True, slots=True)
class AllReady:
    """The start is over; `failed` names the workers that did not make it."""

    seconds: float
    failed: tuple[str, ...] = ()


@dataclass(frozen=True, slots=True)
class Reloaded:
    """A new generation serves. `finishing` calls go on in the old one."""

    run: Run
    seconds: float
    files: tuple[str, ...] = ()
    finishing: int = 0


@dataclass(frozen=True, slots=True)
class ReloadFailed:
    """The new generation did not become ready; the old one, ready since `since`, serves on."""

    run: Run
    reason: ExitReason
    since: float = 0.0


@dataclass(frozen=True, slots=True)
class Exited:
    """A worker died and comes back in `delay` seconds: restart `count` of `limit` (0: no limit)."""

    run: Run
    reason: ExitReason
    delay: float
    count: int
    limit: int


@dataclass(frozen=True, slots=True)
class Failed:
    """A worker died and stays down until a file changes or somebody restarts it."""

    run: Run
    reason: ExitReason
    count: int = 0


@dataclass(frozen=True, slots=True)
class Finished:
    """A worker ended on its own and is left at that."""

    run: Run
    reason: ExitReason


@dataclass(frozen=True, slots=True)
class Holding:
    """A stop or reload waits: for `calls` in flight, or with 0 for the process to go;
    at most `seconds` more.
    """

    run: Run
    calls: int
    seconds: float


@dataclass(frozen=True, slots=True)
class LeftBehind:
    """Processes of a dead worker that still live: kept on purpose, or impossible to kill."""

    run: Run
    pids: tuple[int, ...]
    on_purpose: bool


@dataclass(frozen=True, slots=True)
class AllStopped:
    """Nothing runs any more."""

    seconds: float
    workers: int


@dataclass(frozen=True, slots=True)
class Notice:
    """A sentence about the engine or one worker: a warning, a paused reload, a missing file."""

    text: str
    worker: str = ""
    level: Literal["info", "warning", "error"] = "warning"
    details: tuple[str, ...] = field(default=())


Report = (
    LogLine
    | Became
    | AllReady
    | Reloaded
    | ReloadFailed
    | Exited
    | Failed
    | Finished
    | Holding
    | LeftBehind
    | AllStopped
    | Notice
)
Reporter = Callable[[Report], None]
