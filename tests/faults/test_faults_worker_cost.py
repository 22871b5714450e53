"""W15, W16: what many deaths leave behind, and whom an old pid belongs to."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest
from scene import Scene, is_alive

from iii.engine.process import Command, Process, SpawnError, spawn


@pytest.mark.parametrize("cycles", [12, pytest.param(1000, marks=[pytest.mark.slow, pytest.mark.timeout(1200)])])
def test_w15_crash_cycles_leave_no_descriptor_no_thread_no_zombie_and_no_memory(scene: Scene, cycles: int) -> None:
    scene.play({"a": "on('a::pid')(lambda _: os.getpid())\n"})
    engine = psutil.Process(scene.engine_pid)
    before = engine.memory_info().rss
    for _ in range(cycles):
        pid = scene.kill("a")
        # At once, whatever the policy says: its delays would make a day of a thousand.
        scene.ask("engine::workers::restart", {"name": "a"})
        assert scene.ask("a::pid").value != pid
    assert not [child for child in engine.children() if child.status() == psutil.STATUS_ZOMBIE]
    assert engine.memory_info().rss - before < 16 << 20


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
        unreaped = Process(decoy, -1, -1, -1)
        unreaped.signal_group(signal.SIGKILL)  # the same on one that is ours to signal
        assert decoy.wait(10) == -signal.SIGKILL
