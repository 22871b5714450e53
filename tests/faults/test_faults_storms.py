"""The long proofs of processes and files: kills at any moment, and saves in place that never end.

`pytest -m slow tests/faults/test_faults_storms.py`; STORM_SECONDS and KILL_ROUNDS set how long.
"""

from __future__ import annotations

import contextlib
import os
import random
import signal
import subprocess
import sys
import threading
import time
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from iii.engine import run_tag
from iii.engine.boot.stale_processes import of_runs, read_runs, record_of
from iii.engine.supervision import procfs
from tests.support.command import environment
from tests.support.dev_project import Project
from tests.support.ground import eventually

STORM_SECONDS = float(os.environ.get("STORM_SECONDS", "60"))
KILL_ROUNDS = int(os.environ.get("KILL_ROUNDS", "500"))
WORKERS = 8
KINDS = os.environ.get("KINDS", "guard/engine/both/both, engine first").split("/")
SAVE_GAP = 0.03  # seconds: between the moments in which a file is emptied and filled, and between saves

LIBRARY = "VALUE = {version}\n" + "# so that half of it is less than all\n" * 200 + "LAST = VALUE\n"
WORKER = """
import library_{name}
from iii import register_worker
worker = register_worker()
def whole(payload):
    return [library_{name}.VALUE, library_{name}.LAST]
worker.register_function("{name}::whole", whole)
"""


