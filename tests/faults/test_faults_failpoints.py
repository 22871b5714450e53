"""E08, E10: the engine or its queue dies at a named point of its code, or one of the engine's own tasks fails.

The points are names of functions: rename one, and its test says that it was never met.
"""

from __future__ import annotations

import contextlib
import os
import signal
from typing import Any

import pytest

from iii.errors import EngineNotRunning
from tests.support.failpoint import PATH, Failpoint
from tests.support.ground import eventually
from tests.support.scene import HEAD, Scene, is_alive

PID = "on('a::pid')(lambda _: os.getpid())\n"
# Inside the engine's supervisor, its watcher and its sampling: tasks that nothing works without.
TASKS = {
    "the life of": "RuntimeError before Generation._bury 1",
    "the watcher": "RuntimeError before Watcher._on_events 1",
    "vitals": "RuntimeError before Vitals._sample 1",
}
# One job at a time, so that a kill meets one at most.
QUEUE = """
[workers.queue]
reload = "exclusive"
[workers.queue.config.queue_configs]
line = { concurrency = 1, backoff_ms = 10, max_retries = 5 }
"""
JOBS = """
@on("jobs::run")
def run(payload, metadata=None):
    with open("ran", "a") as ran:
        print(payload, metadata["iii.job"]["attempt"], file=ran)
"""
# What starts and ends processes, routes calls and writes facts; the first of them while the engine starts.
STARTING = (
    *("after RunDir.claim 1", "after make_token 1", "after Prestart.begin 1"),
    *("before RunDir.announce 1", "before replace 1"),
)
ENGINE = (
    *("before Calls.admit_in_full 1", "after Calls.admit_in_full 2", "before Calls.settle 1", "after Calls.settle 2"),
    *("before Connection.flush 3", "after Connection.flush 3", "before Exchange.turn 5", "before Connection.drain 1"),
    *("before Roster.promote 1", "after Roster.promote 1", "before Roster.retire 1", "after Roster.detach 1"),
    *("before Switchboard.opened 1", "after Switchboard.opened 1", "before Switchboard.send_stop 1"),
    *("before Generation._bury 1", "before Seat._wait 1"),
)
# Around the queue's transactions (the n-th statement, the commit, the answer) and its deliveries.
STORAGE = (
    *(f"{when} Connection.execute {count}" for when in ("before", "after") for count in (1, 2, 3, 5, 8)),
    *("before Store._commit 1", "after Store._commit 1", "before Broker.enqueue 1", "after Broker.enqueue 1"),
    *("before Dispatcher._deliver 1", "after Dispatcher._attempt 1", "before Broker.settle 1", "after Broker.settle 1"),
    *("before open_database 1", "after open_database 1"),
)
QUICK = ("before Calls.settle 1", "after Roster.promote 1", "before Connection.execute 3", "after Store._commit 1")
slow = [pytest.mark.slow]


def points(*names: str) -> list[Any]:
    """The points as parameters; most of them for the long run only."""
    return [pytest.param(name, marks=[] if name in QUICK else slow) for name in names]


@pytest.mark.parametrize("task", TASKS)
def test_e10_an_engine_that_loses_a_task_ends_with_70_and_the_guard_starts_another(scene: Scene, task: str) -> None:
    failpoint = Failpoint(scene.folder, TASKS[task])
    scene.play({"a": PID}, environment=PATH | failpoint.variables)
    end_canary(scene)
    pids = [scene.engine_pid, scene.pid("a")]
    seen = len(scene.events)
    failpoint.arm()
    scene.script("a", PID + "# saved\n")
    failpoint.await_met()
    assert "exit code 70" in scene.await_line("the engine has died")
    scene.await_line(f"the engine has lost {task}")
    scene.await_line("RuntimeError: injected at")
    scene.wait("AllReady", after=seen)
    eventually(lambda: not any(map(is_alive, pids)))
    scene.attach_again()
    assert scene.ask("a::pid").value not in pids


