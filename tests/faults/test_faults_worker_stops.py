"""W10 to W13: what does not end by itself when its worker does."""

from __future__ import annotations

import os
import signal
import time

from tests.support.ground import eventually
from tests.support.scene import Scene, is_alive

# A program without the SDK: it neither knows `stop` nor minds SIGTERM.
STUBBORN = """
import signal
signal.signal(signal.SIGTERM, signal.SIG_IGN)
while True:
    time.sleep(60)
"""
# Ends at SIGTERM and leaves a child in its group that does not.
LEADER = """
import signal
if os.fork() == 0:
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    print("child", os.getpid(), file=sys.stderr, flush=True)
    while True:
        time.sleep(60)
signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
while True:
    time.sleep(60)
"""
# Calls that leave a daemon: a session of its own, its parent gone, the worker's descriptors still open.
DAEMONS = """
@on("a::daemon")
def daemon(payload):
    if os.fork() == 0:
        os.setsid()
        if os.fork() == 0:
            signal.signal(signal.SIGTERM, signal.SIG_IGN)
            say("daemon", os.getpid())
            while True:
                time.sleep(60)
        os._exit(0)
    os.wait()
on("a::pid")(lambda _: os.getpid())
"""


def test_w10_a_worker_that_ignores_sigterm_is_killed_and_the_stop_succeeds(scene: Scene) -> None:
    scene.program("a", STUBBORN, stop_timeout="1s")
    scene.open()
    pid = scene.pid("a")
    scene.caller.close()
    began = time.monotonic()
    assert scene.stop(signal.SIGTERM) == 0
    assert time.monotonic() - began >= 1.0  # it was given its time
    assert not is_alive(pid)


def test_w11_a_stop_is_over_when_the_whole_group_is(scene: Scene) -> None:
    scene.program("a", LEADER, stop_timeout="1s")
    scene.open()
    child = int(scene.said("a", "child"))
    assert scene.ask("engine::workers::stop", {"name": "a"}).value["workers"][0]["state"] == "stopped"
    assert not is_alive(child)
    assert scene.processes("a") == []


def test_w12_a_daemon_of_a_worker_ends_with_it(scene: Scene) -> None:
    scene.play({"a": DAEMONS})
    scene.ask("a::daemon")
    daemon = int(scene.said("a", "daemon"))
    assert os.getsid(daemon) != scene.pid("a")
    scene.ask("engine::workers::stop", {"name": "a"})
    assert not is_alive(daemon)


def test_w12_a_daemon_that_may_stay_stays_and_is_listed(scene: Scene) -> None:
    scene.play({"a": DAEMONS}, a={"keep_children": True})
    scene.ask("a::daemon")
    daemon = int(scene.said("a", "daemon"))
    try:
        scene.ask("engine::workers::stop", {"name": "a"})
        left = scene.wait("LeftBehind", "a")
        assert (left["pids"], left["on_purpose"]) == ([daemon], True)
        assert is_alive(daemon)
    finally:
        os.kill(daemon, signal.SIGKILL)
    eventually(lambda: not is_alive(daemon))


def test_w13_a_daemon_that_holds_the_pipes_delays_no_restart(scene: Scene) -> None:
    scene.play({"a": DAEMONS}, a={"keep_children": True})
    scene.ask("a::daemon")
    daemon = int(scene.said("a", "daemon"))
    try:
        old = scene.kill("a")
        began = time.monotonic()
        eventually(lambda: not is_alive(old))  # until then it may still read a call, and take it along
        assert scene.ask("a::pid").value != old
        assert time.monotonic() - began < 10  # the daemon would hold the pipe for ever
        assert is_alive(daemon)
    finally:
        os.kill(daemon, signal.SIGKILL)
    eventually(lambda: not is_alive(daemon))
