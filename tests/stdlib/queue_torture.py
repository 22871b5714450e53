"""Jobs by the thousand while workers, the queue and the engine are killed; then the oracle looks at the history.

`python tests/stdlib/queue_torture.py --jobs 200000 --kills 200` is the whole of it; the tests run a short one.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from pathlib import Path
from threading import Event, Thread
from typing import Any

from live_project import Project, project
from queue_oracle import History, Run, duplicates, violations

from cli.connection import Connection
from iii import EngineNotRunning, InvocationError

PRODUCERS = 8
GROUPS = 4  # every second producer sends to an ordered queue, a group each
HALF = 4  # the concurrency of each of the two queues
BETWEEN_TRIES = 0.02

TOML = f"""
[engine]
listen = "off"
[workers.queue]
reload = "exclusive"
[workers.queue.config.queue_configs]
any = {{ backoff_ms = 5, max_retries = 50, concurrency = {HALF} }}
ordered = {{ type = "fifo", message_group_field = "group", backoff_ms = 5, max_retries = 50, concurrency = {HALF} }}
[workers.jobs]
run = "jobs.py"
instances = 2
"""

JOBS = """
import random, time
log = os.open(os.path.join(os.environ["III_PROJECT"], "history"), os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)

def note(*words):
    os.write(log, (" ".join(map(str, words)) + "\\n").encode())

def run(payload, metadata):
    attempt, me = metadata["iii.job"]["attempt"], (payload["n"], metadata["iii.job"]["attempt"], os.getpid())
    note("B", *me, time.monotonic())
    if random.random() < 0.02:
        note("F", *me, time.monotonic())
        raise ValueError("by chance")
    note("E", *me, time.monotonic())

worker.register_function("jobs::run", run)
"""


class Producer(Thread):
    """Sends its share of jobs, one after the other, each until it is acknowledged."""

    def __init__(self, running: Project, number: int, count: int, history: History) -> None:
        super().__init__(name=f"producer-{number}")
        self.running, self.number, self.count, self.history = running, number, count, history

    def run(self) -> None:
        """Go on until everything is acknowledged, with a new connection after each loss of one."""
        numbers = iter(range(self.number, self.count * PRODUCERS, PRODUCERS))
        n = next(numbers, None)
        while n is not None:
            try:
                with self.running.connect() as connection:
                    while n is not None:
                        if self.send(connection, n):
                            n = next(numbers, None)
            except (EngineNotRunning, OSError, ValueError, KeyError):
                time.sleep(BETWEEN_TRIES)

    def send(self, connection: Connection, n: int) -> bool:
        """Send a job; returns whether it was acknowledged."""
        ordered = self.number < GROUPS
        payload = {"n": n, "group": f"g{self.number}"}
        self.history.sent.add(n)
        if ordered:
            self.history.group_of[n] = payload["group"]
        action = {"type": "enqueue", "queue": "ordered" if ordered else "any", "key": f"job-{n}"}
        if "error" in connection.exchange("jobs::run", payload, 5_000, action=action):
            return False
        self.history.acked.add(n)
        return True


def torture(folder: Path, jobs: int, kills: int, seed: int) -> History:
    """Run it all and return the history. The kills are spread over the time that the producers take."""
    dice = random.Random(seed)
    history = History(concurrency=2 * HALF)
    with project(folder, TOML, {"jobs": JOBS}) as running:
        producers = [Producer(running, number, jobs // PRODUCERS, history) for number in range(PRODUCERS)]
        for producer in producers:
            producer.start()
        for _ in range(kills):
            wait_for_progress(history, dice.randint(1, max(2, jobs // (kills + 1))))
            kill_something(running, history, dice)
        for producer in producers:
            producer.join()
        drain(running)
        history.dead |= {letter["payload"]["n"] for queue in ("any", "ordered") for letter in dead(running, queue)}
        history.runs = runs_from((folder / "history").read_text())
    return history


def wait_for_progress(history: History, count: int) -> None:
    """Wait until so many more jobs are acknowledged, or nothing moves for a while."""
    goal, patience = len(history.acked) + count, Event()
    for _ in range(500):
        if len(history.acked) >= goal:
            return
        patience.wait(0.01)


def kill_something(running: Project, history: History, dice: random.Random) -> None:
    """Kill the engine (with all it has), the queue worker, or a worker that runs jobs."""
    victim = dice.choice(["engine", "queue", "jobs"])
    if victim == "engine":
        history.kills.append(time.monotonic())
        running.kill()
        # Its workers die with it, a moment later.
        history.kills.append(time.monotonic())
        running.start()
        return
    try:
        pid = running.pid_of(victim)
        os.kill(pid, signal.SIGKILL)
    except (InvocationError, EngineNotRunning, ProcessLookupError, StopIteration, TypeError):
        return
    if victim == "queue":
        history.kills.append(time.monotonic())
    else:
        history.worker_kills[pid] = time.monotonic()


def drain(running: Project) -> None:
    """Wait until nothing waits and nothing runs."""
    patience = Event()
    while True:
        try:
            stats = [running.call("engine::queue::topic_stats", {"topic": queue}) for queue in ("any", "ordered")]
        except InvocationError:
            stats = [{"depth": 1}]
        if not any(row["depth"] for row in stats):
            return
        patience.wait(0.05)


def dead(running: Project, queue: str) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = running.call("engine::queue::dlq_messages", {"topic": queue, "limit": 1000})
    return found


def runs_from(text: str) -> list[Run]:
    """Return the executions that the workers' log tells of."""
    runs: dict[tuple[int, int, int], Run] = {}
    for line in text.splitlines():
        kind, n, attempt, pid, moment = line.split()
        me = (int(n), int(attempt), int(pid))
        if kind == "B":
            runs[me] = Run(*me, float(moment))
        else:
            runs[me] = Run(*me, runs[me].begin, float(moment), kind == "F")
    return list(runs.values())


def main() -> int:
    """Run from the command line; 1 when an invariant is broken."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--jobs", type=int, default=200_000)
    parser.add_argument("--kills", type=int, default=200)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        history = torture(Path(folder), given.jobs, given.kills, given.seed)
    found = violations(history)
    print(
        f"seed {given.seed}: {len(history.acked)} acknowledged, {len(history.runs)} runs, {duplicates(history)} repeats"
    )
    print(
        f"{len(history.kills)} + {len(history.worker_kills)} kills, {len(history.dead)} dead, {len(found)} violations"
    )
    print("\n".join(found[:50]))
    return int(bool(found))


if __name__ == "__main__":
    sys.exit(main())
