"""What a process was doing when it was killed, told by the kernel alone: the soak's oracle for `kill -9`.

A process is frozen with SIGSTOP, so that nothing of it moves while one looks, and killed where it stands. What lies in
the pipe to its stdin it has not read; `tee` copies that without taking it. Linux only. Knows nothing of the engine's
own accounts, which is the point.
"""

from __future__ import annotations

import contextlib
import ctypes
import fcntl
import os
import signal
import time
from pathlib import Path

_SPLICE_F_NONBLOCK = 2
_F_SETPIPE_SZ = 1031
_ROOM = 1 << 20  # bytes; as much as the engine's pipes hold
_PATIENCE = 5.0  # seconds for a signal to take effect
_STOPPED = frozenset({b"T", b"t"})
_DEAD = frozenset({b"Z", b"X"})


def freeze(pid: int) -> None:
    """Stop every thread of the process, and return when all stand still. Raises ProcessLookupError for a dead one."""
    os.kill(pid, signal.SIGSTOP)
    deadline = time.monotonic() + _PATIENCE
    while not (states := _states(pid)) <= _STOPPED:
        if states & _DEAD:
            raise ProcessLookupError(pid)
        if time.monotonic() > deadline:
            raise TimeoutError(f"process {pid} does not stand still")


def unread_by(pid: int, writer: int) -> bytes:
    """Return what the process `writer` has written to the frozen process and that one has not read, untouched."""
    path = _inward_pipe(pid, writer)
    if path is None:
        return b""
    source = os.open(path, os.O_RDONLY | os.O_NONBLOCK)
    read_end, write_end = os.pipe()
    try:
        fcntl.fcntl(write_end, _F_SETPIPE_SZ, _ROOM)
        count = ctypes.CDLL(None, use_errno=True).tee(source, write_end, _ROOM, _SPLICE_F_NONBLOCK)
        return os.read(read_end, count) if count > 0 else b""
    finally:
        for fd in (source, read_end, write_end):
            os.close(fd)


def _inward_pipe(pid: int, writer: int) -> str | None:
    """Return the path of the one pipe that `pid` reads and `writer` writes; None if there is none yet."""
    written = {target for target, is_writing in _pipes(writer).values() if is_writing}
    for path, (target, is_writing) in _pipes(pid).items():
        if not is_writing and target in written:
            return path
    return None


def _pipes(pid: int) -> dict[str, tuple[str, bool]]:
    """Return path -> (which pipe, whether it is the writing end) of a process' open pipes."""
    found = {}
    for name in os.listdir(f"/proc/{pid}/fd"):
        path = f"/proc/{pid}/fd/{name}"
        try:
            target = os.readlink(path)
            mode = int(Path(f"/proc/{pid}/fdinfo/{name}").read_text().split()[3], 8) & os.O_ACCMODE
        except FileNotFoundError:
            continue  # closed since it was listed
        if target.startswith("pipe:"):
            found[path] = (target, mode == os.O_WRONLY)
    return found


def _states(pid: int) -> set[bytes]:
    """Return the states that the threads of a process are in."""
    states = set()
    for task in Path(f"/proc/{pid}/task").iterdir():
        with contextlib.suppress(FileNotFoundError):  # a thread that has just ended
            stat = (task / "stat").read_bytes()
            states.add(stat[stat.rindex(b")") + 2 :].split()[0])
    return states
