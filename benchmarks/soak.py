"""`python -m benchmarks.soak [--calls N] [--reloads N]`: many calls while workers are killed, or while code is saved.

Kills: every second one busy worker gets `kill -9`. It is frozen for the blow, so that the kernel can say what it was
running: the calls it had read and not answered (`picture.py`). Exactly those may fail, and none of them that say
`idempotent`; every other call succeeds and runs once; no call has two outcomes. Reloads: one save after the other under
a steady load, every twentieth broken; no call fails, and none sent after a reload was reported is answered by older
code. At the end descriptors, threads and memory of the engine are back. Exit code 1 when any of this does not hold.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import re
import signal
import socket
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, NamedTuple

import psutil

from benchmarks.picture import freeze, unread_by
from benchmarks.setups import engine

WORKERS = 4  # so that one kill a second stays below twenty a minute each, where restarts begin to wait
RATE_KILLS, RATE_RELOADS = 1000, 300  # calls a second; a restart of seconds must not fill the bounded queues
WARM_UP_SAVES = 5
WARM_UP = 4000  # calls, with a kill of every worker, before anything is counted
BROKEN_EVERY = 20  # saves: one in so many does not compile
DRAIN = 60.0  # seconds for the last answers
MEMORY_SLACK = 8 << 20  # bytes; what the allocator keeps of the busiest moment
THREAD_SLACK = 1  # the engine's pool has two threads; the second comes when there is work for both at once
_ID = re.compile(rb"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")

# Writes down what it begins: who ran how often.
WORKER = """
import os, time
from iii import register_worker
worker = register_worker()
book = os.open(f"books/{os.getpid()}", os.O_WRONLY | os.O_CREAT | os.O_APPEND)
def work(payload):
    os.write(book, payload.encode() + b"\\n")
    time.sleep(0.01)
worker.register_function("NAME::plain", work)
worker.register_function("NAME::safe", work, metadata={"idempotent": True})
"""
# Says something at once: the file of its log is opened with the first line. Answers which code it is, and who runs it.
VERSIONED = """
import os, sys
from iii import register_worker
sys.stderr.write("up\\n")
register_worker().register_function("w0::version", lambda _: [{0}, int(os.environ["III_GENERATION"])])
"""


@dataclass
class Client:
    """One pipelined connection. `outcomes`: id -> the error's code, or the result. `hold` keeps everybody else out."""

    path: str
    sent: dict[str, Any] = field(default_factory=dict)  # id -> what the caller wants to remember
    outcomes: dict[str, tuple[str | None, Any]] = field(default_factory=dict)
    duplicates: int = 0
    latest: Any = None  # the last result
    hold: threading.RLock = field(default_factory=threading.RLock)

    def __post_init__(self) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.connect(self.path)
        self._pongs = threading.Semaphore(0)
        threading.Thread(target=self._read, daemon=True).start()

    def send(self, function_id: str, note: Any) -> None:
        """Begin one call; its payload is its own id."""
        id = str(uuid.uuid4())
        message = {"type": "invokefunction", "invocation_id": id, "function_id": function_id, "data": id}
        with self.hold:
            self.sent[id] = note
            self._socket.sendall(json.dumps(message).encode() + b"\n")

    def settle(self) -> None:
        """Return when the engine has handed on every call sent so far, and we have every answer that it has read."""
        for _ in range(3):  # a turn for the calls, one for what the turn wrote, one for what came meanwhile
            self._socket.sendall(b'{"type":"ping"}\n')
            self._pongs.acquire()

    def unanswered(self) -> set[str]:
        """Return the ids of the calls that have no outcome yet."""
        return self.sent.keys() - self.outcomes.keys()

    def _read(self) -> None:
        for line in self._socket.makefile("rb"):
            message = json.loads(line)
            if message["type"] == "invocationresult":
                id = message["invocation_id"]
                self.duplicates += id in self.outcomes
                self.latest = message.get("result")
                self.outcomes[id] = ((message.get("error") or {}).get("code"), self.latest)
            elif message["type"] == "pong":
                self._pongs.release()

    def drain(self) -> int:
        """Wait for the last answers; return how many never came."""
        deadline = time.monotonic() + DRAIN
        while self.unanswered() and time.monotonic() < deadline:
            time.sleep(0.05)
        return len(self.unanswered())


class Kill(NamedTuple):
    """What the kernel said of a process when it was killed: the calls it had read and not answered, and the unread."""

    running: set[str]
    unread: set[str]


@contextmanager
def running(folder: Path, scripts: dict[str, str]) -> Iterator[dict[str, Any]]:
    """Run a project of these workers; yields engine.json."""
    tables = [f'[workers.{name}]\nrun = "{name}.py"\n' for name in scripts]
    (folder / "books").mkdir()
    with running_project(folder, "\n".join(['[engine]\nlisten = "off"\n', *tables]), scripts) as facts:
        yield facts


@contextmanager
def running_project(folder: Path, toml: str, scripts: dict[str, str]) -> Iterator[dict[str, Any]]:
    """Run a project until it is left; yields engine.json."""
    (folder / "iii.toml").write_text(toml)
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
    return [json.loads(line) for line in lines if line.startswith("{") and f'"kind":"{kind}"' in line]


