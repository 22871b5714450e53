"""What the supervisor needs of the rest of the engine, and what it hands on to its instances and generations.

The supervisor owns the processes of workers; the engine owns their connections and routes. The supervisor acts on these
through `SupervisorHooks`. All hooks are called on the event loop's thread, and none of them waits.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Protocol

from msgspec import Struct, field

from iii.engine.config.spec import WorkerSpec
from iii.engine.supervision.orphans import OrphanCleanup
from iii.engine.supervision.process import Command, Process, SpawnError, spawn
from iii.engine.supervision.reports import Reporter
from iii.engine.supervision.run import ExitReason, Run
from iii.engine.supervision.start_limiter import StartLimiter

Environment = Callable[[WorkerSpec, Run], Mapping[str, str]]  # the whole environment of a process
Spawn = Callable[[Command], Process | SpawnError]


class SupervisorHooks(Protocol):
    """What the supervisor asks of the engine's connections and routes."""

    def opened(self, run: Run, spec: WorkerSpec, process: Process) -> None:
        """A process runs. From now on the engine owns its stdin_fd and stdout_fd, and closes them."""

    def promote(self, run: Run) -> None:
        """Route to this generation from now on, in one step."""

    def retire(self, run: Run) -> None:
        """Route nothing new to this generation; call `Supervisor.on_drained(run)` when it has finished its calls."""

    def send_stop(self, run: Run, deadline: float) -> None:
        """Send the protocol's `stop` (the process has `deadline` seconds); close stdin if it waits for no message."""

    def closed(self, run: Run, reason: ExitReason) -> None:
        """The process is gone and its group is empty: read what is left in its stdout, settle its calls, close both
        descriptors.
        """

    def expect(self, worker: str) -> None:
        """No generation of this worker serves, but one will soon: park calls to its functions."""

    def unavailable(self, worker: str, reason: Mapping[str, Any]) -> None:
        """No generation of this worker will serve soon: refuse calls to its functions.

        Keys of `reason`: state, words, stderr (lines), file and line if they are known.
        """

    def busy(self, run: Run) -> int:
        """Return how many calls are in flight on this process."""

    def owed(self, run: Run) -> int:
        """Return how many calls the process must finish before it is asked to stop: those with a waiting caller."""


class SupervisionContext(Struct, frozen=True):
    """What all generations of one supervisor share: how they are started, reported and cleaned up after."""

    root: Path  # of the project
    hooks: SupervisorHooks
    environment: Environment
    report: Reporter
    redact: Callable[[str], str]  # what a worker wrote -> the same without secrets
    spawn: Spawn = spawn
    start_limiter: StartLimiter = field(default_factory=StartLimiter)
    orphans: OrphanCleanup = field(default_factory=OrphanCleanup)
