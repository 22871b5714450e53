"""One operating system process: its command line, its pipes, its signals, its death.

Spawns without a shell and without code between fork and exec, in a session of its own, so that one signal reaches the
whole group. Always spawn from the engine's main thread: the kernel ties a child's death signal to the *thread* that
made it. Knows nothing of the states of workers.
"""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from pathlib import Path
from typing import TYPE_CHECKING

from msgspec import Struct

from iii.engine.config.regular_file import open_regular
from iii.engine.config.spec import WorkerSpec
from iii.engine.run_tag import tagged_spawn
from iii.engine.supervision.procfs import KEEP, Entry, read_entry

if TYPE_CHECKING:
    import asyncio

LAUNCHER = Path(__file__).parents[2] / "worker" / "launch.py"
# The descriptors of the sockets a worker listens on, as in systemd's `LISTEN_FDS`, but their numbers, with commas.
LISTEN_FDS = "III_LISTEN_FDS"
# A payload of 1 MiB in one write instead of sixteen: twice the throughput of large calls.
PIPE_SIZE = 1024 * 1024
_F_SETPIPE_SZ = 1031
# Short of descriptors, processes or memory: worth trying again. Any other error stays until the user changes something.
_TEMPORARY = frozenset({errno.EAGAIN, errno.EMFILE, errno.ENFILE, errno.ENOMEM})
# Descriptors of the engine: four for each process, one for each client.
MAX_FILES = 65536
_INHERITED_FILES = resource.getrlimit(resource.RLIMIT_NOFILE)  # before it is raised
_SETPRIV = shutil.which("setpriv")


class Command(Struct, frozen=True):
    """What to run. `env` is the whole environment. With `wire`, stdin and stdout are pipes to the engine; without,
    stdin is empty and stdout goes where stderr goes.
    """

    argv: tuple[str, ...]
    cwd: Path
    env: Mapping[str, str]
    wire: bool = True

    @property
    def descriptors(self) -> tuple[int, ...]:
        """The listening sockets that the process inherits, under the same numbers."""
        return tuple(map(int, filter(None, self.env.get(LISTEN_FDS, "").split(","))))

    keep_children: bool = False


class SpawnError(Struct, frozen=True):
    """A process that could not be started; `why`, if given, says more than the number.

    `permanent`: trying again cannot help.
    """

    number: int
    path: str
    why: str = ""

    @property
    def permanent(self) -> bool:
        return self.number not in _TEMPORARY

    @property
    def words(self) -> str:
        """`cannot start workers/a.py: No such file or directory (ENOENT)`."""
        code = errno.errorcode.get(self.number, str(self.number))
        return f"cannot start {self.path}: {self.why or os.strerror(self.number)} ({code})"


class Process:
    """A running process, and the engine's ends of its pipes: non-blocking; -1 for stdin and stdout without wire."""

    __slots__ = ("_popen", "pid", "started_at", "stderr_fd", "stdin_fd", "stdout_fd", "tag")

    def __init__(self, popen: subprocess.Popen[bytes], stdin_fd: int, stdout_fd: int, stderr_fd: int, tag: int) -> None:
        self._popen = popen
        self.pid = popen.pid
        self.tag = tag  # of it and all its descendants, see run_tag.py
        self.started_at = time.monotonic()
        self.stdin_fd = stdin_fd
        self.stdout_fd = stdout_fd
        self.stderr_fd = stderr_fd

    def signal_group(self, number: int) -> None:
        """Send a signal to the whole group. Safe until `reap`: until then no other process can get this pid."""
        if self._popen.returncode is None:
            # EPERM: what macOS answers for a group of zombies only.
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(self.pid, number)

    def reap(self) -> int:
        """Take the dead process out of the table; return its exit code, or the signal's number negated."""
        return self._popen.wait()


def command_of(spec: WorkerSpec, environment: Mapping[str, str]) -> Command:
    """Return the command of a worker: Python scripts run under the launcher, any other program directly.

    Processes which may outlive their worker are marked: the guard, and the cleanup of the next start, leave them alone.
    """
    argv = spec.command
    if spec.standard is not None:
        argv = (sys.executable, str(LAUNCHER), "-m", f"stdlib_workers.{spec.standard}")
    elif spec.script is not None:
        # A debugger cannot stop in modules that are frozen into the interpreter.
        options = ("-X", "frozen_modules=off") if spec.debug else ()
        argv = (str(spec.python or sys.executable), *options, str(LAUNCHER), str(spec.script))
    env = {**environment, **({KEEP: "1"} if spec.keep_children else {})}
    return Command(argv, spec.cwd, env, keep_children=spec.keep_children)


def missing_file(spec: WorkerSpec) -> SpawnError | None:
    """Return why the worker's script cannot be read, None if it can. Python itself would only exit with code 2."""
    if spec.script is None:
        return None
    try:
        os.close(open_regular(spec.script, follow=True))
    except OSError as error:
        return SpawnError(error.errno or errno.EIO, str(spec.script), error.strerror or "")
    return None


def spawn(command: Command) -> Process | SpawnError:
    """Start a process. Errors of the operating system are returned, not raised."""
    program = _find_program(command)
    if isinstance(program, SpawnError):
        return program
    ours: list[int] = []
    theirs: list[int] = []
    try:
        return _spawn(command, program, ours, theirs)
    except ValueError:  # of the arguments, or of the environment
        _close(ours)
        return SpawnError(errno.EINVAL, command.argv[0], "an argument or a variable holds a NUL character")
    except OSError as error:
        _close(ours)
        is_cwd_missing = error.errno == errno.ENOENT and not command.cwd.is_dir()
        return SpawnError(error.errno or errno.EIO, str(command.cwd) if is_cwd_missing else command.argv[0])
    finally:
        _close(theirs)


