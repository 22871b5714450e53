"""Kills what an earlier run of the engine left behind.

Every run writes its id into `.iii/run/runs`; every process of it carries the id in III_RUN_ID. At the next
start (the lock of the project is held, so no engine of it runs) whoever still carries an id of that file is
killed. Pid and start time are looked at again right before the kill: a pid may have a new owner by then.
Called once by the root.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from iii.engine.supervision import procfs
from iii.engine.supervision.process import kill_pids
from iii.engine.supervision.procfs import Entry

KEPT = 20  # ids of past runs; more are never left, and the file stays small
PATIENCE = 2.0  # seconds until the killed must be gone
PAUSE = 0.01


def sweep(file: Path, run_id: str, read: Callable[[], list[Entry]] = procfs.entries) -> tuple[int, ...]:
    """Kill the processes of the runs recorded in `file`, record `run_id`; return the pids that were killed.

    Takes milliseconds, up to PATIENCE if a process is slow to go: not for the event loop. Raises OSError if
    the file cannot be written.
    """
    past = read_runs(file)
    killed = kill_runs(past, read)
    _write_runs(file, [*past, run_id][-KEPT:])
    return killed


def read_runs(file: Path) -> list[str]:
    """Return the recorded ids; none if there is no file."""
    try:
        return file.read_text("utf-8", "replace").split()
    except OSError:
        return []


def kill_runs(run_ids: list[str], read: Callable[[], list[Entry]] = procfs.entries) -> tuple[int, ...]:
    """Kill every process that carries one of these ids, ourselves and our parents left out."""
    marks = frozenset(f"III_RUN_ID={run_id}".encode() for run_id in run_ids)
    spared = _ancestors()
    killed: dict[int, None] = {}
    deadline = time.monotonic() + PATIENCE
    while marks and time.monotonic() < deadline:
        doomed = [entry for entry in read() if _is_left(entry, marks) and entry.pid not in spared]
        if not doomed:
            break
        for entry in doomed:
            _kill(entry)
            killed[entry.pid] = None
        time.sleep(PAUSE)  # nothing runs yet that would have to wait, and no event tells of a death
    return tuple(killed)


def _is_left(entry: Entry, marks: frozenset[bytes]) -> bool:
    return not marks.isdisjoint(entry.marks) and f"{procfs.KEEP}=1".encode() not in entry.marks


def _kill(entry: Entry) -> None:
    now = procfs.read_entry(entry.pid)
    if now is not None and now.start_time == entry.start_time:
        kill_pids([entry.pid])


def _ancestors() -> set[int]:
    found = set()
    entry = procfs.read_entry(os.getpid())
    while entry is not None and entry.pid not in found:
        found.add(entry.pid)
        entry = procfs.read_entry(entry.parent)
    return found


def _write_runs(file: Path, run_ids: list[str]) -> None:
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    draft = file.with_name(f"{file.name}.{os.getpid()}")
    fd = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_TRUNC | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with os.fdopen(fd, "w") as writer:
        writer.write("\n".join(run_ids) + "\n")
    os.replace(draft, file)