def _settled(process: psutil.Process) -> tuple[int, int, int]:
    """Return descriptors, threads and memory of the engine once nothing has moved for two seconds."""
    held, since = (0, 0), time.monotonic()
    while time.monotonic() - since < 2.0:
        now = process.num_fds(), process.num_threads()
        if now != held:
            held, since = now, time.monotonic()
        time.sleep(0.05)
    return *held, process.memory_info().rss


class KillSoak:
    """Calls at a steady rate to several workers, one of which is killed every second."""

    def __init__(self, folder: Path, facts: dict[str, Any]) -> None:
        self._folder = folder
        self._client = Client(facts["socket"])
        self._engine = psutil.Process(facts["pid"])

    def run(self, calls: int) -> list[str]:
        """Warm up, run, judge; return what was broken."""
        self._load(WARM_UP, pause=0.3)
        self._client.drain()
        before = _settled(self._engine)
        self._client.sent.clear()
        self._client.outcomes.clear()  # what the warm-up came to is no figure
        kills = self._load(calls, pause=1.0)
        lost = self._client.drain()
        after = _settled(self._engine)
        return [*self._judge(kills), *_judge_rest(self._client, lost, before, after)]

    def _load(self, calls: int, pause: float) -> list[Kill]:
        kills: list[Kill] = []
        over = threading.Event()
        killer = threading.Thread(target=self._kill_steadily, args=(kills, over, pause))
        killer.start()
        began = time.monotonic()
        for number in range(calls):
            function_id = f"w{number % WORKERS}::{random.choice(('plain', 'safe'))}"
            self._client.send(function_id, function_id)
            ahead = began + number / RATE_KILLS - time.monotonic()
            if ahead > 0:
                time.sleep(ahead)
        over.set()
        killer.join()
        return kills

    def _kill_steadily(self, kills: list[Kill], over: threading.Event, pause: float) -> None:
        while not over.wait(pause):
            while not over.wait(0.002) and (kill := self._kill_one()) is None:
                continue  # it was idle, or just starting: only busy workers are killed
            if kill is not None:
                kills.append(kill)

    def _kill_one(self) -> Kill | None:
        """Kill a process that runs something; None if this one did not."""
        process = random.choice(self._engine.children())
        with self._client.hold, contextlib.suppress(psutil.NoSuchProcess, ProcessLookupError, FileNotFoundError):
            freeze(process.pid)
            kill = self._picture(process)
            os.kill(process.pid, signal.SIGKILL if kill.running else signal.SIGCONT)
            return kill if kill.running else None
        return None  # the last one, whom nobody has buried yet

    def _picture(self, process: psutil.Process) -> Kill:
        client = self._client
        client.settle()
        pipe = unread_by(process.pid, self._engine.pid)
        unread = {id.decode() for id in _ID.findall(pipe)}
        book = self._folder / "books" / str(process.pid)
        if not (book.exists() and book.stat().st_size):
            return Kill(set(), unread)  # it has begun nothing yet: calls may wait for it in the engine
        worker = Path(process.cmdline()[-1]).stem
        mine = [id for id in client.sent if id not in client.outcomes and client.sent[id].startswith(worker)]
        unread |= _partly_read(pipe, [id for id in mine if id not in unread])
        return Kill(set(mine) - unread, unread)

    def _judge(self, kills: list[Kill]) -> list[str]:
        """Compare the calls that failed with those that the kernel saw running."""
        client = self._client
        seen = Counter(id for kill in kills for id in kill.running)
        plain = {id for id in seen if client.sent[id].endswith("plain")}
        safe = seen.keys() - plain
        failed = {id for id, (error, _) in client.outcomes.items() if error}
        books = (self._folder / "books").iterdir()
        starts = Counter(id for book in books for id in book.read_text().split())
        too_often = {id for id in client.sent if starts[id] > (seen[id] + 1 if id in safe else 1)}
        never = {id for id in client.sent.keys() - failed if not starts[id]}
        codes = {client.outcomes[id][0] for id in failed}
        print(
            f"calls {len(client.sent):,}, kills of busy workers {len(kills)}\n"
            f"read and unanswered when killed: {len(plain)}, and {len(safe)} idempotent; "
            f"unread: {len(set().union(*(kill.unread for kill in kills)))}\n"
            f"failed: {len(failed)}, with {sorted(map(str, codes))}; "
            f"of these idempotent: {sum(client.sent[id].endswith('safe') for id in failed)}\n"
            f"failed but not running: {len(failed - plain)}, running but not failed: {len(plain - failed)}\n"
            f"run more often than allowed: {len(too_often)}, answered but never run: {len(never)}"
        )
        broken = [] if kills else ["no busy worker was killed"]
        broken += [f"{len(failed - plain)} calls failed that no killed process was running"] if failed - plain else []
        broken += [f"{len(plain - failed)} calls did not fail with their process"] if plain - failed else []
        broken += [f"{len(too_often)} calls ran too often"] if too_often else []
        broken += [f"{len(never)} calls were answered without having run"] if never else []
        return broken + ([f"calls failed with {codes}"] if codes - {"invocation_stopped"} else [])


