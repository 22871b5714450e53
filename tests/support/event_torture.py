"""Writes whose events must all arrive, in order for each key, while guard, engine, state worker and binder are killed.

The bound worker needs a second to start, so that writes are acknowledged long before it is back. `python -m
tests.support.event_torture` is the whole of it (10,000 acknowledged writes, 30 kills); the tests run a short one.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sys
import tempfile
import time
from collections import Counter
from contextlib import suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread

from iii import EngineNotRunning, InvocationError
from tests.support.live_project import BOUND, Project, project

CLIENTS = 4
KEYS_OF_CLIENT = 3
RETRY_INTERVAL = 0.02
# How long a stopped process stays stopped, in seconds.
PAUSE = 0.5
TOML = (
    '[engine]\nlisten = "off"\n[workers.state]\n[workers.stream.config]\nport = 0\n[workers.bound]\nrun = "bound.py"\n'
)
BOUND_WORKER = """
import os, time
time.sleep(1)  # so long it takes to start
seen = os.open("seen", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
def changed(event):
    os.write(seen, f"{event['key']} {event['new_value']}\\n".encode())
def streamed(event):
    os.write(seen, f"{event['id']} {event['event']['data']}\\n".encode())
worker.register_function("bound::changed", changed)
worker.register_function("bound::streamed", streamed)
worker.register_trigger({"type": "state", "function_id": "bound::changed", "config": {"scope": "s"}})
worker.register_trigger({"type": "stream", "function_id": "bound::streamed", "config": {"stream_name": "s"}})
"""


@dataclass
class Outcome:
    """Acknowledged writes by key in their order, what the bound worker saw by key, and the kills."""

    acknowledged: dict[str, list[int]] = field(default_factory=dict)
    seen: dict[str, list[int]] = field(default_factory=dict)
    kills: Counter[str] = field(default_factory=Counter)
    seconds: float = 0.0

    @property
    def count(self) -> int:
        """How many writes were acknowledged."""
        return sum(map(len, self.acknowledged.values()))

    def lost(self) -> list[str]:
        """Return the acknowledged writes without an event."""
        return [
            f"{key} {value}"
            for key, values in self.acknowledged.items()
            for value in sorted(set(values) - set(self.seen.get(key, ())))
        ]

    def disordered(self) -> list[str]:
        """Return the keys whose events came, for the first time each, in another order than their writes."""
        return [key for key, values in self.seen.items() if (first := list(dict.fromkeys(values))) != sorted(first)]


class Client(Thread):
    """Writes growing numbers to keys of its own, one after the other."""

    def __init__(self, running: Project, number: int, share: int) -> None:
        super().__init__(name=f"client-{number}")
        self.running, self.share = running, share
        self.acknowledged = {f"{number}-{key}": list[int]() for key in range(KEYS_OF_CLIENT)}
        self.count = 0

    def run(self) -> None:
        """Go on until the share is acknowledged, with a new connection after each loss of one."""
        number = 0
        while self.count < self.share:
            try:
                with self.running.connect() as connection:
                    while self.count < self.share:
                        number += 1
                        key = list(self.acknowledged)[number % KEYS_OF_CLIENT]
                        if key.endswith("0"):
                            item = {"stream_name": "s", "group_id": "g", "item_id": key, "data": number}
                            answer = connection.request("stream::set", item, 20_000)
                        else:
                            answer = connection.request(
                                "state::set", {"scope": "s", "key": key, "value": number}, 20_000
                            )
                        if "error" in answer:
                            time.sleep(RETRY_INTERVAL)  # the worker is away
                        else:
                            self.acknowledged[key].append(number)
                            self.count += 1
            except (EngineNotRunning, OSError, ValueError, KeyError):
                time.sleep(RETRY_INTERVAL)  # the engine is away


def torture(folder: Path, writes: int, kills: int, seed: int) -> Outcome:
    """Run it all. The kills are spread over the writes."""
    dice, began, outcome = random.Random(seed), time.monotonic(), Outcome()
    with project(folder, TOML, {"bound": BOUND_WORKER}) as running:
        clients = [Client(running, number, writes // CLIENTS + 1) for number in range(CLIENTS)]
        for client in clients:
            client.start()
        for kill in range(1, kills + 1):
            while sum(client.count for client in clients) < writes * kill // (kills + 1):
                time.sleep(0.01)  # between two looks
            kill_something(running, outcome, dice)
        for client in clients:
            client.join()
            outcome.acknowledged |= client.acknowledged
        await_events(folder, outcome)
    outcome.seconds = time.monotonic() - began
    return outcome


def kill_something(running: Project, outcome: Outcome, dice: random.Random) -> None:
    """Kill guard, engine or both; before that, every other time, kill a worker or stop one for a while."""
    victim = dice.choice(["guard", "engine", "both"])
    if dice.random() < 0.5:
        with suppress(InvocationError, EngineNotRunning, OSError, StopIteration, TypeError, ValueError):
            hurt_a_worker(running, outcome, dice)  # else it was away already
    if victim == "engine":
        os.kill(engine_of(running), signal.SIGKILL)
    else:
        running.kill_guard() if victim == "guard" else running.kill()
        running.start()
    outcome.kills[victim] += 1


def hurt_a_worker(running: Project, outcome: Outcome, dice: random.Random) -> None:
    """Kill a worker, or stop one for a while."""
    worker, fault = dice.choice(["state", "stream", "bound"]), dice.choice(["killed", "paused"])
    pid = running.pid_of(worker)
    if fault == "killed":
        os.kill(pid, signal.SIGKILL)
    else:
        os.kill(pid, signal.SIGSTOP)
        time.sleep(PAUSE)  # the fault itself
        os.kill(pid, signal.SIGCONT)
    outcome.kills[f"{worker} {fault}"] += 1


def engine_of(running: Project) -> int:
    """Return the engine's process, a child of the guard, once it is there."""
    path = Path(f"/proc/{running.process.pid}/task/{running.process.pid}/children")
    deadline = time.monotonic() + BOUND
    while not (children := path.read_text().split()):
        assert time.monotonic() < deadline, "the guard has no engine"
        time.sleep(0.01)  # between two looks
    return int(children[0])


def await_events(folder: Path, outcome: Outcome) -> None:
    """Wait until everything has been seen, or nothing more comes."""
    before, deadline = -1, time.monotonic() + BOUND
    while True:
        read_seen(folder / "seen", outcome)
        count = sum(map(len, outcome.seen.values()))
        if not outcome.lost() or time.monotonic() > deadline:
            return
        if count != before:
            before, deadline = count, time.monotonic() + BOUND
        time.sleep(0.2)  # between two looks


def read_seen(path: Path, outcome: Outcome) -> None:
    """Read what the bound worker has written down."""
    outcome.seen = {}
    for line in path.read_text().splitlines() if path.exists() else ():
        key, value = line.split()
        outcome.seen.setdefault(key, []).append(int(value))


def main() -> int:
    """Run from the command line; 1 when an event is missing or out of order."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--writes", type=int, default=10_000)
    parser.add_argument("--kills", type=int, default=30)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        outcome = torture(Path(folder), given.writes, given.kills, given.seed)
    print(f"seed {given.seed}: {outcome.count} acknowledged writes in {outcome.seconds:.0f} s, {dict(outcome.kills)}")
    print(f"without their event: {len(outcome.lost())}; keys out of order: {outcome.disordered() or 'none'}")
    return int(bool(outcome.lost() or outcome.disordered()) or outcome.count < given.writes)


if __name__ == "__main__":
    sys.exit(main())
