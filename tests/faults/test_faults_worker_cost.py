"""W15, W16: what many deaths leave behind, and whom an old pid belongs to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from iii.engine.supervision.process import Command, Process, SpawnError, spawn
from tests.support.ground import eventually
from tests.support.scene import Scene, is_alive

MIB = 1024 * 1024
LAST_PID = Path("/proc/sys/kernel/ns_last_pid")


@pytest.mark.parametrize("cycles", [12, pytest.param(1000, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])])
def test_w15_crash_cycles_leave_no_descriptor_no_thread_no_zombie_and_no_memory(scene: Scene, cycles: int) -> None:
    scene.play({"a": "on('a::pid')(lambda _: os.getpid())\n"})
    engine = psutil.Process(scene.engine_pid)

    def crash(times: int) -> int:
        for _ in range(times):
            pid = scene.kill("a")
            # At once, whatever the policy says: its delays would make a day of a thousand.
            scene.ask("engine::workers::restart", {"name": "a"})
            eventually(lambda pid=pid: not is_alive(pid))
            assert scene.ask("a::pid").value != pid
        return int(engine.memory_info().rss)

    before = crash(max(5, cycles // 10))  # what the first of them load stays loaded
    assert crash(cycles) - before <= 2 * MIB
    assert not [child for child in engine.children() if child.status() == psutil.STATUS_ZOMBIE]


def kill(scene: Scene) -> int:
    """Kill the worker, wait until it is back, and return the pid that nobody has any more."""
    pid = scene.kill("a")
    eventually(lambda: not psutil.pid_exists(pid))
    assert scene.ask("a::pid").value != pid
    return pid


def stranger_with(pid: int) -> subprocess.Popen[bytes]:
    """Start a process that has nothing to do with us and has this free pid, as after a wrap of the kernel's pids.

    Only root may choose a pid. Anybody else gets a stranger with a pid of its own, and the next test is the nearest.
    """
    is_free_to_choose = os.access(LAST_PID, os.W_OK)
    for _ in range(500):  # others start processes too, and may come first
        if is_free_to_choose:
            LAST_PID.write_text(str(pid - 1))
        started = subprocess.Popen(["sleep", "60"], start_new_session=True)
        if started.pid == pid or not is_free_to_choose:
            return started
        started.kill()
        started.wait()
    raise TimeoutError(f"pid {pid} was never free")


def test_w16_a_stranger_who_has_the_old_pid_of_a_worker_is_left_alone(scene: Scene) -> None:
    scene.play({"a": "on('a::pid')(lambda _: os.getpid())\n"})
    old = kill(scene)
    with stranger_with(old) as stranger:
        scene.ask("engine::workers::restart", {"name": "a"})
        kill(scene)
        scene.ask("engine::workers::stop", {"name": "a"})
        assert stranger.poll() is None
        scene.caller.close()
        assert scene.stop() == 0
        assert stranger.poll() is None
        stranger.kill()


def test_w16_a_reaped_process_is_never_signaled_whoever_has_its_pid_now(tmp_path: Path) -> None:
    # Wrapping the pids of a kernel with four million of them takes hours: the decoy gets the old pid by our own hand.
    ended = spawn(Command((sys.executable, "-c", "pass"), tmp_path, os.environ.copy(), wire=False))
    assert not isinstance(ended, SpawnError)
    assert ended.reap() == 0
    os.close(ended.stderr_fd)
    with subprocess.Popen(["sleep", "60"], start_new_session=True) as decoy:
        ended.pid = decoy.pid
        ended.signal_group(signal.SIGKILL)
        assert is_alive(decoy.pid)
        unreaped = Process(decoy, -1, -1, -1, tag=0)
        unreaped.signal_group(signal.SIGKILL)  # the same on one that is ours to signal
        assert decoy.wait(10) == -signal.SIGKILL
