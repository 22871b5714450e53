"""E01 to E07, E10: the engine or its guard dies, is asked to end, or meets its own mistakes."""

from __future__ import annotations

import json
import os
import pty
import signal

import psutil
import pytest

from tests.support.ground import BOUND, eventually
from tests.support.scene import Scene, is_alive

PID = "on('{0}::pid')(lambda _: os.getpid())\n"
# Neither reads its input nor minds signals, in a session that no group signal reaches.
LOOP = """
import signal
if os.fork() == 0:
    os.setsid()
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("daemon", os.getpid(), file=sys.stderr, flush=True)
    while True:
        time.sleep(60)
while True:
    time.sleep(60)
"""
ONCE = """
@on("a::once")
def once(payload):
    with open("runs", "a") as runs:
        print(payload, file=runs)
    time.sleep(60)
"""
HOLD = """
@on("a::hold")
def hold(payload):
    say("holding")
    while not os.path.exists("go"):
        time.sleep(0.01)
    return "held"
on("a::pid")(lambda _: os.getpid())
"""


def _play_with_daemon(scene: Scene) -> list[int]:
    """Start a worker on the SDK and one that leaves a daemon; return the pids of everything below the guard."""
    scene.laws -= {"canary", "descriptors"}  # they end with the engine that is killed
    scene.program("loop", LOOP, stop_timeout="300ms")
    scene.play({"a": PID.format("a")})
    daemon = int(scene.said("loop", "daemon"))
    pids = [scene.engine_pid, scene.pid("a"), scene.pid("loop"), scene.pid("canary"), daemon]
    scene._canary.stop()
    return pids


def test_e01_a_killed_engine_takes_everything_with_it_and_the_guard_starts_another(scene: Scene) -> None:
    pids = _play_with_daemon(scene)
    held = scene.caller.begin("a::pid")
    held.result()
    seen = len(scene.events)
    os.kill(pids[0], signal.SIGKILL)
    eventually(lambda: not any(map(is_alive, pids)))
    scene.wait("AllReady", after=seen)
    scene.said("loop", "daemon", after=seen)
    assert scene.engine_pid != pids[0]
    assert scene.guard.poll() is None
    assert "starting it again" in scene.await_line("the engine has died")
    with scene.connection() as connection:
        assert connection.call("a::pid") not in pids


@pytest.mark.timeout(120)
def test_e01_an_engine_that_dies_four_times_in_a_minute_is_left_dead(scene: Scene) -> None:
    scene.laws -= {"canary", "descriptors", "exit"}
    scene.play({"a": PID.format("a")})
    scene._canary.stop()
    for _ in range(4):
        seen = len(scene.events)
        os.kill(scene.engine_pid, signal.SIGKILL)
        if _ < 3:
            scene.wait("AllReady", after=seen)
            scene.facts()
    assert scene.await_exit() == 128 + signal.SIGKILL
    assert "giving up" in "".join(scene.complaints)


# Of its parent it has nothing but the limits: no session, no environment, no open file.
BARE = """
import os, signal, subprocess, sys
code = (
    "import os, signal, time\\nsignal.signal(signal.SIGTERM, signal.SIG_IGN)\\n"
    "os.setsid()\\nif os.fork(): os._exit(0)\\n"
    "print(os.getpid(), file=sys.stderr, flush=True)\\nos.closerange(0, 3)\\ntime.sleep(600)"
)
bare = subprocess.run([sys.executable, "-c", "import sys\\n" + code], env={}, stderr=subprocess.PIPE, text=True)
print("bare", bare.stderr.strip(), file=sys.stderr, flush=True)
"""


def test_e02_a_killed_guard_leaves_nothing_because_the_engine_ends_it_all(scene: Scene) -> None:
    scene.laws -= {"exit"}
    scene.program("bare", BARE + LOOP, stop_timeout="300ms")
    pids = _play_with_daemon(scene)
    pids.append(int(scene.said("bare", "bare")))
    scene.guard.kill()
    scene.await_exit()
    eventually(lambda: not any(map(is_alive, pids)))
    assert "the process above the engine was killed: stopping" in scene.wait("Notice")["text"]
    assert scene.seen("AllStopped")


def test_e03_what_a_killed_guard_and_engine_leave_is_swept_by_the_next_start(scene: Scene) -> None:
    scene.laws -= {"exit"}
    scene.program("bare", BARE + LOOP, stop_timeout="300ms")
    pids = _play_with_daemon(scene)
    left = {pids.pop(), int(scene.said("bare", "bare"))}
    os.kill(pids[0], signal.SIGSTOP)  # so that neither can clean up for the other
    scene.guard.kill()
    os.kill(pids[0], signal.SIGKILL)
    scene.await_exit()
    eventually(lambda: not any(map(is_alive, pids)))
    assert all(map(is_alive, left))  # sessions of their own and deaf: nothing but tags and marks lead to them
    seen = len(scene.events)
    scene.launch("dev", "--json")
    notice = scene.wait("Notice", after=seen)
    assert all(str(pid) in notice["text"] for pid in left)
    assert not any(map(is_alive, left))
    scene.wait("AllReady", after=seen)
    scene.facts()


