"""The things that get compared: two ends joined by a raw relay, or by the engine as a user starts it.

A setup is started anew for every round and stopped after it. The caller writes its figures into a named pipe,
so waiting for them costs nothing while the run lasts.
"""

from __future__ import annotations

import json
import os
import select
import shlex
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path

from benchmarks.harness import Load, Sample, placed
from benchmarks.native import STAND_INS, program

ROOT = Path(__file__).resolve().parent.parent
LAUNCHER = ROOT / "iii" / "worker" / "launch.py"
ENDS = ROOT / "benchmarks" / "ends"
PYTHON_FLOOR = (sys.executable, str(STAND_INS["relay"]))
# The longest a round may take before it counts as hung.
PATIENCE = 120.0
# What the engine may take to stop its workers before it is killed.
STOP_PATIENCE = 15.0


@dataclass(frozen=True)
class Relay:
    """A minimal caller and a callee joined by a program that copies bytes. The callee may be a script of ours."""

    command: Sequence[str] = PYTHON_FLOOR
    callee: str | None = None
    program: Callable[[str], Sequence[str]] = program

    def run(self, load: Load) -> Sample:
        """Start it, let the caller finish, return its figures."""
        with tempfile.TemporaryDirectory(prefix="iii-bench-") as folder, placed(load.placement) as cpu:
            report = Path(folder, "report")
            os.mkfifo(report)
            script = (sys.executable, str(LAUNCHER), str(ENDS / self.callee)) if self.callee else None
            caller = [*self.program("caller"), *caller_arguments(report, load, cpu)]
            ends = [*caller, "--", *(script or (*self.program("callee"), str(cpu)))]
            environment = {**os.environ, "III_URL": "stdio:", "III_CONFIG": json.dumps({"cpu": cpu})}
            process = subprocess.Popen([*self.command, *ends], env=environment)
            try:
                return await_report(report, process)
            finally:
                process.wait(timeout=STOP_PATIENCE)


@dataclass(frozen=True)
class Engine:
    """The engine with two workers. An end is minimal, or a script of ours named here (see `ends/`).

    `beside` names other workers and what they run; the caller starts when they are ready.
    """

    callee: str | None = None
    caller: str | None = None
    beside: Mapping[str, str] = field(default_factory=dict)

    def run(self, load: Load) -> Sample:
        """Start `iii start` in a new project, let the caller finish, return its figures."""
        with tempfile.TemporaryDirectory(prefix="iii-bench-") as folder, placed(load.placement) as cpu:
            report = Path(folder, "report")
            os.mkfifo(report)
            Path(folder, "iii.toml").write_text(self.project(report, load, cpu), encoding="utf-8")
            with engine(Path(folder), "start") as process:
                return await_report(report, process)

    def project(self, report: Path, load: Load, cpu: int) -> str:
        settings = {"report": str(report), "window": load.window, "calls": load.calls, "cpu": cpu}
        callee = worker_table("callee", self.callee, [*program("callee"), str(cpu)], {"cpu": cpu})
        command = [*program("caller"), *caller_arguments(report, load, cpu)]
        caller = worker_table("caller", self.caller, command, settings)
        others = "".join(worker_table(name, None, shlex.split(run), {}) for name, run in self.beside.items())
        if others:
            caller = caller.replace("\n", f"\nafter = {json.dumps(list(self.beside))}\n", 1)
        return f'[engine]\nlisten = "off"\n{callee}{others}{caller}'


def worker_table(name: str, script: str | None, command: Sequence[str], config: Mapping[str, object]) -> str:
    """Return the `[workers.NAME]` table of an end that runs once and is never reloaded."""
    run = str(ENDS / script) if script else shlex.join(command)
    lines = [f"[workers.{name}]", f"run = {json.dumps(run)}", "watch = false", 'restart = "never"']
    if script:
        lines += [
            f"[workers.{name}.config]",
            *(f"{key} = {json.dumps(value)}" for key, value in config.items()),
        ]
    return "\n".join(lines) + "\n"


def caller_arguments(report: Path, load: Load, cpu: int) -> list[str]:
    """Return what the minimal caller is told."""
    return [str(report), *(str(number) for number in (load.window, load.calls, load.size, cpu))]


@contextmanager
def engine(folder: Path, *arguments: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run the CLI in a project folder with its output in `engine.log`; stop it at the end."""
    log = folder / "engine.log"
    environment = {key: value for key, value in os.environ.items() if not key.startswith("III_")}
    environment["PYTHONPATH"] = str(ROOT)
    with log.open("wb") as output:
        process = subprocess.Popen(
            [sys.executable, "-m", "cli.main", *arguments],
            cwd=folder,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=output,
        )
        try:
            yield process
        except BaseException:
            print(log.read_text(errors="replace")[-4000:], file=sys.stderr)
            raise
        finally:
            stop(process)


def stop(process: subprocess.Popen[bytes]) -> None:
    """Ask with SIGTERM, insist with SIGKILL."""
    process.terminate()
    try:
        process.wait(STOP_PATIENCE)
    except subprocess.TimeoutExpired:
        process.kill()
        process.wait()


def await_report(report: Path, process: subprocess.Popen[bytes]) -> Sample:
    """Read the caller's figures; fail when the process ends without them or takes too long."""
    pipe = os.open(report, os.O_RDONLY | os.O_NONBLOCK)
    exited = os.pidfd_open(process.pid)
    try:
        ready, _, _ = select.select([pipe, exited], [], [], PATIENCE)
        text = os.read(pipe, 65536) if ready else b""
        if not text:
            raise RuntimeError(f"no figures from the caller: {process.args!r} ended with {process.poll()}")
        figures = json.loads(text)
    finally:
        os.close(pipe)
        os.close(exited)
    return Sample(*(float(figures[key]) for key in ("p50_us", "p99_us", "calls_per_s", "relay_cpu_us")))
