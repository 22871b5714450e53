"""Reads and writes of a few keys while the state worker and the engine are killed; then their history is checked.

The worker is also stopped for a while, and its file is removed while it runs.

`python -m tests.support.state_torture` is the whole of it (100,000 acknowledged operations); the tests run a short one.
Every answer holds the value before the write, so each write is checked as a read, too.
"""

from __future__ import annotations

import argparse
import os
import random
import signal
import sqlite3
import sys
import tempfile
import time
from contextlib import AbstractContextManager, closing, suppress
from dataclasses import dataclass, field
from pathlib import Path
from threading import Thread
from typing import Any, Protocol

from cli.client.connection import Connection
from iii import EngineNotRunning, InvocationError
from tests.support.linear import NEVER, Operation, is_linearizable
from tests.support.live_project import Project, project

CLIENTS = 8
KEYS = [f"k{number}" for number in range(5)]
FUNCTIONS = ["get", "set", "cas", "delete"]
SCOPE = "torture"
# Far beyond a restart: an answer that takes longer leaves its operation open for ever.
ANSWER_TIMEOUT_MS = 60_000
RETRY_INTERVAL = 0.02
VICTIMS = ("engine", "state", "pause", "file")
# Errors of calls that did not reach the worker.
NEVER_RAN = ("engine_stopping", "function_not_found", "worker_unavailable")
# Errors of writes that are nowhere: the storage is closed, its file is gone, or another engine owns the data.
NOT_WRITTEN = ("the storage is closed", "state.db", "this was not stored")
# How long a worker whose file is gone may take to be replaced by one with a new file.
REPLACEMENT_TIMEOUT = 30.0
# How long the worker is stopped, in seconds.
PAUSE = 0.3
TOML = '[engine]\nlisten = "off"\n[workers.state]\n'


@dataclass
class Outcome:
    """The result of a run: operations by key, how many were acknowledged, the kills, and the check of the file."""

    histories: dict[str, list[Operation]] = field(default_factory=lambda: {key: [] for key in KEYS})
    acknowledged: int = 0
    conflicts: int = 0
    unknown: int = 0
    kills: dict[str, int] = field(default_factory=lambda: dict.fromkeys(VICTIMS, 0))
    integrity: str = ""
    seconds: float = 0.0

    def violations(self) -> list[str]:
        """Return the keys whose history has no explanation."""
        return [key for key, history in self.histories.items() if not is_linearizable(history)]


class Connectable(Protocol):
    """An engine that clients connect to."""

    def connect(self) -> AbstractContextManager[Connection]: ...


class Client(Thread):
    """Does one operation after the other, each on a random key, until it has its share of acknowledgments."""

    def __init__(self, running: Connectable, number: int, share: int) -> None:
        super().__init__(name=f"client-{number}")
        self.running, self.number, self.share = running, number, share
        self.found: dict[str, list[Operation]] = {key: [] for key in KEYS}
        self.acknowledged = self.conflicts = 0
        self._dice = random.Random(number)
        self._written = 0
        self._last: dict[str, Any] = {}
        self._open: list[tuple[str, Any, float]] = []  # key, value and start of writes without an answer

    def run(self) -> None:
        """Go on until the share is done, with a new connection after each loss of one."""
        while self.acknowledged < self.share:
            try:
                with self.running.connect() as connection:
                    while self.acknowledged < self.share:
                        self._step(connection)
            except (EngineNotRunning, OSError, ValueError, KeyError):
                time.sleep(RETRY_INTERVAL)  # the engine is away

    def _step(self, connection: Connection) -> None:
        key, kind = self._dice.choice(KEYS), self._dice.choice(FUNCTIONS)
        self._written += 1
        value = self.number * 10_000_000 + self._written
        function_id, more = self._request(kind, key, value)
        start = time.monotonic()
        if kind != "get":
            self._open.append((key, None if kind == "delete" else value, start))
        answer = connection.request(function_id, {"scope": SCOPE, "key": key, **more}, ANSWER_TIMEOUT_MS)
        end = time.monotonic()
        error = answer.get("error")
        if error is None:
            self._note(key, kind, value, answer.get("result"), (start, end))
        elif error["code"] == "CONFLICT":
            self._note_conflict(key, error["details"]["value"], (start, end))
        elif error["code"] in NEVER_RAN or any(text in error["message"] for text in NOT_WRITTEN):
            if kind != "get":
                self._open.pop()
            time.sleep(RETRY_INTERVAL)  # the worker is away
        elif error["code"] == "TIMEOUT":
            self._close_open(NEVER)

    def _request(self, kind: str, key: str, value: int) -> tuple[str, dict[str, Any]]:
        if kind in ("get", "delete"):
            return f"state::{kind}", {}
        return "state::set", {"value": value, **({"expected": self._last.get(key)} if kind == "cas" else {})}

    def _note(self, key: str, kind: str, value: int, result: Any, times: tuple[float, float]) -> None:
        if kind == "get":
            operation = Operation("get", result, *times)
        elif kind == "delete":
            operation = Operation("cas", None, *times, expected=result)
        else:
            operation = Operation("cas", value, *times, expected=result["old_value"])
        self._acknowledge(key, operation, is_write=kind != "get")

    def _note_conflict(self, key: str, seen: Any, times: tuple[float, float]) -> None:
        self.conflicts += 1
        self._acknowledge(key, Operation("get", seen, *times), is_write=True)

    def _acknowledge(self, key: str, operation: Operation, *, is_write: bool) -> None:
        if is_write:
            self._open.pop()
        # The file has one owner at a time: a write sent to an earlier owner has happened by now, or never will.
        self._close_open(operation.end)
        self._last[key] = operation.value
        self.found[key].append(operation)
        self.acknowledged += 1

    def _close_open(self, end: float) -> None:
        for key, value, start in self._open:
            self.found[key].append(Operation("set", value, start, end, is_certain=False))
        self._open.clear()