def test_e04_after_a_crash_the_next_start_serves_at_once(scene: Scene) -> None:
    # Jobs of a queue are shown in tests/stdlib; here the calls: none is run again by itself.
    scene.laws -= {"canary", "descriptors"}
    scene.play({"a": ONCE + PID.format("a")})
    scene._canary.stop()
    call = scene.caller.begin("a::once", 1)
    eventually((scene.folder / "runs").exists)
    seen = len(scene.events)
    os.kill(scene.engine_pid, signal.SIGKILL)
    with pytest.raises(ConnectionError):
        call.result(BOUND)
    scene.wait("AllReady", after=seen)
    scene.facts()
    assert scene.call("a::pid")
    assert (scene.folder / "runs").read_text() == "1\n"


def test_e05_sigterm_refuses_new_calls_finishes_started_ones_and_exits_0(scene: Scene) -> None:
    scene.laws -= {"canary"}
    scene.play({"a": HOLD})
    scene._canary.stop()
    started = scene.caller.begin("a::hold")
    scene.said("a", "holding")
    scene.guard.send_signal(signal.SIGTERM)
    scene.wait("Holding", "a")
    assert scene.ask("a::pid").code == "engine_stopping"
    (scene.folder / "go").touch()
    assert started.result(BOUND).value == "held"
    assert scene.await_exit() == 0
    assert scene.seen("AllStopped")


def test_e05_a_call_that_was_given_up_holds_up_no_stop(scene: Scene) -> None:
    # Its caller has heard TIMEOUT and its worker will never answer: the ten seconds of a drain are not for it.
    scene.program("deaf", 'offer("deaf::hear")\ncall = take()\nos.wait() if os.fork() else time.sleep(600)\n')
    scene.open()
    assert scene.ask("deaf::hear", deadline_ms=200).code == "TIMEOUT"
    scene._canary.stop()
    scene.guard.send_signal(signal.SIGTERM)
    assert scene.await_exit() == 0
    assert scene.seen("AllStopped")[0]["seconds"] < 8


def test_e06_a_second_sigint_kills_at_once_and_exits_130(scene: Scene) -> None:
    scene.laws -= {"canary", "exit"}
    scene.play({"a": HOLD})
    scene._canary.stop()
    started = scene.caller.begin("a::hold")
    scene.said("a", "holding")
    scene.guard.send_signal(signal.SIGINT)
    scene.wait("Holding", "a")
    scene.guard.send_signal(signal.SIGINT)
    assert scene.await_exit() == 130
    error = started.exception(BOUND)  # the connection may end before the outcome is written
    assert isinstance(error, ConnectionError) or started.result().code == "invocation_stopped"


def test_e07_hangup_stops_and_a_flood_of_harmless_signals_does_nothing(scene: Scene) -> None:
    scene.laws -= {"canary"}
    scene.play({"a": PID.format("a")})
    for _ in range(200):
        os.kill(scene.engine_pid, signal.SIGCHLD)
        os.kill(scene.guard.pid, signal.SIGCHLD)
        os.kill(scene.engine_pid, signal.SIGPIPE)
    assert scene.ask("a::pid").value == scene.pid("a")
    assert not scene._canary.errors
    scene.caller.close()
    assert scene.stop(signal.SIGHUP) == 0


def test_e07_an_engine_under_nohup_outlives_its_terminal(scene: Scene) -> None:
    scene.start("dev", "--json", prefix=("nohup",))
    scene.attach()
    scene.guard.send_signal(signal.SIGHUP)
    assert scene.ask("canary::sing", 1).value == 1


def test_e07_a_terminal_that_closes_stops_the_engine_without_a_traceback(scene: Scene) -> None:
    scene.write_project()
    log = scene.folder / "stderr"
    pid, terminal = pty.fork()
    if pid == 0:
        os.chdir(scene.folder)
        os.dup2(os.open(log, os.O_WRONLY | os.O_CREAT, 0o600), 2)
        os.execv("/bin/sh", ["sh", "-c", f"exec {_python()} -m cli.main dev"])
    facts = scene.folder / ".iii/run/engine.json"
    eventually(lambda: facts.exists() and json.loads(facts.read_text())["ready"])
    engine = json.loads(facts.read_text())["pid"]
    os.close(terminal)
    assert os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1]) == 0
    assert not is_alive(engine)
    assert "Traceback" not in log.read_text()


def _python() -> str:
    import sys

    from tests.support.ground import ROOT

    return f"env PYTHONPATH={ROOT} {sys.executable}"


def test_e09_a_client_of_a_killed_engine_hears_at_once_and_finds_the_next(scene: Scene) -> None:
    # A client of the unix socket; SDKs over WebSocket are shown in tests/gateway.
    scene.laws -= {"canary", "descriptors"}
    scene.play({"a": HOLD})
    scene._canary.stop()
    for _ in range(2):
        waiting = scene.caller.begin("a::hold")
        scene.said("a", "holding", count=_ + 1)
        seen = len(scene.events)
        os.kill(scene.engine_pid, signal.SIGKILL)
        with pytest.raises(ConnectionError):
            waiting.result(BOUND)
        scene.wait("AllReady", after=seen)
        scene.attach_again()
        assert scene.ask("a::pid").value


def test_e01_the_guard_and_the_engine_are_two_processes_and_the_guard_is_small(scene: Scene) -> None:
    scene.play({})
    guard = psutil.Process(scene.guard.pid)
    assert psutil.Process(scene.engine_pid).ppid() == guard.pid
    assert guard.num_threads() == 1
