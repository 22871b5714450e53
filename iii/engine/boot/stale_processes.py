"""Kills the processes that an earlier run of the engine left behind.

Every run is recorded in `.iii/run/runs`, and every process of the run carries the run's tag (run_tag.py), and its id in
III_RUN_ID unless it has given itself another environment. The next start holds the lock of the project, so no engine of
the project runs, and what a recorded run has left is killed. The file may have been copied with its project: a record
counts only in the folder, by device and inode, and since the boot that it was written in, and only while the run's
engine is dead. Pid and start time are compared again right before the kill: the pid may belong to a new process by
then.
"""

from __future__ import annotations

import contextlib
import os
import time
from collections.abc import Callable, Collection, Iterable
from pathlib import Path

import msgspec
from msgspec import Struct

from iii.engine import run_tag
from iii.engine.boot.run_dir import write_private
from iii.engine.config.regular_file import read_regular
from iii.engine.supervision import procfs
from iii.engine.supervision.process import kill_entries
from iii.engine.supervision.procfs import Entry

MAX_RUNS = 20  # past runs; more are never left, and the file stays small
MAX_FILE = 1024 * 1024  # bytes; no more than a few thousand are ever written
KILL_TIMEOUT = 2.0  # seconds until the killed processes must be gone
KILL_INTERVAL = 0.01  # seconds between two looks at them
_BOOT_ID = Path("/proc/sys/kernel/random/boot_id")


class PastRun(Struct, frozen=True):
    """One record: the run, and where and when it ran. `folder` is the device and inode of the project's folder."""

    run_id: str
    project: str
    folder: tuple[int, int]
    boot_id: str


def record_of(run_id: str, root: Path) -> PastRun:
    """Return the record of a run that begins now in the project `root`."""
    status = root.stat()
    try:
        boot_id = _BOOT_ID.read_text("ascii").strip()
    except OSError:
        boot_id = ""  # no Linux
    return PastRun(
        run_id, os.fsencode(root).decode("utf-8", "backslashreplace"), (status.st_dev, status.st_ino), boot_id
    )


def kill_stale_processes(file: Path, run: PastRun, read: Callable[[], list[Entry]] = procfs.entries) -> tuple[int, ...]:
    """Kill the processes of the runs recorded in `file`, record `run`; return the pids that were killed.

    Takes milliseconds, up to KILL_TIMEOUT if a process is slow to go: not for the event loop. Raises OSError if the
    file cannot be written.
    """
    recorded = [past for past in read_runs(file) if (past.folder, past.boot_id) == (run.folder, run.boot_id)]
    killed = _kill(lambda entries: left_behind(entries, [past.run_id for past in recorded]), read) if recorded else ()
    lines = [msgspec.json.encode(past).decode() for past in [*recorded, run][-MAX_RUNS:]]
    write_private(file, "\n".join(lines) + "\n")
    return killed


def read_runs(file: Path) -> list[PastRun]:
    """Return the records of a file; lines that are none, as of a torn file, are left out."""
    try:
        lines = read_regular(file, MAX_FILE).splitlines()
    except OSError:
        return []
    runs = []
    for line in lines:
        with contextlib.suppress(msgspec.MsgspecError, ValueError):
            run = msgspec.json.decode(line, type=PastRun)
            int(run.run_id, 16)  # as every id is
            runs.append(run)
    return runs


def kill_rest(run_id: str, read: Callable[[], list[Entry]] = procfs.entries) -> tuple[int, ...]:
    """Kill every process of the run `run_id` but its engine, which calls this; return the pids that were killed."""
    return _kill(lambda entries: of_runs(entries, {run_id}), read)


def _kill(choose: Callable[[list[Entry]], list[Entry]], read: Callable[[], list[Entry]]) -> tuple[int, ...]:
    """Kill the chosen processes until there are none, except this one and its ancestors."""
    killed: dict[int, None] = {}  # an ordered set
    deadline = time.monotonic() + KILL_TIMEOUT
    while time.monotonic() < deadline:
        # Without a free descriptor this process cannot read /proc; one of its other threads may close a file.
        with contextlib.suppress(OSError):
            spared = _ancestors()
            doomed = [entry for entry in choose(read()) if entry.pid not in spared]
            if not doomed:
                break
            kill_entries(doomed)
            killed.update(dict.fromkeys(entry.pid for entry in doomed))
        time.sleep(KILL_INTERVAL)  # no event tells of a death
    return tuple(killed)


def _ancestors() -> set[int]:
    """Return the pids of this process and of those above it."""
    found: set[int] = set()
    ancestor = procfs.read_entry(os.getpid())
    while ancestor is not None and ancestor.pid not in found:
        found.add(ancestor.pid)
        ancestor = procfs.read_entry(ancestor.parent)
    return found


def left_behind(entries: list[Entry], run_ids: Iterable[str]) -> list[Entry]:
    """Return the living processes of those runs whose engine is dead."""
    engines = {entry.tag for entry in entries if entry.is_alive}
    return of_runs(entries, {run_id for run_id in run_ids if run_tag.tag_run(run_id) not in engines})


def of_runs(entries: list[Entry], run_ids: Collection[str]) -> list[Entry]:
    """Return the living processes of these runs, without those that are kept on purpose."""
    tags = {run_tag.run_of_tag(run_tag.tag_run(run_id)) for run_id in run_ids}
    marks = {f"III_RUN_ID={run_id}".encode() for run_id in run_ids}
    keep = f"{procfs.KEEP}=1".encode()
    return [
        entry
        for entry in entries
        if entry.is_alive
        and (run_tag.run_of_tag(entry.tag) in tags or not marks.isdisjoint(entry.marks))
        and not (keep in entry.marks or run_tag.is_kept(entry.tag))
    ]
