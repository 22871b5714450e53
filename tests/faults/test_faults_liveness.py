"""W08, W09, E11, E12: processes that live and do nothing, and engines that were not there to notice.

The bounds themselves (5, 15 and 10 seconds) are held with a handed-in clock in tests/engine/health/test_liveness.py.
"""

from __future__ import annotations

import os
import signal
import time

import psutil
import pytest

from tests.support.scene import Scene, is_alive

PID = "on('a::pid')(lambda _: os.getpid())\n"
SPIN = f"""{PID}
@on("a::spin")
def spin(seconds):
    until = time.monotonic() + seconds
    while time.monotonic() < until:
        pass
    return os.getpid()
"""
# Holds the interpreter's lock for the whole time: no thread of the SDK can answer a ping meanwhile.
HOG = f"""{PID}
import ctypes
@on("a::hog")
def hog(seconds):
    ctypes.PyDLL(None).sleep(seconds)
    return os.getpid()
"""

slow = [pytest.mark.slow, pytest.mark.timeout(180)]


def test_w08_calls_of_a_stopped_worker_end_at_their_own_deadline(scene: Scene) -> None:
    scene.play({"a": PID})
    pid = scene.kill("a", signal.SIGSTOP)
    outcome = scene.ask("a::pid", deadline_ms=300)
    assert outcome.code == "TIMEOUT"
    assert outcome.seconds > 0.29  # the engine's clock and ours are read at other moments
    os.kill(pid, signal.SIGCONT)
    assert scene.ask("a::pid").value == pid


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_w08_a_stopped_worker_is_replaced_after_fifteen_seconds_of_silence(scene: Scene) -> None:
    scene.play({"a": PID})
    pid = scene.kill("a", signal.SIGSTOP)
    began = time.monotonic()
    # A deadline so late that the silence is noticed before the call counts as overdue.
    assert scene.ask("a::pid", deadline_ms=7000).code == "TIMEOUT"
    reason = scene.wait("Exited", "a")["reason"]
    assert 9 <= time.monotonic() - began <= 20  # fifteen; it had been heard up to five seconds before
    assert "gave no sign of life" in reason["words"]
    assert reason["signal"] == signal.SIGKILL
    assert scene.ask("a::pid").value != pid


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_w09_a_handler_that_loops_past_its_deadline_costs_its_process_after_a_grace(scene: Scene) -> None:
    scene.play({"a": SPIN})
    pid = scene.pid("a")
    assert scene.ask("a::spin", 3600, deadline_ms=1000).code == "TIMEOUT"
    began = time.monotonic()
    reason = scene.wait("Exited", "a")["reason"]
    assert time.monotonic() - began >= 9
    assert "overdue" in reason["words"]
    assert reason["blamed"]
    assert scene.ask("a::pid").value != pid


@pytest.mark.slow
@pytest.mark.timeout(180)
@pytest.mark.parametrize(("body", "function_id"), [(SPIN, "a::spin"), (HOG, "a::hog")])
def test_w09_a_slow_handler_within_its_deadline_is_left_alone(scene: Scene, body: str, function_id: str) -> None:
    scene.play({"a": body})
    pid = scene.pid("a")
    assert scene.ask(function_id, 20, deadline_ms=30_000).value == pid
    assert scene.ask("a::pid").value == pid
    assert scene.row("a")["restarts"] == 0


def _stop_for(seconds: float, pids: list[int]) -> None:
    for pid in pids:
        os.kill(pid, signal.SIGSTOP)
    time.sleep(seconds)  # the fault itself is the time that passes
    for pid in reversed(pids):
        os.kill(pid, signal.SIGCONT)


def test_e11_answers_that_came_while_the_engine_stood_still_count_before_deadlines(scene: Scene) -> None:
    scene.play({"a": "@on('a::nap')\ndef nap(payload):\n    say('napping')\n    time.sleep(0.5)\n    return 'awake'\n"})
    call = scene.caller.begin("a::nap", deadline_ms=1500)
    scene.said("a", "napping")
    _stop_for(3.0, [scene.engine_pid])
    assert call.result().value == "awake"
    assert "stood still for" in scene.wait("Notice")["text"]
    assert scene.ask("engine::counters::list").value["counters"]["held_up"] == 1
    assert not scene.seen("Exited")


@pytest.mark.parametrize("seconds", [4.0, pytest.param(60.0, marks=slow)])
def test_e12_a_suspended_tree_goes_on_where_it_was(scene: Scene, seconds: float) -> None:
    scene.laws.discard("canary")  # its calls meet their deadline in the long version
    scene.play({name: PID.replace("a::", f"{name}::") for name in "abc"})
    pids = {name: scene.pid(name) for name in "abc"}
    scene._canary.stop()
    tree = [scene.guard.pid, *(child.pid for child in psutil.Process(scene.guard.pid).children(recursive=True))]
    _stop_for(seconds, tree)
    assert {name: scene.ask(f"{name}::pid").value for name in "abc"} == pids
    assert all(map(is_alive, tree))
    assert not scene.seen("Exited")
    assert not scene.seen("Reloaded")
