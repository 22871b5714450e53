"""`python -m benchmarks.soak [--calls N] [--reloads N]`: many calls while workers are killed, or while code is saved.

Kills: every second one busy worker gets `kill -9`. Exactly the calls that it was running may fail, none of those that
say `idempotent`; no call has two outcomes and none runs twice that may not. Reloads: one save after the other under a
steady load, one in twenty broken; no call fails, and none sent after a reload was reported is answered by older code.
At the end descriptors, threads and memory of the engine are compared with the start. Exit code 1 when a law is broken.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import signal
import socket
import sys
import tempfile
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

from benchmarks.setups import engine

WORKERS = 4  # so that one kill a second stays below twenty a minute each, where restarts begin to wait
CONCURRENCY = 16  # calls that a worker has at once
RATE_KILLS, RATE_RELOADS = 2000, 300  # calls a second
BROKEN = 0.05  # share of saves that do not compile
DRAIN = 60.0  # seconds for the last answers
MEMORY_SLACK = 24 << 20  # bytes; buffers of the busiest moment are not handed back to the system

# Writes down what it begins and what it has ended, with one write each: the truth about what a kill met.
WORKER = """
import os, time
from iii import current_invocation, register_worker
worker = register_worker()
book = os.open(f"books/{os.getpid()}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
def work(payload):
    os.write(book, b"S %s\\n" % payload.encode())
    time.sleep(0.004)
    os.write(book, b"E %s\\n" % payload.encode())
worker.register_function("NAME::work", work)
worker.register_function("NAME::safe", work, metadata={"idempotent": True})
"""
# Says something at once: the file of its log is opened with the first line.
VERSIONED = """
import sys
from iii import register_worker
sys.stderr.write("up\\n")
register_worker().register_function("w0::version", lambda _: {0})
"""


@dataclass
class Client:
    """One pipelined connection. `outcomes`: id -> the error's code, or the result."""

    path: str
    sent: dict[str, Any] = field(default_factory=dict)  # id -> what the caller wants to remember
    outcomes: dict[str, tuple[str | None, Any]] = field(default_factory=dict)
    duplicates: int = 0

    def __post_init__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(self.path)
        threading.Thread(target=self._read, daemon=True).start()

    def send(self, function_id: str, note: Any) -> None:
        """Begin one call; its payload is its own id."""
        id = str(uuid.uuid4())
        self.sent[id] = note
        message = {"type": "invokefunction", "invocation_id": id, "function_id": function_id, "data": id}
        self._socket.sendall(json.dumps(message).encode() + b"\n")

    def _read(self) -> None:
        for line in self._socket.makefile("rb"):
            message = json.loads(line)
            if message["type"] == "invocationresult":
                id = message["invocation_id"]
                self.duplicates += id in self.outcomes
                self.outcomes[id] = ((message.get("error") or {}).get("code"), message.get("result"))

    def drain(self) -> int:
        """Wait for the last answers; return how many never came."""
        deadline = time.monotonic() + DRAIN
        while len(self.outcomes) < len(self.sent) and time.monotonic() < deadline:
            time.sleep(0.05)
        return len(self.sent) - len(self.outcomes)


@contextmanager
def running(folder: Path, scripts: dict[str, str]) -> Iterator[dict[str, Any]]:
    """Run a project of these workers; yields engine.json."""
    keys = f"concurrency = {CONCURRENCY}\n"
    tables = [f'[workers.{name}]\nrun = "{name}.py"\n{keys}' for name in scripts]
    (folder / "iii.toml").write_text("\n".join(['[engine]\nlisten = "off"\n', *tables]))
    (folder / "books").mkdir()
    for name, text in scripts.items():
        (folder / f"{name}.py").write_text(text)
    facts = folder / ".iii/run/engine.json"
    with engine(folder, "dev", "--json"):
        while not (facts.exists() and json.loads(facts.read_text())["ready"]):
            time.sleep(0.02)
        yield json.loads(facts.read_text())


def events_of(folder: Path, kind: str) -> list[dict[str, Any]]:
    """Return what the engine has reported of one kind."""
    lines = (folder / "engine.log").read_text().splitlines()
    return [event for line in lines if line.startswith("{") and (event := json.loads(line))["kind"] == kind]


def _settled(process: psutil.Process) -> tuple[int, int, int]:
    """Return descriptors, threads and memory of the engine once nothing has moved for two seconds."""
    held, since = (0, 0), time.monotonic()
    while time.monotonic() - since < 2.0:
        now = process.num_fds(), process.num_threads()
        if now != held:
            held, since = now, time.monotonic()
        time.sleep(0.05)
    return *held, process.memory_info().rss


def soak_kills(calls: int) -> list[str]:
    """Kill one busy worker a second; return what was broken."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with running(folder, {f"w{n}": WORKER.replace("NAME", f"w{n}") for n in range(WORKERS)}) as facts:
            client, process = Client(facts["socket"]), psutil.Process(facts["pid"])
            before = _settled(process)
            killed = _send_and_kill(client, process, calls)
            lost = client.drain()
            after = _settled(process)
            return [*_judge_kills(client, folder, killed), *_judge_rest(client, lost, before, after)]


def _send_and_kill(client: Client, process: psutil.Process, calls: int) -> list[int]:
    killed: list[int] = []
    over = threading.Event()
    killer = threading.Thread(target=_kill_steadily, args=(process, killed, over))
    killer.start()
    began = time.monotonic()
    for number in range(calls):
        client.send(f"w{number % WORKERS}::{random.choice(('work', 'safe'))}", number)
        ahead = began + number / RATE_KILLS - time.monotonic()
        if ahead > 0:
            time.sleep(ahead)
    over.set()
    killer.join()
    return killed


def _kill_steadily(process: psutil.Process, killed: list[int], over: threading.Event) -> None:
    while not over.wait(1.0):
        killed.append(random.choice(process.children()).pid)
        os.kill(killed[-1], signal.SIGKILL)


def _judge_kills(client: Client, folder: Path, killed: list[int]) -> list[str]:
    """Compare the calls that failed with what the books of the killed say they were running."""
    starts: dict[str, int] = {}
    running_then: set[str] = set()
    for book in (folder / "books").iterdir():
        lines = [line.split() for line in book.read_text().splitlines()]
        ended = {id for kind, id in lines if kind == "E"}
        for kind, id in lines:
            if kind == "S":
                starts[id] = starts.get(id, 0) + 1
                if int(book.name) in killed and id not in ended:
                    running_then.add(id)
    failed = {id for id, (error, _) in client.outcomes.items() if error}
    # A call that the dying process had read but not begun, or ended but not answered, is in no book. That is at most
    # what it may have at once.
    unbooked = failed - running_then
    answered = {id for id, (error, _) in client.outcomes.items() if not error}
    twice = {id for id in failed if starts.get(id, 0) > 1}
    print(
        f"kills {len(killed)}, calls {len(client.sent):,}, failed {len(failed)}, running when killed "
        f"{len(running_then)}, run again {len(running_then & answered)}, failed at the edge {len(unbooked)}"
    )
    broken = []
    if len(unbooked) > CONCURRENCY * len(killed):
        broken.append(f"{len(unbooked)} calls failed that no killed worker was running")
    if twice:
        broken.append(f"{len(twice)} calls ran twice and failed all the same")
    if codes := {client.outcomes[id][0] for id in failed} - {"invocation_stopped"}:
        broken.append(f"calls failed with {codes}")
    return broken


def soak_reloads(reloads: int) -> list[str]:
    """Save one version after the other under load; return what was broken."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with running(folder, {"w0": VERSIONED.format(-1)}) as facts:
            client, process = Client(facts["socket"]), psutil.Process(facts["pid"])
            reported = [0]
            _save(folder, 0, reported)  # the first reload makes what every later one uses again
            before = _settled(process)
            over = threading.Event()
            sender = threading.Thread(target=_send_steadily, args=(client, reported, over))
            sender.start()
            for version in range(1, reloads + 1):
                _save(folder, version, reported)
            over.set()
            sender.join()
            lost = client.drain()
            after = _settled(process)
            return [*_judge_reloads(client, process), *_judge_rest(client, lost, before, after)]


def _send_steadily(client: Client, reported: list[int], over: threading.Event) -> None:
    while not over.wait(1 / RATE_RELOADS):
        client.send("w0::version", reported[0])


def _save(folder: Path, version: int, reported: list[int]) -> None:
    is_broken = random.random() < BROKEN
    kind = "ReloadFailed" if is_broken else "Reloaded"
    seen = len(events_of(folder, kind))
    (folder / "w0.py").write_text(f"def broken(: # {version}\n" if is_broken else VERSIONED.format(version))
    deadline = time.monotonic() + DRAIN
    while len(events_of(folder, kind)) == seen:
        if time.monotonic() > deadline:
            raise TimeoutError(f"save {version} was never reported")
        time.sleep(0.005)
    if not is_broken:
        reported[0] = version


def _judge_reloads(client: Client, process: psutil.Process) -> list[str]:
    failed = [error for error, _ in client.outcomes.values() if error]
    stale = [id for id, (error, result) in client.outcomes.items() if not error and result < client.sent[id]]
    workers = len(process.children())
    print(f"calls {len(client.sent):,}, failed {len(failed)}, stale {len(stale)}, processes at the end {workers}")
    broken = [f"{len(failed)} calls failed: {set(failed)}"] if failed else []
    broken += [f"{len(stale)} calls were answered by code older than what was reported"] if stale else []
    return broken + ([f"{workers} processes serve one instance"] if workers != 1 else [])


def _judge_rest(client: Client, lost: int, before: tuple[int, ...], after: tuple[int, ...]) -> list[str]:
    print(
        f"descriptors {before[0]} -> {after[0]}, threads {before[1]} -> {after[1]}, "
        f"memory {before[2] >> 20} -> {after[2] >> 20} MiB"
    )
    broken = [f"{lost} calls have no outcome"] if lost else []
    broken += [f"{client.duplicates} calls have two outcomes"] if client.duplicates else []
    broken += ["descriptors are left"] if after[0] > before[0] else []
    broken += ["threads are left"] if after[1] > before[1] + 6 else []  # the default executor's
    return broken + (["memory is left"] if after[2] > before[2] + MEMORY_SLACK else [])


def main() -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--calls", type=int, default=100_000, help="calls under kills; 0: none")
    parser.add_argument("--reloads", type=int, default=0, help="saves under load; 0: none")
    given = parser.parse_args()
    broken = soak_kills(given.calls) if given.calls else []
    broken += soak_reloads(given.reloads) if given.reloads else []
    for line in broken:
        print(f"BROKEN: {line}", file=sys.stderr)
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
