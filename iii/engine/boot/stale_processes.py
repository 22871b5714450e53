"""Kills the processes that an earlier run of the engine left behind.

Every run writes its id into `.iii/run/runs`, and every process of the run carries the id in III_RUN_ID. The next start
holds the lock of the project, so no engine of the project runs, and every process that still carries an id of that file
is killed. Pid and start time are compared again right before the kill: the pid may belong to a new process by then.
"""

from __future__ import annotations

import os
import time
from collections.abc import Callable
from pathlib import Path

from iii.engine.boot.run_dir import write_private
from iii.engine.supervision import procfs
from iii.engine.supervision.process import kill_pids
from iii.engine.supervision.procfs import Entry

MAX_RUNS = 20  # ids of past runs; more are never left, and the file stays small
KILL_TIMEOUT = 2.0  # seconds until the killed processes must be gone
KILL_INTERVAL = 0.01  # seconds between two looks at them


def kill_stale_processes(file: Path, run_id: str, read: Callable[[], list[Entry]] = procfs.entries) -> tuple[int, ...]:
    """Kill the processes of the runs recorded in `file`, record `run_id`; return the pids that were killed.

    Takes milliseconds, up to KILL_TIMEOUT if a process is slow to go: not for the event loop. Raises OSError if the
    file cannot be written.
    """
    try:
        run_ids = file.read_text("utf-8", "replace").split()
    except OSError:
        run_ids = []
    killed = _kill_runs(run_ids, read)
    file.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    write_private(file, "\n".join([*run_ids, run_id][-MAX_RUNS:]) + "\n")
    return killed


def _kill_runs(run_ids: list[str], read: Callable[[], list[Entry]]) -> tuple[int, ...]:
    """Kill every process that carries one of these ids, except this one, its ancestors and what is kept on purpose."""
    marks = frozenset(f"III_RUN_ID={run_id}".encode() for run_id in run_ids)
    keep = f"{procfs.KEEP}=1".encode()
    spared = set()
    ancestor = procfs.read_entry(os.getpid())
    while ancestor is not None and ancestor.pid not in spared:
        spared.add(ancestor.pid)
        ancestor = procfs.read_entry(ancestor.parent)
    killed: dict[int, None] = {}  # an ordered set
    deadline = time.monotonic() + KILL_TIMEOUT
    while marks and time.monotonic() < deadline:
        doomed = [
            entry
            for entry in read()
            if not marks.isdisjoint(entry.marks) and keep not in entry.marks and entry.pid not in spared
        ]
        if not doomed:
            break
        for entry in doomed:
            now = procfs.read_entry(entry.pid)
            if now is not None and now.start_time == entry.start_time:
                kill_pids([entry.pid])
            killed[entry.pid] = None
        time.sleep(KILL_INTERVAL)  # nothing runs yet that would have to wait, and no event tells of a death
    return tuple(killed)
