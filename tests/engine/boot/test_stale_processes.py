"""What an earlier run left is killed, nothing else is."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import stat
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from iii.engine import run_tag
from iii.engine.boot.stale_processes import kill_stale_processes, left_behind, read_runs, record_of
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


@contextlib.contextmanager
def ended(*processes: subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        yield
    finally:
        for process in processes:
            process.kill()
            process.wait()


@contextlib.contextmanager
def run_of(run_id: str) -> Iterator[None]:
    """This process spawns as the engine of a run does."""
    before = run_tag.tag_of(0)
    run_tag.wear(run_tag.tag_run(run_id))
    try:
        yield
    finally:
        run_tag.wear(before or resource.RLIM_INFINITY)


def daemon(run_id: str, *, keep: bool = False) -> subprocess.Popen[bytes]:
    """A process of a run with a session and an environment of its own."""
    with run_of(run_id), run_tag.tagged_spawn(keep=keep):
        process = subprocess.Popen(SLEEP, stdout=subprocess.PIPE, env={}, start_new_session=True)
    assert process.stdout is not None
    process.stdout.readline()
    process.stdout.close()
    return process


def test_a_sweep_kills_what_carries_an_old_id_and_spares_the_rest(tmp_path: Path) -> None:
    file, old, new = tmp_path / "runs", record_of("0a" * 16, tmp_path), record_of("0b" * 16, tmp_path)
    assert kill_stale_processes(file, old) == ()
    left = sleeper(III_RUN_ID=old.run_id)
    kept = sleeper(III_RUN_ID=old.run_id, III_KEEP_CHILDREN="1")
    stranger = sleeper(III_RUN_ID=f"{old.run_id}-not")
    with ended(left, kept, stranger):
        assert kill_stale_processes(file, new) == (left.pid,)
        assert left.wait() == -9
        assert kept.poll() is None
        assert stranger.poll() is None
    assert read_runs(file) == [old, new]
    assert stat.S_IMODE(file.stat().st_mode) == 0o600


def test_a_sweep_finds_daemons_with_an_environment_of_their_own(tmp_path: Path) -> None:
    file, old = tmp_path / "runs", record_of("1a" * 16, tmp_path)
    kill_stale_processes(file, old)
    left, kept, stranger = daemon(old.run_id), daemon(old.run_id, keep=True), daemon("1b" * 16)
    with ended(left, kept, stranger):
        assert kill_stale_processes(file, record_of("1c" * 16, tmp_path)) == (left.pid,)
        assert (kept.poll(), stranger.poll()) == (None, None)


@pytest.mark.parametrize("other", ["folder", "boot", "text"])
def test_records_of_another_folder_or_boot_name_no_processes(tmp_path: Path, other: str) -> None:
    # As after `cp -r` of a running project: the copy's file names the runs of the original.
    file, old = tmp_path / "runs", record_of("2a" * 16, tmp_path)
    all_changes: dict[str, dict[str, Any]] = {"folder": {"folder": (0, 1)}, "boot": {"boot_id": "x"}, "text": {}}
    changes = all_changes[other]
    record = msgspec.json.encode(msgspec.structs.replace(old, **changes)).decode()
    file.write_text(old.run_id if other == "text" else f"{record}\n")
    left = daemon(old.run_id)
    with ended(left):
        assert kill_stale_processes(file, record_of("2b" * 16, tmp_path)) == ()
        assert left.poll() is None


def test_a_run_whose_engine_lives_is_left_alone() -> None:
    run_id = "3a" * 16
    engine = Entry(2, 1, 2, 0, is_alive=True, tag=run_tag.tag_run(run_id))
    worker = Entry(3, 2, 3, 0, is_alive=True, tag=run_tag.tag_run(run_id) | 2)
    assert left_behind([engine, worker], [run_id]) == []
    assert left_behind([worker], [run_id]) == [worker]


def test_only_the_last_runs_are_remembered(tmp_path: Path) -> None:
    runs = [record_of(f"{number:032x}", tmp_path) for number in range(25)]
    for run in runs:
        kill_stale_processes(tmp_path / "runs", run, lambda: [])
    assert read_runs(tmp_path / "runs") == runs[5:]


def test_a_start_without_a_free_descriptor_looks_again(tmp_path: Path) -> None:
    old = record_of("6a" * 16, tmp_path)
    kill_stale_processes(tmp_path / "runs", old, lambda: [])
    readings = 0

    def read() -> list[Entry]:
        nonlocal readings
        readings += 1
        if readings < 3:
            raise OSError(errno.EMFILE, "Too many open files")
        return []

    assert kill_stale_processes(tmp_path / "runs", record_of("6b" * 16, tmp_path), read) == ()
    assert readings == 3


def test_a_pid_that_has_a_new_owner_is_not_killed(tmp_path: Path) -> None:
    old = record_of("4a" * 16, tmp_path)
    kill_stale_processes(tmp_path / "runs", old, lambda: [])
    stranger = sleeper()
    with ended(stranger):
        mark = f"III_RUN_ID={old.run_id}".encode()
        seen = Entry(stranger.pid, 1, 1, start_time=1, is_alive=True, marks=frozenset({mark}))
        readings = [[seen], []]
        kill_stale_processes(tmp_path / "runs", record_of("4b" * 16, tmp_path), lambda: readings.pop(0))
        assert stranger.poll() is None


def test_every_spawn_of_a_run_has_a_tag_of_its_own() -> None:
    with run_of("5a" * 16):
        with run_tag.tagged_spawn(keep=False) as first:
            assert run_tag.tag_of(os.getpid()) == first
        with run_tag.tagged_spawn(keep=True) as second:
            pass
        assert run_tag.tag_of(0) == run_tag.tag_run("5a" * 16)
    assert first != second
    assert run_tag.run_of_tag(first) == run_tag.run_of_tag(second)
    assert (run_tag.is_kept(first), run_tag.is_kept(second)) == (False, True)
    with run_tag.tagged_spawn(keep=True) as none:  # outside of a run
        assert none == 0


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


def test_only_group_tag_and_marks_make_a_process_belong() -> None:
    marks = marks_of({"III_RUN_ID": "r", "III_WORKER_NAME": "a", "PATH": "x"}.items())
    member = Entry(11, 1, 10, 0, is_alive=True)
    daemon = Entry(12, 1, 12, 0, is_alive=True, marks=marks | {b"III_MORE=1"})
    other = Entry(13, 1, 13, 0, is_alive=True, marks=frozenset({b"III_RUN_ID=r"}))
    dead = Entry(14, 1, 10, 0, is_alive=False)
    leader = Entry(10, 1, 10, 0, is_alive=True, marks=marks)
    everybody = [member, daemon, other, dead, leader]
    tagged = Entry(15, 1, 15, 0, is_alive=True, tag=7)
    everybody.append(tagged)
    assert belonging(everybody, 10, 0, marks) == [member, daemon]
    assert belonging(everybody, 10, 0, frozenset()) == [member]
    assert belonging(everybody, 10, 7, marks) == [member, daemon, tagged]


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