def torture(folder: Path, operations: int, kills: int, seed: int, limit: float = 600.0) -> Outcome:
    """Run it all within about `limit` seconds. The kills are spread over the operations."""
    dice, began, outcome = random.Random(seed), time.monotonic(), Outcome()
    with project(folder, TOML, {}) as running:
        clients = [Client(running, number, operations // CLIENTS) for number in range(1, CLIENTS + 1)]
        for client in clients:
            client.start()
        for kill in range(1, kills + 1):
            wait_for(clients, operations * kill // (kills + 2), began + limit)
            kill_something(running, outcome, dice)
        wait_for(clients, operations, began + limit)
        for client in clients:
            client.share = 0
        for client in clients:
            client.join()
        collect(running, clients, outcome)
    outcome.seconds = time.monotonic() - began
    outcome.integrity = integrity(folder)
    return outcome


def wait_for(clients: list[Client], goal: int, deadline: float) -> None:
    """Wait until so many operations are acknowledged, or the time is over."""
    while sum(client.acknowledged for client in clients) < goal and time.monotonic() < deadline:
        if not any(client.is_alive() for client in clients):
            return
        time.sleep(0.01)  # between two looks


def kill_something(running: Project, outcome: Outcome, dice: random.Random) -> None:
    """Kill the engine (with all it has) or the state worker; stop the worker for a while; or remove its file."""
    victim = dice.choice(VICTIMS)
    if victim == "engine":
        running.kill()
        running.start()
    elif victim == "file":
        remove_file(running, outcome)
    else:
        try:
            pid = running.pid_of("state")
            os.kill(pid, signal.SIGKILL if victim == "state" else signal.SIGSTOP)
            if victim == "pause":
                time.sleep(PAUSE)  # the fault itself
                os.kill(pid, signal.SIGCONT)
        except (InvocationError, EngineNotRunning, ProcessLookupError, TypeError):
            return
    outcome.kills[victim] += 1


def remove_file(running: Project, outcome: Outcome) -> None:
    """Remove the file with what lies beside it: every key is deleted between now and the first answer of a new one."""
    start = time.monotonic()
    (running.folder / ".iii" / "state.db").unlink()
    for beside in (running.folder / ".iii").glob("state.db-*"):
        beside.unlink(missing_ok=True)
    (running.folder / ".iii" / "state.db.mark").unlink(missing_ok=True)
    inode, path = None, running.folder / ".iii" / "state.db"
    while inode is None and time.monotonic() < start + REPLACEMENT_TIMEOUT:
        with suppress(EngineNotRunning, InvocationError, OSError):
            running.call("state::get", {"scope": SCOPE, "key": KEYS[0]})
            inode = path.stat().st_ino
        time.sleep(RETRY_INTERVAL)  # between two looks
    for history in outcome.histories.values():
        history.append(Operation("set", None, start, time.monotonic()))


def collect(running: Project, clients: list[Client], outcome: Outcome) -> None:
    """Put the histories together, and end each with what is there now."""
    for key, history in outcome.histories.items():
        history += [operation for client in clients for operation in client.found[key]]
        start = time.monotonic()
        seen = running.call("state::get", {"scope": SCOPE, "key": key})
        history.append(Operation("get", seen, start, time.monotonic()))
        outcome.unknown += sum(not operation.is_certain for operation in history)
    outcome.acknowledged = sum(client.acknowledged for client in clients)
    outcome.conflicts = sum(client.conflicts for client in clients)


def integrity(folder: Path) -> str:
    """Return what SQLite says about the file."""
    with closing(sqlite3.connect(folder / ".iii" / "state.db")) as database:
        found: str = database.execute("PRAGMA integrity_check").fetchone()[0]
        return found


def main() -> int:
    """Run from the command line; 1 when something acknowledged cannot be explained."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--operations", type=int, default=100_000)
    parser.add_argument("--kills", type=int, default=100)
    parser.add_argument("--seed", type=int, default=int(time.time()))
    parser.add_argument("--limit", type=float, default=600.0, help="seconds")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        outcome = torture(Path(folder), given.operations, given.kills, given.seed, given.limit)
    found = outcome.violations()
    print(f"seed {given.seed}: {outcome.acknowledged} acknowledged in {outcome.seconds:.0f} s, {outcome.kills} killed")
    print(f"{outcome.conflicts} conflicts, {outcome.unknown} of unknown outcome, integrity_check {outcome.integrity}")
    print(f"not linearizable: {', '.join(found) or 'none'}")
    return int(bool(found) or outcome.integrity != "ok" or outcome.acknowledged < given.operations)


if __name__ == "__main__":
    sys.exit(main())