def _close(descriptors: list[int]) -> None:
    for fd in descriptors:
        os.close(fd)


def _spawn(command: Command, program: str, ours: list[int], theirs: list[int]) -> Process:
    stderr_ours, stderr_theirs = _pipe(ours, theirs)
    stdin_ours = stdout_ours = -1
    stdin: int = subprocess.DEVNULL
    stdout = stderr_theirs
    if command.wire:
        stdout_ours, stdout = _pipe(ours, theirs, size=PIPE_SIZE)
        stdin_ours, stdin = _pipe(ours, theirs, size=PIPE_SIZE, inward=True)
    argv: tuple[str, ...] = (program, *command.argv[1:])
    # The kernel shall kill the child when the engine dies. The launcher asks for that itself, `setpriv` for any other.
    if _SETPRIV is not None and str(LAUNCHER) not in argv[1:4]:
        argv = (_SETPRIV, "--pdeathsig", "KILL", "--", *argv)
    with tagged_spawn(keep=command.keep_children) as tag:
        popen = subprocess.Popen(
            argv,
            stdin=stdin,
            stdout=stdout,
            stderr=stderr_theirs,
            cwd=command.cwd,
            env=dict(command.env),
            start_new_session=True,
            pass_fds=command.descriptors,
        )
    if sys.platform == "linux":
        # The engine has raised its own limit (`raise_file_limit`); programs that use select() rely on a low one.
        with contextlib.suppress(OSError, ValueError):
            resource.prlimit(popen.pid, resource.RLIMIT_NOFILE, _INHERITED_FILES)
    return Process(popen, stdin_ours, stdout_ours, stderr_ours, tag)


def raise_file_limit() -> None:
    """Let this process open as many files as it may, up to MAX_FILES; its workers keep the limit that it was given."""
    soft, hard = _INHERITED_FILES
    wanted = MAX_FILES if hard == resource.RLIM_INFINITY else min(hard, MAX_FILES)
    if soft not in (resource.RLIM_INFINITY, wanted) and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def _pipe(ours: list[int], theirs: list[int], *, size: int = 0, inward: bool = False) -> tuple[int, int]:
    """Return the engine's end (non-blocking) and the child's end of a new pipe. `inward`: the child reads."""
    read_end, write_end = os.pipe()
    our_end, their_end = (write_end, read_end) if inward else (read_end, write_end)
    ours.append(our_end)
    theirs.append(their_end)
    os.set_blocking(our_end, False)
    if size and sys.platform == "linux":
        import fcntl  # not on every platform

        with contextlib.suppress(OSError):  # the user's quota of pipe memory is used up: smaller works too
            fcntl.fcntl(our_end, _F_SETPIPE_SZ, size)
    return our_end, their_end


def _find_program(command: Command) -> str | SpawnError:
    """Find the program's file. Left to `setpriv`, a missing program would look like a worker that exits with 127."""
    name = command.argv[0]
    if os.sep in name:
        name = os.path.join(command.cwd, name)
        if not os.path.exists(name):
            return SpawnError(errno.ENOENT, name)
        if not (os.access(name, os.X_OK) and os.path.isfile(name)):
            return SpawnError(errno.EACCES, name)
        return _missing_interpreter(name) or name
    found = shutil.which(name, path=command.env.get("PATH", os.defpath))
    return found or SpawnError(errno.ENOENT, name)


def _missing_interpreter(script: str) -> SpawnError | None:
    """Return the error of a script whose first line names an interpreter that does not exist, None for any other.

    The kernel's own error, `No such file or directory`, would read as if the script were missing.
    """
    try:
        with open(open_regular(script, follow=True), "rb") as file:
            first = file.readline(256)
    except OSError:
        return None  # executable but not readable: a program
    words = first[2:].split() if first.startswith(b"#!") else []
    if not words or os.path.exists(words[0]):
        return None
    return SpawnError(errno.ENOENT, f"{script}, whose interpreter is {os.fsdecode(words[0])}")


def watch_exit(pid: int, loop: asyncio.AbstractEventLoop, callback: Callable[[], None]) -> None:
    """Call `callback` once when `pid`, an unreaped child, has died."""
    if hasattr(os, "pidfd_open"):
        fd = os.pidfd_open(pid)

        def on_readable() -> None:
            loop.remove_reader(fd)
            os.close(fd)
            callback()

        loop.add_reader(fd, on_readable)
        return

    def wait() -> None:  # without pidfd: a thread waits for the exit and leaves the process unreaped
        with contextlib.suppress(ChildProcessError):
            os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
        with contextlib.suppress(RuntimeError):  # the loop is closed: there is nothing to call
            loop.call_soon_threadsafe(callback)

    threading.Thread(target=wait, name=f"wait-{pid}", daemon=True).start()


def kill_entries(entries: Iterable[Entry]) -> None:
    """Kill these processes, and no other that has got the pid of one of them meanwhile."""
    for entry in entries:
        with contextlib.suppress(ProcessLookupError, PermissionError), _handle_on(entry.pid) as fd:
            now = read_entry(entry.pid)
            if now is None or now.start_time != entry.start_time:
                continue
            if fd is None:
                os.kill(entry.pid, signal.SIGKILL)
            else:
                signal.pidfd_send_signal(fd, signal.SIGKILL)


@contextlib.contextmanager
def _handle_on(pid: int) -> Iterator[int | None]:
    """Yield a descriptor that means this process and never a later one of the same pid; None where there are none."""
    if not hasattr(os, "pidfd_open"):
        yield None
        return
    fd = os.pidfd_open(pid)
    try:
        yield fd
    finally:
        os.close(fd)
