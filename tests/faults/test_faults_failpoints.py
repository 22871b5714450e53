"""E08, E10: the engine or a durable worker dies at a named point of its code, or one of the engine's tasks fails."""

from __future__ import annotations

from typing import Any

import pytest
from failpoint import Failpoint
from ground import eventually
from scene import Scene, is_alive

# Inside the engine's supervisor, its watcher and its sampling: tasks that nothing works without.
TASKS = {
    "the life of": "RuntimeError before Generation._bury 1",
    "the watcher": "RuntimeError before Watcher._on_events 1",
    "vitals": "RuntimeError before Vitals._sample 1",
}


def play_with(scene: Scene, point: str, scripts: dict[str, str], **keys: Any) -> Failpoint:
    """Start a project whose engine has this failpoint, not armed yet."""
    scene.laws -= {"canary", "descriptors", "traceback"}  # they end with the engine
    failpoint = Failpoint(scene.folder, point)
    scene.play(scripts, environment=failpoint.environment, **keys)
    scene._canary.stop()
    return failpoint


@pytest.mark.parametrize("task", TASKS)
def test_e10_an_engine_that_loses_a_task_ends_with_70_and_the_guard_starts_another(scene: Scene, task: str) -> None:
    failpoint = play_with(scene, TASKS[task], {"a": "on('a::pid')(lambda _: os.getpid())\n"})
    pids = [scene.engine_pid, scene.pid("a")]
    seen = len(scene.events)
    failpoint.arm()
    scene.script("a", "on('a::pid')(lambda _: os.getpid())  # saved\n")
    failpoint.await_met()
    assert "exit code 70" in scene.await_line("the engine has died")
    scene.await_line(f"the engine has lost {task}")
    scene.await_line("RuntimeError: injected at")
    scene.wait("AllReady", after=seen)
    eventually(lambda: not any(map(is_alive, pids)))
    scene.attach_again()
    assert scene.ask("a::pid").value not in pids
