"""The first workers of a start, started before the engine that will serve them is loaded.

An interpreter needs as long to come up as the engine needs to be loaded; on two processors the two overlap. What such a
process writes waits in its pipes until the supervisor takes the process over, where it would have started one. No more
processes are started here than may start at a time, and only those that have nothing to wait for.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Callable, Iterable, Mapping

from iii.engine.config.spec import ProjectSpec, WorkerSpec
from iii.engine.supervision.process import Command, Process, SpawnError, command_of, missing_file, spawn
from iii.engine.supervision.run import Run
from iii.engine.supervision.start_order import AT_A_TIME, with_dependencies
from iii.errors import ProjectError


class Prestart:
    """Processes that wait for the supervisor, by the command they were started with."""

    def __init__(self) -> None:
        self._waiting: list[tuple[Command, Process]] = []

    def begin(
        self, project: ProjectSpec, names: Iterable[str], environment: Callable[[WorkerSpec, Run], Mapping[str, str]]
    ) -> None:
        """Start the first workers of a start of `names`. The supervisor tries again what cannot be started here."""
        wanted = with_dependencies(names, project.workers) or set(project.workers)
        specs = [spec for spec in project.workers.values() if spec.name in wanted and not spec.after]
        runs = [(spec, Run(spec.name, instance, 1)) for spec in specs for instance in range(spec.instances)]
        for spec, run in runs[:AT_A_TIME]:
            if spec.pre or missing_file(spec) is not None:
                continue  # keeps its place: the supervisor starts no other worker in its stead
            try:
                command = command_of(spec, environment(spec, run))
            except ProjectError:
                continue  # the same: the supervisor says why
            process = spawn(command)
            if isinstance(process, Process):
                self._waiting.append((command, process))

    def take(self, command: Command) -> Process | SpawnError:
        """Return the process that was started with this command, or start one."""
        for entry in self._waiting:
            if entry[0] == command:
                self._waiting.remove(entry)
                return entry[1]
        return spawn(command)

    def close(self) -> None:
        """Kill the processes that the supervisor has not taken."""
        for _, process in self._waiting:
            process.signal_group(signal.SIGKILL)
            process.reap()
            for fd in (process.stdin_fd, process.stdout_fd, process.stderr_fd):
                os.close(fd)
        self._waiting.clear()
