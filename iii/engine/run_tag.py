"""Tags the processes of a run, so that each can be found again whatever it does.

A daemon may have a session, an environment and a parent of its own; what it cannot easily shed are its limits, which
fork and exec hand on. RLIMIT_LOCKS is one that no kernel since Linux 2.4.25 enforces (getrlimit(2)). Its soft value
carries the tag: which run, which spawn of the run, and whether the process may outlive its worker. Where limits of
other processes cannot be read (macOS) every tag is 0, and only sessions and environments tell.
"""

from __future__ import annotations

import contextlib
import itertools
import resource
import sys
from collections.abc import Iterator

_RLIMIT_LOCKS = 10
_SPAWN_BITS = 22  # four million spawns, then their numbers begin again; the lowest bit says that the process is kept
_RUN_DIGITS = 10  # hexadecimal, of the run's id
_numbers = itertools.count(1)


def run_of_tag(tag: int) -> int:
    """Return the run's part of a tag."""
    return tag >> _SPAWN_BITS


def is_kept(tag: int) -> bool:
    """Whether a process with this tag may outlive its worker."""
    return bool(run_of_tag(tag) and tag & 1)


def tag_run(run_id: str) -> int:
    """Return the tag of the engine of this run, which ends in zeros: `run_of_tag` of it is that of its processes."""
    return (int(run_id[:_RUN_DIGITS], 16) | 1) << _SPAWN_BITS  # never 0, which means that there is no tag


def wear(tag: int) -> None:
    """Give this process a tag; its children inherit it."""
    if sys.platform == "linux":
        # ValueError: somebody has set a hard limit below; then there are no tags.
        with contextlib.suppress(ValueError, OSError):
            resource.setrlimit(_RLIMIT_LOCKS, (tag, resource.getrlimit(_RLIMIT_LOCKS)[1]))


def tag_of(pid: int) -> int:
    """Return the tag of a process, 0 for one without a tag, gone, or another user's."""
    if sys.platform != "linux":
        return 0
    try:
        soft, _ = resource.prlimit(pid, _RLIMIT_LOCKS)
    except (OSError, ValueError):
        return 0
    return max(soft, 0)  # -1: unlimited


@contextlib.contextmanager
def tagged_spawn(*, keep: bool) -> Iterator[int]:
    """Yield the tag that processes spawned meanwhile carry: the number of this spawn in the run of this process."""
    own = tag_of(0)
    if not run_of_tag(own):
        yield 0
        return
    tag = (run_of_tag(own) << _SPAWN_BITS) | (next(_numbers) << 1 | keep) % (1 << _SPAWN_BITS)
    wear(tag)
    try:
        yield tag
    finally:
        wear(own)
