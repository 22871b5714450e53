"""What an earlier run left is killed, nothing else is."""

from __future__ import annotations

import os
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from iii.engine.boot.stale_processes import kill_stale_processes
from iii.engine.supervision import procfs
from iii.engine.supervision.orphans import belonging
from iii.engine.supervision.process import SpawnError
from iii.engine.supervision.procfs import Entry, marks_of, parse_stat
from iii.engine.supervision.run import Run, exit_words, signal_name

SLEEP = [sys.executable, "-S", "-c", "print(flush=True); import time; time.sleep(600)"]


def sleeper(**environment: str) -> subprocess.Popen[bytes]:
    """A process that carries this environment, once it does."""
    process = subprocess.Popen(SLEEP, stdout=subprocess.PIPE, env={**os.environ, **environment})
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    return process


def test_a_sweep_kills_what_carries_an_old_id_and_spares_the_rest(tmp_path: Path) -> None:
    file = tmp_path / "run/runs"
    assert kill_stale_processes(file, f"old-{os.getpid()}") == ()
    left = sleeper(III_RUN_ID=f"old-{os.getpid()}")
    kept = sleeper(III_RUN_ID=f"old-{os.getpid()}", III_KEEP_CHILDREN="1")
    stranger = sleeper(III_RUN_ID=f"old-{os.getpid()}-not")
    try:
        assert kill_stale_processes(file, "new") == (left.pid,)
        assert left.wait() == -9
        assert kept.poll() is None
        assert stranger.poll() is None
    finally:
        for process in (left, kept, stranger):
            process.kill()
            process.wait()
    assert file.read_text().split() == [f"old-{os.getpid()}", "new"]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_only_the_last_runs_are_remembered(tmp_path: Path) -> None:
    for number in range(25):
        kill_stale_processes(tmp_path / "runs", f"run-{number}", lambda: [])
    assert (tmp_path / "runs").read_text().split() == [f"run-{number}" for number in range(5, 25)]


def test_a_pid_that_has_a_new_owner_is_not_killed(tmp_path: Path) -> None:
    stranger = sleeper()
    try:
        (tmp_path / "runs").write_text("old\n")
        seen = Entry(stranger.pid, 1, 1, start_time=1, is_alive=True, marks=frozenset({b"III_RUN_ID=old"}))
        readings = [[seen], []]
        kill_stale_processes(tmp_path / "runs", "new", lambda: readings.pop(0))
        assert stranger.poll() is None
    finally:
        stranger.kill()
        stranger.wait()


def test_a_process_is_known_by_pid_start_time_and_marks() -> None:
    process = sleeper(III_RUN_ID="x", III_INSTANCE="0", OTHER="y")
    try:
        entry = next(entry for entry in procfs.entries() if entry.pid == process.pid)
        assert entry.parent == os.getpid()
        assert entry.marks >= {b"III_RUN_ID=x", b"III_INSTANCE=0"}
        assert not any(mark.startswith(b"OTHER") for mark in entry.marks)
        assert procfs.read_entry(process.pid) is not None
    finally:
        process.kill()
        process.wait()
    assert procfs.read_entry(process.pid) is None


def test_a_command_may_hold_parentheses_and_spaces() -> None:
    stat_line = b"7 (a) b (c) S 3 5 5 " + b"0 " * 15 + b"4242 0 0"
    assert parse_stat(7, stat_line) == Entry(7, 3, 5, start_time=4242, is_alive=True)
    assert not parse_stat(7, stat_line.replace(b" S ", b" Z ")).is_alive


def test_only_group_and_marks_make_a_process_belong() -> None:
    marks = marks_of({"III_RUN_ID": "r", "III_WORKER_NAME": "a", "PATH": "x"}.items())
    member = Entry(11, 1, 10, 0, is_alive=True)
    daemon = Entry(12, 1, 12, 0, is_alive=True, marks=marks | {b"III_MORE=1"})
    other = Entry(13, 1, 13, 0, is_alive=True, marks=frozenset({b"III_RUN_ID=r"}))
    dead = Entry(14, 1, 10, 0, is_alive=False)
    leader = Entry(10, 1, 10, 0, is_alive=True, marks=marks)
    everybody = [member, daemon, other, dead, leader]
    assert belonging(everybody, 10, marks) == [member, daemon]
    assert belonging(everybody, 10, frozenset()) == [member]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (exit_words(3, None), "exited with code 3"),
        (exit_words(None, 9), "killed by SIGKILL (out of memory?)"),
        (exit_words(None, 9, "stop"), "killed by SIGKILL"),
        (exit_words(None, 11), "killed by SIGSEGV"),
        (signal_name(99), "signal 99"),
        (str(Run("a", 0, 2)), "a#2"),
        (str(Run("a", 1, 2)), "a[1]#2"),
        (SpawnError(24, "a.py").words, "cannot start a.py: Too many open files (EMFILE)"),
    ],
)
def test_ends_are_said_in_words(words: str, said: str) -> None:
    assert words == said


def test_running_out_of_something_is_worth_another_try() -> None:
    assert not SpawnError(24, "a").permanent
    assert SpawnError(2, "a").permanent