@pytest.mark.parametrize("point", points(*STARTING, *ENGINE))
def test_e08_no_acknowledged_job_is_lost_wherever_the_engine_dies(scene: Scene, point: str) -> None:
    failpoint = Failpoint(scene.folder, f"kill {point}")
    if point in STARTING:
        failpoint.arm()
    open_with_queue(scene, failpoint, of_queue=False)
    first = enqueue(scene, 0, 3)
    if point not in STARTING:
        failpoint.arm()
    scene.script("a", PID + "# saved\n")
    with contextlib.suppress(EngineNotRunning, ProcessLookupError):  # whichever of them meets the point
        os.kill(scene.pid("b"), signal.SIGKILL)
    second = enqueue(scene, 3, 6)
    failpoint.await_met()
    assert_kept(scene, first | second | enqueue(scene, 6, 8))


@pytest.mark.parametrize("point", points(*STORAGE))
def test_e08_no_acknowledged_job_is_lost_wherever_the_queue_dies(scene: Scene, point: str) -> None:
    failpoint = Failpoint(scene.folder, f"kill {point}")
    if "open_database" in point:
        failpoint.arm()
    open_with_queue(scene, failpoint, of_queue=True)
    first = enqueue(scene, 0, 3)
    if "open_database" not in point:
        failpoint.arm()
    second = enqueue(scene, 3, 6)
    failpoint.await_met()
    assert_kept(scene, first | second | enqueue(scene, 6, 8))
    assert scene.row("queue")["generation"] == 2


def end_canary(scene: Scene) -> None:
    """What ends with the engine is no law here."""
    scene._canary.stop()
    scene.laws -= {"canary", "descriptors", "traceback"}


def open_with_queue(scene: Scene, failpoint: Failpoint, *, of_queue: bool) -> None:
    """Start the engine with a queue, its jobs, and two workers to save and to kill; one side has the failpoint."""
    scene.head += QUEUE
    if of_queue:
        rows = [f'{name} = "{value}"' for name, value in {**PATH, **failpoint.variables}.items()]
        scene.head += "\n".join(["[workers.queue.env]", *rows, ""])
    for name, body in {"jobs": JOBS, "a": PID, "b": PID.replace("a::", "b::")}.items():
        scene.worker(name, HEAD + body)
    scene.open(PATH if of_queue else PATH | failpoint.variables)
    end_canary(scene)


def enqueue(scene: Scene, begin: int, end: int) -> dict[int, bool]:
    """Enqueue these numbers, one after the other; return of each whether it was acknowledged."""
    acknowledged = {}
    for number in range(begin, end):
        try:
            outcome = scene.outcome("jobs::run", number, action={"type": "enqueue", "queue": "line"})
        except EngineNotRunning:
            outcome = {}
            eventually(lambda: can_call(scene))
        acknowledged[number] = "messageReceiptId" in (outcome.get("result") or {})
    return acknowledged


def can_call(scene: Scene) -> bool:
    """Whether there is an engine that answers."""
    try:
        return bool(scene.call("a::pid"))
    except (EngineNotRunning, FileNotFoundError):
        return False


def assert_kept(scene: Scene, acknowledged: dict[int, bool]) -> None:
    """Every job that was acknowledged has run, none that nobody sent, and at most one twice."""
    wanted = {number for number, is_acknowledged in acknowledged.items() if is_acknowledged}
    assert len(wanted) >= len(acknowledged) - 1  # one call was under way when the point was met
    eventually(lambda: wanted <= ran(scene).keys())
    runs = ran(scene)
    assert runs.keys() <= acknowledged.keys()
    assert sum(len(attempts) > 1 for attempts in runs.values()) <= 1
    assert all(attempts == sorted(set(attempts)) for attempts in runs.values())


def ran(scene: Scene) -> dict[int, list[int]]:
    """Return number -> attempts, as the jobs have written them down."""
    file = scene.folder / "ran"
    runs: dict[int, list[int]] = {}
    for line in file.read_text().splitlines() if file.exists() else ():
        number, attempt = map(int, line.split())
        runs.setdefault(number, []).append(attempt)
    return runs