def _partly_read(pipe: bytes, given: list[str]) -> set[str]:
    """Return the call, if any, of which only the end lies in the pipe, too short to show its id. It is not read.

    Lines lie there in the order of the calls, and end with the id: it is the last one given whose line ends so.
    """
    tail = b"" if pipe.startswith(b"{") else pipe.split(b"\n")[0]
    if not tail or _ID.search(tail):
        return set()
    return set(next(([id] for id in reversed(given) if f'{id}"}}'.encode().endswith(tail)), []))


def soak_kills(calls: int) -> list[str]:
    """Kill one busy worker a second; return what was broken."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with running(folder, {f"w{n}": WORKER.replace("NAME", f"w{n}") for n in range(WORKERS)}) as facts:
            return KillSoak(folder, facts).run(calls)


def soak_reloads(reloads: int) -> list[str]:
    """Save one version after the other under load; return what was broken."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        with running(folder, {"w0": VERSIONED.format(-1)}) as facts:
            client, process = Client(facts["socket"]), psutil.Process(facts["pid"])
            reported = [1]
            over = threading.Event()
            sender = threading.Thread(target=_send_steadily, args=(client, reported, over))
            sender.start()
            for version in range(-WARM_UP_SAVES, 0):  # the first reloads make what every later one uses again
                _save(folder, version, client, reported)
            before = _settled(process)
            for version in range(1, reloads + 1):
                _save(folder, version, client, reported)
            over.set()
            sender.join()
            lost = client.drain()
            after = _settled(process)
            return [*_judge_reloads(client, process, reloads), *_judge_rest(client, lost, before, after)]


def _send_steadily(client: Client, reported: list[int], over: threading.Event) -> None:
    began = time.monotonic()
    number = 0
    while not over.wait(max(0.0, began + number / RATE_RELOADS - time.monotonic())):
        number += 1
        client.send("w0::version", reported[0])


def _save(folder: Path, version: int, client: Client, reported: list[int]) -> None:
    """Save, and wait until the save has had its effect. `reported` gets the generation that the engine told of last."""
    is_broken = version > 0 and version % BROKEN_EVERY == 0
    seen = len(events_of(folder, "ReloadFailed"))
    (folder / "w0.py").write_text(f"def broken(: # {version}\n" if is_broken else VERSIONED.format(version))
    deadline = time.monotonic() + DRAIN
    while not (len(events_of(folder, "ReloadFailed")) > seen if is_broken else (client.latest or [None])[0] == version):
        if time.monotonic() > deadline:
            raise TimeoutError(f"save {version} has had no effect")
        time.sleep(0.005)
        reported[0] = max([1, *(event["generation"] for event in events_of(folder, "Reloaded"))])


def _judge_reloads(client: Client, process: psutil.Process, reloads: int) -> list[str]:
    failed = [error for error, _ in client.outcomes.values() if error]
    stale = [id for id, (error, result) in client.outcomes.items() if not error and result[1] < client.sent[id]]
    workers = len(process.children())
    print(
        f"saves {reloads}, of these broken {reloads // BROKEN_EVERY}; calls {len(client.sent):,}, "
        f"failed {len(failed)}, stale {len(stale)}; processes of the one instance at the end: {workers}"
    )
    broken = [f"{len(failed)} calls failed: {set(failed)}"] if failed else []
    broken += [f"{len(stale)} calls were answered by code older than what was reported"] if stale else []
    return broken + ([f"{workers} processes serve one instance"] if workers != 1 else [])


def _judge_rest(client: Client, lost: int, before: tuple[int, ...], after: tuple[int, ...]) -> list[str]:
    print(
        f"without outcome {lost}, with two {client.duplicates}; descriptors {before[0]} -> {after[0]}, "
        f"threads {before[1]} -> {after[1]}, memory {before[2] / 2**20:.1f} -> {after[2] / 2**20:.1f} MiB"
    )
    broken = [f"{lost} calls have no outcome"] if lost else []
    broken += [f"{client.duplicates} calls have two outcomes"] if client.duplicates else []
    broken += ["descriptors are left"] if after[0] > before[0] else []
    broken += ["threads are left"] if after[1] > before[1] + THREAD_SLACK else []
    return broken + (["memory is left"] if after[2] > before[2] + MEMORY_SLACK else [])


def main() -> int:
    """Run what was asked for."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.soak", description=__doc__)
    parser.add_argument("--calls", type=int, default=100_000, help="calls under kills; 0: none")
    parser.add_argument("--reloads", type=int, default=500, help="saves under load; 0: none")
    given = parser.parse_args()
    broken = soak_kills(given.calls) if given.calls else []
    broken += soak_reloads(given.reloads) if given.reloads else []
    return verdict(broken)


def verdict(broken: list[str]) -> int:
    """Print the laws that were broken; return the exit code."""
    for line in broken:
        print(f"BROKEN: {line}", file=sys.stderr)
    print("nothing was broken" if not broken else f"{len(broken)} laws were broken")
    return 1 if broken else 0


if __name__ == "__main__":
    sys.exit(main())
