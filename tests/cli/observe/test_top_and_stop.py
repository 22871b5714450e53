"""`iii top` against a fake engine, and `iii stop` against locks that real processes hold or have held."""

from __future__ import annotations

import fcntl
import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.commands.engine import end
from iii.engine.boot.run_dir import RunDir, lock_holder
from tests.support.command import Iii
from tests.support.fake_engine import FakeEngine

BUSY = {"name": "busy", "state": "ready", "pid": 7, "metrics": {"cpu_percent": 80.0, "memory_rss": 2_000_000}}
IDLE = {"name": "idle", "state": "ready", "pid": 8, "metrics": {"cpu_percent": 0.5, "memory_rss": 1_000_000}}


def test_top_shows_the_busiest_first_and_the_sum(engine: FakeEngine, iii: Iii) -> None:
    engine.functions["engine::workers::list"] = lambda _: {"workers": [IDLE, BUSY]}
    done = iii("top")  # a pipe: once
    head, _, first, second = done.stdout.splitlines()
    assert head == "2 workers, 80.5% CPU, 3.0 MB memory"
    assert (first.split()[0], second.split()[0]) == ("busy", "idle")
    assert "\x1b" not in done.stdout


def test_top_as_json_is_one_object_a_line(engine: FakeEngine, iii: Iii) -> None:
    engine.functions["engine::workers::list"] = lambda _: {"workers": [BUSY]}
    assert json.loads(iii("top", "--json", "--once").stdout) == {"workers": [BUSY]}


@pytest.fixture
def stranger() -> Iterator[subprocess.Popen[bytes]]:
    """Run a process that is none of ours."""
    with subprocess.Popen([sys.executable, "-c", "input()"], stdin=subprocess.PIPE) as running:
        yield running
        running.kill()


def test_stop_without_an_engine_touches_nobody(folder: Path, iii: Iii, stranger: subprocess.Popen[bytes]) -> None:
    (folder / "iii.toml").touch()
    assert iii("stop").returncode == 3
    run = folder / ".iii" / "run"
    run.mkdir(parents=True)
    (run / "lock").write_text(str(stranger.pid))
    done = iii("stop")
    assert (done.returncode, done.stderr.startswith("error: no engine is running")) == (3, True)
    assert stranger.poll() is None


def test_the_holder_is_who_holds_the_lock_not_who_wrote_it(tmp_path: Path) -> None:
    assert lock_holder(tmp_path) is None
    claimed = RunDir(tmp_path / ".iii")
    claimed.claim()
    pid = lock_holder(tmp_path / ".iii")
    claimed.release()
    assert pid is not None
    assert lock_holder(tmp_path / ".iii") is None


def test_a_lock_without_a_pid_yet_names_nobody(tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    with (tmp_path / "run" / "lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        assert lock_holder(tmp_path) is None


def test_a_pid_that_means_another_process_by_now_is_spared(stranger: subprocess.Popen[bytes]) -> None:
    assert not end(stranger.pid, lambda: False)
    assert stranger.poll() is None
    stranger.kill()
    stranger.wait()
    assert not end(stranger.pid, lambda: True)
