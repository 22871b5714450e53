"""The tiny parent of the engine: outlives the engine, and leaves no process alive when the engine has gone.

`iii dev` becomes this process, which starts the engine as its child. As a subreaper the guard inherits every orphan
below it, so that it can find and kill even a daemon that a worker has forked twice. It passes signals on and starts a
crashed engine again; if the guard itself is killed, a pipe tells the engine, which stops its workers and ends. The
guard knows nothing of the project and imports the standard library only: it must be there before anything heavy is
loaded, and must never be the process that fails.
"""

from __future__ import annotations

import contextlib
import os
import resource
import signal
import sys
import time
import traceback
from collections.abc import Callable

ENVIRONMENT = "III_GUARD"  # the guard's pid, for the engine
KEEP = b"III_KEEP_CHILDREN=1"  # in the environment of a worker whose children may outlive it
_RLIMIT_LOCKS = 10  # carries a tag, whose lowest bit says the same: see run_tag.py
# An engine that crashes more often than this in this many seconds needs a human.
MAX_RESTARTS = 3
RESTART_INTERVAL = 60.0
# Exit codes that ask for a new engine: an internal error, and a disk that failed (recovery runs at the start).
CRASHED = (70, 74)
INTERRUPTED = 130
# Seconds: from the second signal until the engine is killed, and for killed processes to die.
KILL_TIMEOUT = 2.0
REAP_INTERVAL = 0.005  # seconds between two looks at the processes that were killed
_PR_SET_CHILD_SUBREAPER = 36
_PASSED_ON = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT)


class Guard:
    """One guarded engine. `engine(lifeline)` runs it, in a child of this process, and returns its exit code.

    The child is a plain fork: what the guard has read and checked so far need not be read again. `lifeline` is a
    descriptor that reads as ended when the guard is dead.
    """

    def __init__(self, engine: Callable[[int], int]) -> None:
        self._run_engine = engine
        self._engine = 0  # pid
        self._passed_on = 0  # signals that asked the engine to end
        self._kill_at: float | None = None
        self._held = -1
        set_inherited()
        # A signal that the program before us ignored (nohup) stays ignored.
        self._signals = {number for number in _PASSED_ON if signal.getsignal(number) is not signal.SIG_IGN}

    def run(self) -> int:
        """Start the engine, again if it crashes; return its exit code, 128 + signal for a killed one."""
        _prctl(_PR_SET_CHILD_SUBREAPER, 1)
        # SIGTTOU would stop a guard in the background that writes to a terminal with `stty tostop`.
        signal.pthread_sigmask(signal.SIG_BLOCK, self._signals | {signal.SIGCHLD, signal.SIGTTOU})
        crashes: list[float] = []  # monotonic times
        while True:
            self._engine = self._start()
            code = os.waitstatus_to_exitcode(self._attend())  # negative for the signal that killed the engine
            has_crashed = (code < 0 or code in CRASHED) and not self._passed_on
            kill_descendants(spare_kept=not has_crashed)
            if not has_crashed:
                break
            now = time.monotonic()
            crashes = [at for at in crashes if now - at < RESTART_INTERVAL] + [now]
            if len(crashes) > MAX_RESTARTS:
                _say(f"the engine has died {len(crashes)} times in a minute; giving up")
                break
            cause = f"exit code {code}" if code >= 0 else signal.Signals(-code).name
            _say(f"the engine has died ({cause}); starting it again")
        return code if code >= 0 else 128 - code

    def _start(self) -> int:
        """Fork the engine; return its pid."""
        guard = os.getpid()
        lifeline, held = os.pipe()  # the guard's end closes with the guard, however it dies
        pid = os.fork()
        if pid:
            os.close(lifeline)
            if self._held >= 0:
                os.close(self._held)
            self._held = held
            return pid
        code = 70
        try:
            for fd in {held, self._held} - {-1}:
                os.close(fd)
            # A session of its own. A Ctrl-C reaches the guard alone, which passes it on exactly once; and without a
            # controlling terminal no terminal can stop the engine (`stty tostop`).
            os.setsid()
            os.environ[ENVIRONMENT] = str(guard)
            signal.pthread_sigmask(signal.SIG_SETMASK, ())
            code = self._run_engine(lifeline)
        except KeyboardInterrupt:
            code = INTERRUPTED  # before the engine has handlers of its own
        except BaseException:  # noqa: BLE001 - the child's outermost frame; nothing of the guard may run on in it
            traceback.print_exc()
        finally:
            with contextlib.suppress(OSError, ValueError):  # the reader of our output is gone
                sys.stdout.flush()
                sys.stderr.flush()
            os._exit(code)

    def _attend(self) -> int:
        """Pass signals on and reap orphans until the engine is dead; return its wait status."""
        awaited = self._signals | {signal.SIGCHLD}
        while True:
            if self._kill_at is None:
                number = signal.sigwait(awaited)
            else:
                received = signal.sigtimedwait(awaited, max(0.0, self._kill_at - time.monotonic()))
                if received is None:
                    self._kill_at = time.monotonic() + KILL_TIMEOUT
                    self._signal_engine(signal.SIGKILL)
                    continue
                number = received.si_signo
            if number != signal.SIGCHLD:
                self._passed_on += 1
                if self._passed_on == 2:
                    self._kill_at = time.monotonic() + KILL_TIMEOUT
                self._signal_engine(number)
            elif (status := self._reap()) is not None:
                return status

    def _signal_engine(self, number: int) -> None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(self._engine, number)

    def _reap(self) -> int | None:
        """Reap every child that has ended; return the engine's wait status if it is among them."""
        engine_status: int | None = None
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return engine_status
            if pid == 0:
                return engine_status
            if pid == self._engine:
                engine_status = status


