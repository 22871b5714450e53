"""The seam between the supervisor and the composition root.

The supervisor owns processes, the root owns connections and routes; each tells the other through these calls,
all on the event loop's thread, none of which waits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from msgspec import Struct, field

from iii.engine.config.spec import ProjectSpec, WorkerSpec
from iii.engine.supervision.orphans import OrphanCleanup
from iii.engine.supervision.process import Command, Process, SpawnError, spawn
from iii.engine.supervision.reports import Reporter
from iii.engine.supervision.run import ExitReason, Run
from iii.engine.supervision.start_limiter import Gate

Environment = Callable[[WorkerSpec, Run], Mapping[str, str]]
Spawn = Callable[[Command], Process | SpawnError]


class SupervisorHooks(Protocol):
    """What the supervisor asks of the root."""

    def opened(self, run: Run, spec: WorkerSpec, process: Process) -> None:
        """A process runs. Its stdin_fd and stdout_fd are the root's now, to use and to close."""

    def promote(self, run: Run) -> None:
        """Route to this generation from now on, in one step."""

    def retire(self, run: Run) -> None:
        """Route nothing new to it; call `Supervisor.on_drained(run)` when it owes nothing any more."""

    def send_stop(self, run: Run, deadline: float) -> None:
        """Send the protocol's `stop` (the process has `deadline` seconds), then close its stdin."""

    def closed(self, run: Run, reason: ExitReason) -> None:
        """The process is gone, its group is empty.
        Read what is left in its stdout, settle its calls, close both.
        """

    def expect(self, worker: str) -> None:
        """Nothing of this worker serves, but it will soon: park calls to its functions."""

    def unavailable(self, worker: str, reason: Mapping[str, Any]) -> None:
        """Nothing of it will serve soon: refuse calls. Keys:
        state, words, stderr (lines), file and line if known.
        """

    def busy(self, run: Run) -> int:
        """Return how many calls are in flight on it."""

    def owed(self, run: Run) -> int:
        """Return how many of these it must finish before it is asked to end: those that nobody has given up."""

    def redact(self, text: str) -> str:
        """Return what a worker wrote as it may be shown and kept: without secrets."""


class Ground(Struct, frozen=True):
    """What every generation of every worker stands on."""

    project: ProjectSpec
    hooks: SupervisorHooks
    environment: Environment
    report: Reporter
    gate: Gate = field(default_factory=Gate)
    census: OrphanCleanup = field(default_factory=OrphanCleanup)
    spawn: Spawn = spawn
