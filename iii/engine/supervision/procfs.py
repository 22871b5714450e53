"""What /proc says about the processes of this machine, as values.

Shows what a worker left behind: the members of its process group, and descendants that left the group but still carry
the tag or the environment they were started with. Reads only; `orphans.py` and `boot/stale_processes.py` decide what to
kill. Where there is no /proc (macOS) every function finds nothing. Where this process may open no more files, every
function raises OSError: that nothing can be read does not mean that nobody is there.
"""

from __future__ import annotations

import errno
import os
from collections.abc import Iterable

from msgspec import Struct
from msgspec.structs import replace

from iii.engine.run_tag import tag_of

_PREFIX = b"III_"
KEEP = "III_KEEP_CHILDREN"  # set for a worker whose children may outlive it
# The kernel has no descriptor, or no memory, for one more file.
_EXHAUSTED = frozenset({errno.EMFILE, errno.ENFILE, errno.ENOMEM})
_DEAD = frozenset("ZX")  # zombies and the dead hold nothing


class Entry(Struct, frozen=True):
    """One process. `start_time` counts clock ticks since boot: pid and start time together never repeat."""

    pid: int
    parent: int
    group: int
    start_time: int
    is_alive: bool
    marks: frozenset[bytes] = frozenset()  # its III_* variables, as b"NAME=value"
    tag: int = 0  # see run_tag.py


def entries() -> list[Entry]:
    """Return every process of this user, the living ones with their tags and marks; root sees those of all users.

    Raises OSError when this process may open no more files.
    """
    try:
        names = os.listdir("/proc")
    except OSError as error:
        raise_if_exhausted(error)
        return []
    user, found = os.getuid(), []
    for name in names:
        entry = read_entry(int(name), user or None) if name.isdigit() else None
        if entry is not None and entry.is_alive:
            marks = frozenset(each for each in _environment(name) if each.startswith(_PREFIX))
            entry = replace(entry, marks=marks, tag=tag_of(entry.pid))
        if entry is not None:
            found.append(entry)
    return found


def _environment(pid: str) -> list[bytes]:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return file.read().split(b"\0")
    except OSError as error:
        raise_if_exhausted(error)
        return []


def raise_if_exhausted(error: OSError) -> None:
    """Raise the error when it is about this process: it may open no more files."""
    if error.errno in _EXHAUSTED:
        raise error


def read_entry(pid: int, user: int | None = None) -> Entry | None:
    """Return the entry of `pid` without its marks, None if the process is gone or another user's.

    Raises OSError when this process may open no more files.
    """
    try:
        folder = f"/proc/{pid}"
        if user is not None and os.stat(folder).st_uid != user:
            return None
        with open(f"{folder}/stat", "rb", buffering=0) as file:
            return parse_stat(pid, file.read(4096))
    except OSError as error:
        raise_if_exhausted(error)
        return None


def parse_stat(pid: int, stat: bytes) -> Entry:
    """Parse /proc/PID/stat. The command is in parentheses and may itself hold some: the last ")" ends it."""
    fields = stat[stat.rindex(b")") + 2 :].split()
    state, parent, group = fields[0].decode(), int(fields[1]), int(fields[2])
    return Entry(pid, parent, group, start_time=int(fields[19]), is_alive=state not in _DEAD)


def marks_of(environment: Iterable[tuple[str, str]]) -> frozenset[bytes]:
    """Return the marks that a process with this environment carries."""
    pairs = (os.fsencode(f"{name}={value}") for name, value in environment)
    return frozenset(pair for pair in pairs if pair.startswith(_PREFIX))
