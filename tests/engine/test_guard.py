"""The guard with real processes: it outlives the engine, and nothing outlives it."""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import psutil
import pytest

from iii.engine import guard

# An engine with a daemon below it: says both pids, then does as it is told.
ENGINE = """
import os, signal, sys, time
def say(*words): os.write(1, (" ".join(map(str, words)) + "\\n").encode())  # one write: two writers never mix
if os.fork() == 0:
    os.setsid()
    if os.fork() == 0:
        say("daemon", os.getpid())
        time.sleep(600)
    os._exit(0)
os.wait()
signal.signal(signal.SIGTERM, lambda *_: os._exit(7))
signal.signal(signal.SIGINT, lambda *_: say("interrupted"))
say("engine", os.getpid(), os.environ["III_GUARD"])
while True:
    try:
        os.read(int(os.environ["LIFELINE"]), 1)
        say("alone")
        time.sleep(600)
    except InterruptedError:
        continue
"""

# A guard that becomes its engine: the program that the arguments name.
LAUNCH = f"""
import os, sys
sys.path.append({os.path.dirname(guard.__file__)!r})
from guard import Guard
def engine(lifeline):
    os.set_inheritable(lifeline, True)
    os.environ["LIFELINE"] = str(lifeline)
    os.execvp(sys.argv[1], sys.argv[1:])
sys.exit(Guard(engine).run())
"""


class Guarded:
    """A guard as a process, and what its engine has said."""

    def __init__(self, code: str) -> None:
        argv = [sys.executable, "-S", "-P", "-c", LAUNCH, sys.executable, "-S", "-c", code]
        self.process = subprocess.Popen(argv, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
        self.pids: dict[str, psutil.Process] = {}

    def line(self) -> str:
        assert self.process.stdout is not None
        return self.process.stdout.readline().strip()

    def learn(self) -> None:
        """Read what an engine and its daemon say of themselves."""
        self.pids.clear()
        while self.pids.keys() != {"engine", "daemon"}:
            name, pid, *rest = self.line().split()
            self.pids[name] = psutil.Process(int(pid))
            if rest:
                assert int(rest[0]) == self.process.pid

    def wait_for_death(self, name: str) -> None:
        """Wait until a process is gone; raises psutil.TimeoutExpired."""
        process = self.pids[name]
        if process.is_running() and process.status() != psutil.STATUS_ZOMBIE:
            process.wait(5)


@pytest.fixture
def guarded() -> Iterator[Guarded]:
    made = Guarded(ENGINE)
    yield made
    doomed = [*made.pids.values()]
    if made.process.poll() is None:
        # The daemons too: whoever is left holds the pipes open.
        doomed += psutil.Process(made.process.pid).children(recursive=True)
    made.process.kill()
    for process in doomed:
        with contextlib.suppress(psutil.NoSuchProcess):
            process.kill()
    made.process.communicate(timeout=10)


def test_a_killed_engine_takes_its_daemons_along_and_is_started_again(guarded: Guarded) -> None:
    guarded.learn()
    before = dict(guarded.pids)
    before["engine"].kill()
    guarded.learn()
    assert guarded.pids["engine"].pid != before["engine"].pid
    assert not before["daemon"].is_running()


def test_the_fourth_crash_in_a_minute_is_the_last(guarded: Guarded) -> None:
    for _ in range(4):
        guarded.learn()
        guarded.pids["engine"].kill()
    assert guarded.process.wait(10) == 128 + signal.SIGKILL
    assert guarded.process.stderr is not None
    said = guarded.process.stderr.read().splitlines()
    assert said[-1] == "iii: the engine has died 4 times in a minute; giving up"
    assert len(said) == 4


def test_a_signal_is_passed_on_and_the_exit_code_comes_back(guarded: Guarded) -> None:
    guarded.learn()
    guarded.process.send_signal(signal.SIGTERM)
    assert guarded.process.wait(10) == 7
    guarded.wait_for_death("daemon")


def test_an_engine_that_does_not_end_after_two_signals_is_killed(guarded: Guarded) -> None:
    guarded.learn()
    for _ in range(2):
        guarded.process.send_signal(signal.SIGINT)
        assert guarded.line() == "interrupted"
    assert guarded.process.wait(10) == 128 + signal.SIGKILL
    guarded.wait_for_death("daemon")


@pytest.mark.parametrize("is_second", [False, True])
def test_the_engine_learns_of_a_killed_guard(guarded: Guarded, is_second: bool) -> None:
    guarded.learn()
    if is_second:
        guarded.pids["engine"].kill()
        guarded.learn()
    guarded.process.kill()
    assert guarded.line() == "alone"


def test_signals_that_the_parent_ignored_or_blocked_are_taken_all_the_same() -> None:
    code = """
import os, signal
for number in (signal.SIGCHLD, signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
    signal.signal(number, signal.SIG_IGN)
signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
os.umask(0o777)
"""
    engine = """
import os, signal
names = "SIGCHLD", "SIGINT", "SIGTERM", "SIGHUP"
ignored = [name for name in names if signal.getsignal(getattr(signal, name)) is signal.SIG_IGN]
print(*ignored, signal.pthread_sigmask(signal.SIG_BLOCK, ()), oct(os.umask(0)), flush=True)
os.kill(os.getppid(), signal.SIGTERM)
signal.pause()
"""
    argv = [sys.executable, "-S", "-P", "-c", code + LAUNCH, sys.executable, "-S", "-c", engine]
    done = subprocess.run(argv, stdout=subprocess.PIPE, text=True, check=False, timeout=20)
    assert done.stdout == "SIGHUP set() 0o77\n"
    assert done.returncode == 128 + signal.SIGTERM


def test_closed_descriptors_are_not_given_to_others() -> None:
    engine = "import os; os._exit(all(os.path.exists(f'/proc/self/fd/{fd}') for fd in (0, 1, 2)))"
    code = f"import os; os.closerange(0, 3)\n{LAUNCH}"
    argv = [sys.executable, "-S", "-P", "-c", code, sys.executable, "-S", "-c", engine]
    assert subprocess.run(argv, check=False, timeout=20).returncode == 1


@pytest.mark.parametrize(
    ("code", "status"), [("", 0), ("raise SystemExit(2)", 2), ("import os; os.kill(os.getpid(), 2)", 130)]
)
def test_an_engine_that_ends_by_itself_is_not_started_again_unless_it_crashed(code: str, status: int) -> None:
    made = Guarded(f"print('once', flush=True); {code}")
    output, _ = made.process.communicate(timeout=20)
    assert (made.process.returncode, output.count("once")) == (status, 1 if status != 130 else 4)


def test_an_internal_error_asks_for_a_new_engine(tmp_path: Path) -> None:
    first = tmp_path / "first"
    made = Guarded(
        f"import pathlib, sys; p = pathlib.Path({str(first)!r})\nif p.exists(): sys.exit(0)\np.touch(); sys.exit(70)"
    )
    assert made.process.communicate(timeout=20)[1] == "iii: the engine has died (exit code 70); starting it again\n"
    assert made.process.returncode == 0


def test_it_needs_nothing_but_the_standard_library() -> None:
    code = f"import runpy, sys; runpy.run_path({guard.__file__!r}); print(sorted(sys.modules))"
    loaded = subprocess.run([sys.executable, "-S", "-c", code], capture_output=True, text=True, check=True).stdout
    assert not any(f"'{name}'" in loaded for name in ("asyncio", "subprocess", "iii", "msgspec", "inspect"))
    assert os.path.basename(guard.__file__) == "guard.py"