def kill_descendants(*, spare_kept: bool) -> None:
    """Kill every process below this one and reap it. Orphans become our children while their parents die."""
    deadline = time.monotonic() + KILL_TIMEOUT
    while time.monotonic() < deadline:
        doomed = [pid for pid in _children() if not (spare_kept and _is_kept(pid))]
        if not doomed:
            return
        for pid in doomed:
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.kill(pid, signal.SIGKILL)
        time.sleep(REAP_INTERVAL)  # no signal tells that an orphan has become our child: look again until none is left
        with contextlib.suppress(ChildProcessError):
            while os.waitpid(-1, os.WNOHANG)[0]:
                continue


def _children() -> list[int]:
    """Return the pids of our children; none where there is no /proc: process groups and EOF on stdin must do there."""
    me = b"%d" % os.getpid()
    children = []
    for name in os.listdir("/proc") if os.path.isdir("/proc") else ():
        if name.isdigit():
            with contextlib.suppress(OSError), open(f"/proc/{name}/stat", "rb") as file:
                stat = file.read()
                if stat[stat.rindex(b")") + 2 :].split()[1] == me:
                    children.append(int(name))
    return children


def set_inherited() -> None:
    """Set what the program before us may have left in a state in which nothing works.

    Signals are taken and none is blocked, so that exits are seen and Ctrl-C ends us: a parent may ignore SIGCHLD, a
    shell ignores SIGINT for what it runs in the background. An ignored SIGHUP stays: that is nohup. The descriptors 0
    to 2 are there, so that no pipe of ours gets their numbers. Files that we make can be read by us.
    """
    for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGQUIT, signal.SIGALRM):
        if signal.getsignal(number) is signal.SIG_IGN:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())
    while (fd := os.open(os.devnull, os.O_RDWR)) <= 2:
        os.set_inheritable(fd, True)
    os.close(fd)
    os.umask(os.umask(0o077) & 0o077)


def _is_kept(pid: int) -> bool:
    with contextlib.suppress(OSError, ValueError):
        tag = resource.prlimit(pid, _RLIMIT_LOCKS)[0] if sys.platform == "linux" else 0
        if tag > 0 and tag & 1:
            return True
    try:
        with open(f"/proc/{pid}/environ", "rb") as file:
            return KEEP in file.read().split(b"\0")
    except OSError:
        return False


def _say(text: str) -> None:
    with contextlib.suppress(OSError):  # the terminal may be closed
        os.write(2, f"iii: {text}\n".encode())


def _prctl(option: int, value: int) -> None:
    if sys.platform != "linux":
        return
    import ctypes  # costs milliseconds, and not every platform has prctl

    ctypes.CDLL(None).prctl(option, value, 0, 0, 0)
