"""W01 to W05, W14, W17, W20: a worker's process ends while it runs calls, and while it runs none."""

from __future__ import annotations

import os
import signal

import pytest

from tests.support.ground import eventually
from tests.support.scene import Scene, is_alive

WORK = """
done = []
@on("a::work")
def work(payload):
    if payload == "hang":
        say("hanging")
        time.sleep(600)
    done.append(payload)
    return [os.getpid(), len(done)]
"""
# Hangs the first time it is asked, whichever process that is; the folder remembers.
ONCE = """
@on("a::work", metadata={"idempotent": True})
def work(payload):
    with open("starts", "a") as starts:
        print(payload, os.getpid(), current_invocation().invocation_id, file=starts)
    if payload == "hang" and open("starts").read().count("hang") == 1:
        say("hanging")
        time.sleep(600)
    return os.getpid()
"""
CRASH = """
import ctypes
@on("a::crash")
def crash(payload):
    ctypes.string_at(0)
@on("a::pid")
def pid(payload):
    return os.getpid()
"""


def test_w01_kill_ends_the_started_call_and_the_waiting_ones_run_in_order_on_the_new_process(scene: Scene) -> None:
    scene.play({"a": WORK}, a={"concurrency": 1})
    started = scene.caller.begin("a::work", "hang")
    scene.said("a", "hanging")
    waiting = [scene.caller.begin("a::work", number) for number in range(3)]
    old = scene.kill("a")
    outcome = started.result()
    assert outcome.code == "invocation_stopped"
    assert {"reason": "worker_exited", "started": True, "signal": 9}.items() <= outcome.details.items()
    values = [future.result().value for future in waiting]
    assert [order for _, order in values] == [1, 2, 3]
    assert {pid for pid, _ in values} == {scene.pid("a")} != {old}
    assert scene.row("a")["restarts"] == 1


def test_w02_an_idempotent_call_runs_again_after_the_kill(scene: Scene) -> None:
    # Attempts show in no trace yet: what shows is that one invocation started twice, in two processes.
    scene.play({"a": ONCE}, a={"concurrency": 1})
    calls = [scene.caller.begin("a::work", "hang")]
    scene.said("a", "hanging")
    calls += [scene.caller.begin("a::work", number) for number in range(3)]
    old = scene.kill("a")
    assert {call.result().value for call in calls} == {scene.pid("a")}
    starts = [line.split() for line in (scene.folder / "starts").read_text().splitlines()]
    first, second = [start for start in starts if start[0] == "hang"]
    assert (first[1], first[2]) == (str(old), second[2])
    assert len(starts) == 5


def test_w03_callers_wait_out_the_restart_of_an_idle_worker(scene: Scene) -> None:
    scene.play({"a": CRASH})
    old = scene.kill("a")
    # A process that is being killed may still read: callers come once it is dead, before or after that is noticed.
    eventually(lambda: not is_alive(old))
    calls = [scene.caller.begin("a::pid") for _ in range(50)]
    scene.wait("Exited", "a")
    calls += [scene.caller.begin("a::pid") for _ in range(50)]
    assert {call.result().value for call in calls} == {scene.pid("a")} != {old}
    assert scene.seen("Exited", "a")[0]["delay"] <= 0.12


def test_w04_a_raising_handler_is_an_error_with_its_traceback_and_no_restart(scene: Scene) -> None:
    scene.play({"a": "@on('a::fail')\ndef fail(payload):\n    raise LookupError('no such thing')\n"})
    pid = scene.pid("a")
    outcome = scene.ask("a::fail")
    assert outcome.code == "invocation_failed"
    assert outcome.error is not None
    assert "no such thing" in outcome.error["message"]
    assert "LookupError" in str(outcome.error)
    assert "a.py" in outcome.error["stacktrace"]
    assert scene.pid("a") == pid
    assert scene.row("a")["restarts"] == 0


@pytest.mark.parametrize("code", [0, 3])
def test_w05_a_handler_that_ends_the_process_names_the_exit_code_and_is_started_again(scene: Scene, code: int) -> None:
    body = "@on('a::leave')\ndef leave(payload):\n    os._exit(payload)\non('a::pid')(lambda _: os.getpid())\n"
    scene.play({"a": body}, a={"restart": "always"})
    old = scene.pid("a")
    outcome = scene.ask("a::leave", code)
    assert outcome.code == "invocation_stopped"
    assert {"reason": "worker_exited", "exit_code": code}.items() <= outcome.details.items()
    assert scene.ask("a::pid").value != old


def test_w05_sys_exit_in_a_handler_is_that_calls_error_only(scene: Scene) -> None:
    # SystemExit never leaves the SDK's thread: one call's mistake does not end the other calls' process.
    scene.play({"a": "@on('a::leave')\ndef leave(payload):\n    sys.exit(0)\n"})
    pid = scene.pid("a")
    outcome = scene.ask("a::leave")
    assert outcome.code == "invocation_failed"
    assert "SystemExit" in str(outcome.error)
    assert scene.pid("a") == pid


@pytest.mark.parametrize("crashes", [7, pytest.param(24, marks=pytest.mark.slow)])
def test_w14_a_poisonous_call_blames_itself_and_not_the_worker(scene: Scene, crashes: int) -> None:
    scene.play({"a": CRASH})
    for number in range(1, crashes + 1):
        outcome = scene.ask("a::crash")
        assert outcome.code == "invocation_stopped"
        assert outcome.details["signal"] == signal.SIGSEGV
        assert scene.ask("a::pid").value
        exited = scene.wait("Exited", "a", count=number)
        assert (exited["reason"]["blamed"], exited["limit"]) == (True, 0)
        assert (exited["delay"] > 0.15) == (number > 20)
    assert not scene.seen("Failed", "a")


def test_w17_a_process_that_is_killed_twice_dies_once(scene: Scene) -> None:
    scene.play({"a": CRASH})
    for number in range(1, 4):
        pid = scene.kill("a")
        os.kill(pid, signal.SIGKILL)
        eventually(lambda pid=pid: not is_alive(pid))  # until then it may still read a call, and take it along
        assert scene.ask("a::pid").value != pid
        assert len(scene.seen("Exited", "a")) == number
    assert scene.row("a")["restarts"] == 3
    assert scene.row("a")["generation"] == 4


@pytest.mark.parametrize("repeats", [4, pytest.param(200, marks=[pytest.mark.slow, pytest.mark.timeout(600)])])
def test_w20_two_deaths_and_a_reload_in_one_tick_are_three_outcomes(scene: Scene, repeats: int) -> None:
    body = "on('{0}::answer')(lambda _: [os.getpid(), {1}])\n"
    scene.play({name: body.format(name, 0) for name in "abc"})
    for number in range(1, repeats + 1):
        before = {name: scene.pid(name) for name in "abc"}
        seen = len(scene.events)
        scene.script("c", body.format("c", number))
        for name in "ab":
            os.kill(before[name], signal.SIGKILL)
        scene.wait("Reloaded", "c", after=seen)
        for name in "ab":
            eventually(lambda name=name: scene.row(name)["state"] in ("ready", "backoff", "failed"))
            if len(scene.seen("Exited", name)) > 4 or scene.seen("Failed", name, after=seen):
                # What makes the long run long: the policy's own delays, which are not what is shown here.
                scene.ask("engine::workers::restart", {"name": name})
        pids = {name: scene.ask(f"{name}::answer").value[0] for name in "abc"}
        assert all(pids[name] != before[name] for name in "abc")
        assert scene.ask("c::answer").value[1] == number
        eventually(lambda before=before: not any(map(is_alive, before.values())))