class Storm:
    """Eight workers, each with a library that is saved in place again and again while they are called."""

    def __init__(self, folder: Path) -> None:
        self.names = [f"w{number}" for number in range(WORKERS)]
        self.folder = folder
        self.right = 0
        self.wrong: list[object] = []
        self.version = 0
        tables = "".join(f"[workers.{name}]\nrun = '{name}.py'\n" for name in self.names)
        (folder / "iii.toml").write_text(f"[engine]\nlisten = 'off'\n{tables}")
        for name in self.names:
            (folder / f"library_{name}.py").write_text(LIBRARY.format(version=0))
            (folder / f"{name}.py").write_text(WORKER.format(name=name))
        self._ends_at = 0.0

    def save(self) -> None:
        """Save every library in place, in two writes, all at once; then rest, now and then long enough for a reload."""
        while time.monotonic() < self._ends_at:
            self.version += 1
            text = LIBRARY.format(version=self.version)
            with contextlib.ExitStack() as stack:
                files = [
                    stack.enter_context((self.folder / f"library_{name}.py").open("w", buffering=1))
                    for name in self.names
                ]
                time.sleep(SAVE_GAP)  # the storm itself
                for file in files:
                    file.write(text[: len(text) // 2] + "\n")
                time.sleep(SAVE_GAP)
                for file in files:
                    file.seek(0)
                    file.write(text)
            time.sleep(SAVE_GAP if self.version % 12 else random.choice([0.3, 0.5, 0.8]))

    def call(self, project: Project) -> None:
        """Call every worker all the time."""
        with contextlib.closing(project.caller()) as caller:
            while time.monotonic() < self._ends_at:
                for name in self.names:
                    answer = caller.call(f"{name}::whole")
                    result = answer.get("result")
                    if isinstance(result, list) and result[0] == result[1]:
                        self.right += 1
                    else:
                        self.wrong.append(answer)
                time.sleep(0.005)  # the workers need the processor as well

    def rage(self, project: Project) -> None:
        """Save and call for STORM_SECONDS."""
        self._ends_at = time.monotonic() + STORM_SECONDS
        threads = [threading.Thread(target=self.save), threading.Thread(target=self.call, args=(project,))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


@pytest.mark.slow
@pytest.mark.timeout(STORM_SECONDS + 120)
def test_no_call_fails_or_meets_half_a_module_in_a_storm_of_saves_in_place(tmp_path: Path) -> None:
    storm = Storm(tmp_path)
    project = Project(tmp_path)
    try:
        project.hear("ready in")
        storm.rage(project)
        with contextlib.closing(project.caller()) as caller:
            for name in storm.names:
                eventually(lambda name=name: caller.result(f"{name}::whole") == [storm.version] * 2, bound=60)
    finally:
        project.stop()
    reloads = sum("changed: reloaded" in line for line in project.lines)
    print(f"{storm.right} calls right, {len(storm.wrong)} wrong, {reloads} reloads, {storm.version} saves of each file")
    assert not storm.wrong, storm.wrong[:3]
    assert storm.right > 100
    assert reloads


# A child that is deaf to SIGTERM, and a daemon with a session, an environment and no open file of its own.
LEAVER = """
import os, signal, subprocess, sys, time
from iii import register_worker
bare = (
    "import os, signal, time\\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\\n"
    "os.setsid()\\nif os.fork(): os._exit(0)\\nos.closerange(0, 3)\\ntime.sleep(3600)"
)
subprocess.Popen([sys.executable, "-S", "-c", bare], env={"PATH": os.environ["PATH"]})
deaf = "import signal, time; signal.signal(15, signal.SIG_IGN); time.sleep(3600)"
subprocess.Popen([sys.executable, "-S", "-c", deaf])
worker = register_worker()
worker.register_function("a::pid", lambda payload: os.getpid())
"""


@contextlib.contextmanager
def started(folder: Path) -> Iterator[subprocess.Popen[bytes]]:
    with (folder / "out").open("ab") as out:
        process = subprocess.Popen(
            [sys.executable, "-m", "cli.main", "dev"], cwd=folder, env=environment(), stdout=out, stderr=out
        )
    try:
        yield process
    finally:
        process.wait(60)


def engine_of(folder: Path) -> int:
    with contextlib.suppress(OSError, ValueError):
        return int((folder / ".iii/run/lock").read_text())
    return 0


def processes_of(folder: Path) -> list[int]:
    """Every living process of a project's runs, without its engine."""
    here = record_of("00", folder).folder  # a start that is killed early has not yet dropped what was copied there
    run_ids = [run.run_id for run in read_runs(folder / ".iii/run/runs") if run.folder == here]
    engine = engine_of(folder)
    return [entry.pid for entry in of_runs(procfs.entries(), run_ids) if entry.pid != engine]


@pytest.mark.slow
@pytest.mark.timeout(KILL_ROUNDS * 20 + 120)
def test_after_any_kill_and_the_next_start_nothing_of_the_run_is_left_and_nothing_of_others_is_touched(
    tmp_path: Path,
) -> None:
    seed = int.from_bytes(os.urandom(4))
    print(f"seed {seed}")
    chance = random.Random(seed)
    for name in ("own", "other"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "iii.toml").write_text("[engine]\nlisten = 'off'\n[workers.a]\nrun = 'a.py'\n")
        (tmp_path / name / "a.py").write_text(LEAVER)
    own, other = tmp_path / "own", tmp_path / "other"
    stranger = Project(other)
    kinds: Counter[str] = Counter()
    swept = 0
    try:
        stranger.hear("ready in")
        eventually(lambda: len(processes_of(other)) == 3)
        untouched = {psutil.Process(pid) for pid in processes_of(other)}
        for number in range(KILL_ROUNDS):
            print(number, end=" ", flush=True)
            if (
                number % 25 == 1 and (own / ".iii/run").exists()
            ):  # as after `cp -r`: records that name runs of the other
                with (own / ".iii/run/runs").open("ab") as records:
                    records.write((other / ".iii/run/runs").read_bytes())
            kind = chance.choice(KINDS)
            kinds[kind] += 1
            before, left = engine_of(own), set(processes_of(own))
            with started(own) as guard:
                eventually(lambda before=before: engine_of(own) not in (0, before), bound=60)
                time.sleep(chance.choice([0.0, 0.05, 0.1, 0.2, 0.4]))  # at any moment of a start
                engine = engine_of(own)
                doomed = {"guard": [guard.pid], "engine": [engine], "both": [guard.pid, engine]}.get(
                    kind, [engine, guard.pid]
                )
                for pid in doomed:
                    with contextlib.suppress(ProcessLookupError):
                        os.kill(pid, signal.SIGKILL)
                if kind == "engine":
                    eventually(lambda engine=engine: engine_of(own) not in (0, engine), bound=60)
                    guard.send_signal(signal.SIGINT)
            if kind == "guard":
                # The engine does the work of the guard; the next start must wait for its end.
                eventually(lambda engine=engine: not psutil.pid_exists(engine), bound=60)
                assert processes_of(own) == [], kind
            if kind == "engine" and not left:  # else this start, which was killed, had to end what the last one left
                assert [*map(_facts_of, processes_of(own))] == []
            swept += len(processes_of(own))
        last = Project(own)
        last.hear("ready in")
        eventually(lambda: len(processes_of(own)) == 3)  # those of this start alone
        last.stop()
        eventually(lambda: processes_of(own) == [])
        assert {psutil.Process(pid) for pid in processes_of(other)} == untouched, stranger.lines
    finally:
        stranger.stop()
    left = [process.pid for process in psutil.process_iter() if _folder_of(process).startswith(str(tmp_path))]
    print(f"{dict(kinds)}: {swept} processes were left for a next start to end, {len(left)} at the end")
    assert left == []


def _facts_of(pid: int) -> str:
    with contextlib.suppress(psutil.Error):
        process = psutil.Process(pid)
        return f"{pid} of {process.ppid()}, {process.status()}, tag {run_tag.tag_of(pid):x}: {process.cmdline()[:5]}"
    return ""


def _folder_of(process: psutil.Process) -> str:
    with contextlib.suppress(psutil.Error):
        return process.cwd()
    return ""
