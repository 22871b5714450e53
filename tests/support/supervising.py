"""What the tests of the supervisor share: hooks that record their calls, and workers that are shell or Python."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from iii.engine.config.spec import ProjectSpec, WorkerSpec
from iii.engine.supervision.process import Process
from iii.engine.supervision.reports import Report
from iii.engine.supervision.run import ExitReason, Run
from iii.engine.supervision.supervisor import Supervisor

RUN_ID = f"test-{os.getpid()}"
# Says that it is ready, then serves until its stdin ends; a line "crash" ends it with code 3.
READY = "print('ready', flush=True)"
SERVE = f"import sys\n{READY}\nfor line in sys.stdin:\n    if line.strip() == 'crash': sys.exit(3)\n"


@dataclass
class RecordingHooks:
    """Hooks of a supervisor that read `ready` lines, close stdin on stop, and keep a history of the calls."""

    history: list[str] = field(default_factory=list)
    reports: list[Report] = field(default_factory=list)
    reasons: dict[str, ExitReason] = field(default_factory=dict)
    refused: dict[str, Mapping[str, Any]] = field(default_factory=dict)
    calls: dict[Run, int] = field(default_factory=dict)
    processes: dict[Run, Process] = field(default_factory=dict)
    pids: list[int] = field(default_factory=list)
    supervisor: Supervisor | None = None
    changed: asyncio.Event = field(default_factory=asyncio.Event)

    def _note(self, text: str) -> None:
        self.history.append(text)
        self.changed.set()

    async def until(self, text: str, count: int = 1) -> None:
        """Wait until the history holds `text`, `count` times."""
        while self.history.count(text) < count:
            self.changed.clear()
            await asyncio.wait_for(self.changed.wait(), 20)

    async def report(self, kind: type, count: int = 1) -> Any:
        """Wait for a report of this kind; return the last of them."""
        while len(found := [report for report in self.reports if isinstance(report, kind)]) < count:
            self.changed.clear()
            await asyncio.wait_for(self.changed.wait(), 20)
        return found[count - 1]

    def on_report(self, report: Report) -> None:
        self.reports.append(report)
        self.changed.set()

    def write(self, run: Run, text: str) -> None:
        os.write(self.processes[run].stdin_fd, text.encode())

    # SupervisorHooks

    def opened(self, run: Run, spec: WorkerSpec, process: Process) -> None:
        self._note(f"opened {run}")
        self.processes[run] = process
        self.pids.append(process.pid)
        asyncio.get_running_loop().add_reader(process.stdout_fd, self._read, run, process.stdout_fd)

    def _read(self, run: Run, fd: int) -> None:
        data = os.read(fd, 65536)
        if not data:
            asyncio.get_running_loop().remove_reader(fd)
        if b"ready" in data and self.supervisor is not None:
            self.supervisor.on_ready(run, [])

    def promote(self, run: Run) -> None:
        self._note(f"promote {run}")

    def retire(self, run: Run) -> None:
        self._note(f"retire {run}")

    def send_stop(self, run: Run, deadline: float) -> None:
        self._note(f"stop {run}")
        os.close(self.processes[run].stdin_fd)
        self.processes[run].stdin_fd = -1

    def closed(self, run: Run, reason: ExitReason) -> None:
        process = self.processes.pop(run)
        asyncio.get_running_loop().remove_reader(process.stdout_fd)
        os.close(process.stdout_fd)
        if process.stdin_fd >= 0:
            os.close(process.stdin_fd)
        self.reasons[str(run)] = reason
        self._note(f"closed {run}")

    def expect(self, worker: str) -> None:
        self._note(f"expect {worker}")

    def unavailable(self, worker: str, reason: Mapping[str, Any]) -> None:
        self.refused[worker] = reason
        self._note(f"unavailable {worker}")

    def busy(self, run: Run) -> int:
        return self.calls.get(run, 0)

    owed = busy


def worker(name: str, code: str, cwd: Path, **more: Any) -> WorkerSpec:
    """A worker that runs a Python text, without the SDK."""
    more.setdefault("stop_timeout", 1.0)
    return WorkerSpec(name=name, cwd=cwd, command=(sys.executable, "-S", "-c", code), **more)


def environment(spec: WorkerSpec, run: Run) -> dict[str, str]:
    """The marks by which a process is known, and a path."""
    return {
        "PATH": os.environ["PATH"],
        "III_RUN_ID": RUN_ID,
        "III_WORKER_NAME": run.worker,
        "III_INSTANCE": str(run.instance),
        "III_GENERATION": str(run.generation),
    }


def supervise(root: Path, *workers: WorkerSpec) -> tuple[Supervisor, RecordingHooks]:
    """Return a supervisor of these workers, and its hooks."""
    project = ProjectSpec(root=root, name="test", file=root / "iii.toml", workers={w.name: w for w in workers})
    hooks = RecordingHooks()
    hooks.supervisor = Supervisor(
        project,
        hooks=hooks,
        environment=environment,
        reporter=hooks.on_report,
        redact=str,
        on_files=lambda worker, files, digests: None,
    )
    return hooks.supervisor, hooks
