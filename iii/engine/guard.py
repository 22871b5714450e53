"""The tiny parent of the engine: outlives it, and leaves nothing alive when it has gone.

`iii dev` becomes this process, which starts the engine as its child. As a subreaper it inherits every orphan
below it, so that also a daemon that a worker has forked twice can be found and killed. It passes signals on,
starts a crashed engine again, and the kernel kills the engine if the guard itself is killed. It holds no
state and imports the standard library only: it must be there before anything heavy is, and never be the one
to fail.
"""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time
import traceback
from collections.abc import Callable, Sequence

ENVIRONMENT = "III_GUARD"  # the guard's pid, for the engine
KEEP = b"III_KEEP_CHILDREN=1"  # in the environment of a worker whose children may outlive it
MAX_RESTARTS = 3  # in a minute; an engine that crashes more often needs a human
WINDOW = 60.0
# Exit codes that ask for a new engine: an internal error, and a disk that failed (recovery runs at the
# start).
CRASHED = (70, 74)
INTERRUPTED = 130
# What the engine gets, after a second signal, before it is killed with all below it.
PATIENCE = 2.0
PAUSE = 0.005  # seconds for the killed to die
_PR_SET_PDEATHSIG = 1
_PR_SET_CHILD_SUBREAPER = 36
_PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


def main(argv: Sequence[str]) -> int:
    """Run the program `argv` as the engine until it ends for good; return its exit code."""

    def become() -> int:
        try:
            os.execvp(argv[0], list(argv))
        except OSError as error:
            _say(f"cannot start {argv[0]}: {error.strerror}")
            return 127

    return Guard(become).run()


class Guard:
    """One guarded engine. `engine` runs it, in a child of this process, and returns its exit code.

    The child is a plain fork: what the guard has read and checked so far need not be read again.
    """

    def __init__(self, engine: Callable[[], int]) -> None:
        self._run_engine = engine
        self._engine = 0
        self._asked = 0  # how many signals asked the engine to end
        self._kill_at: float | None = None
        self._crashes: list[float] = []
        # Ignored by whoever started us (nohup): stays ignored.
        self._signals = {number for number in _PASSED_ON if signal.getsignal(number) is not signal.SIG_IGN}

    def run(self) -> int:
        """Start the engine, again if it crashes; return its exit code, 128 + signal for a killed one."""
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        signal.pthread_sigmask(signal.SIG_BLOCK, self._signals | {signal.SIGCHLD})
        while True:
            self._engine = self._start()
            status = self._attend()
            crashed = _has_crashed(status) and not self._asked
            kill_descendants(spare_kept=not crashed)
            if not crashed or not self._may_restart():
                return _exit_code(status)
            _say(f"the engine has died ({_words(status)}); starting it again")

    def _start(self) -> int:
        guard = os.getpid()
        pid = os.fork()
        if pid:
            return pid
        code = 70
        try:
            code = self._become_engine(guard)
        except KeyboardInterrupt:
            code = INTERRUPTED  # before the engine has handlers of its own
        except BaseException:  # noqa: BLE001 - the child's outermost frame; nothing of the guard may run on in it
            traceback.print_exc()
        finally:
            sys.stdout.flush()
            sys.stderr.flush()
            os._exit(code)

    def _become_engine(self, guard: int) -> int:
        # A group of its own: a Ctrl-C reaches the guard alone, which passes it on exactly once.
        os.setpgid(0, 0)
        _prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
        if os.getppid() != guard:
            return 0  # killed before the kernel knew what to do then
        os.environ[ENVIRONMENT] = str(guard)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, self._signals | {signal.SIGCHLD})
        return self._run_engine()

    def _attend(self) -> int:
        """Pass signals on and bury orphans until the engine is dead; return its wait status."""
        while True:
            number = self._next_signal()
            if number is None:
                self._kill_engine(signal.SIGKILL)
            elif number == signal.SIGCHLD:
                status = self._reap()
                if status is not None:
                    return status
            else:
                self._pass_on(number)

    def _next_signal(self) -> int | None:
        waited_for = self._signals | {signal.SIGCHLD}
        if self._kill_at is None:
            return signal.sigwait(waited_for)
        received = signal.sigtimedwait(waited_for, max(0.0, self._kill_at - time.monotonic()))
        if received is None:
            self._kill_at = time.monotonic() + PATIENCE
        return received.si_signo if received else None

    def _pass_on(self, number: int) -> None:
        self._asked += 1
        if self._asked == 2:
            self._kill_at = time.monotonic() + PATIENCE
        self._kill_engine(number)

    def _kill_engine(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._engine, number)

    def _reap(self) -> int | None:
        found: int | None = None
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return found
            if pid == 0:
                return found
            if pid == self._engine:
                found = status

    def _may_restart(self) -> bool:
        now = time.monotonic()
        self._crashes = [at for at in self._crashes if now - at < WINDOW] + [now]
        if len(self._crashes) <= MAX_RESTARTS:
            return True
        _say(f"the engine has died {len(self._crashes)} times in a minute; giving up")
        return False


def kill_descendants(*, spare_kept: bool) -> None:
    """Kill every process below this one and reap it. Orphans move up to us while their parents die."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        doomed = [pid for pid in _children() if not (spare_kept and _is_kept(pid))]
        if not doomed:
            return
        for pid in doomed:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(PAUSE)  # no signal comes with an orphan that moves up: look again, until none is left
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                continue


def _children() -> list[int]:
    """Return the children of this process; none where there is no /proc:
    groups and end of stdin must do there.
    """
    me = os.getpid()
    found = []
    for name in os.listdir("/proc") if os.path.isdir("/proc") else ():
        if name.isdigit() and _parent_of(name) == me:
            found.append(int(name))
    return found


def _parent_of(pid: str) -> int:
    try:
        with open(f"/proc/{pid}/stat", "rb") as file:
            stat = file.read()
    except OSError:
        return 0
    return int(stat[stat.rindex(b")") + 2 :].split()[1])


def _is_kept(pid: int) -> bool:
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return KEEP in file.read().split(b"\0")
    except OSError:
        return False


def _has_crashed(status: int) -> bool:
    return os.WIFSIGNALED(status) or os.waitstatus_to_exitcode(status) in CRASHED


def _exit_code(status: int) -> int:
    code = os.waitstatus_to_exitcode(status)
    return code if code >= 0 else 128 - code


def _words(status: int) -> str:
    code = os.waitstatus_to_exitcode(status)
    return f"exit code {code}" if code >= 0 else signal.Signals(-code).name


def _say(text: str) -> None:
    with contextlib.suppress(OSError):  # the terminal may be closed
        os.write(2, f"iii: {text}\n".encode())


def _prctl(option: int, value: int) -> None:
    if sys.platform != "linux":
        return
    import ctypes  # costs milliseconds, and not every platform has prctl

    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
