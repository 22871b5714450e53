"""`python -m benchmarks.mixed_soak [--minutes N]`: mixed load for ten minutes, and a page of what grew.

Calls, state writes with their events, jobs, messages, channels, clients that come and leave in the middle of a message,
saves and kills, all at a moderate rate. Every five seconds: resident memory, descriptors and threads of each process,
and the bytes in `.iii`. After two minutes nothing may grow: each figure's median of the last minute is compared with
that of the third. Exit code 1 when something grew by more than its slack, or a call failed that nothing had killed.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import random
import signal
import socket
import statistics
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from benchmarks.soak import events_of, running_project, verdict
from cli.client.connection import connect
from iii.errors import InvocationError
from iii.protocol.frames import FINAL, MASKED, TEXT, header

MIB = 1 << 20
SAMPLE_INTERVAL = 5.0
SETTLED = 120.0  # seconds: caches are full, files have their size
# By how much a figure may grow: what allocators, pools and files keep for their next use.
SLACK = {"MiB": 12.0, "descriptors": 4.0, "threads": 3.0, "KiB on disk": 8192.0}
# Started by the soak; each has to be there at its end, whatever it has been through.
WORKERS = ("state", "queue", "pubsub", "stream", "observability", "steady", "killed", "saved")
# Calls that a kill or a save has interrupted.
INTERRUPTED = {"invocation_stopped", "worker_unavailable"}

PROJECT = """\
[engine]
listen = "127.0.0.1:PORT"
[workers.state]
[workers.queue]
[workers.pubsub]
[workers.stream.config]
port = 0
[workers.observability.config]
prometheus = false
[workers.steady]
run = "steady.py"
[workers.killed]
run = "killed.py"
[workers.saved]
run = "saved.py"
"""
STEADY = """
from iii import TriggerAction, register_worker
from iii.helpers import create_channel
worker = register_worker()
worker.register_function("steady::echo", lambda payload: payload)
worker.register_function("steady::job", lambda payload: None)
worker.register_function("steady::nothing", lambda payload: None)
def nested(payload):
    return worker.trigger("steady::echo", payload)
worker.register_function("steady::nested", nested)
def enqueue(payload):
    worker.trigger({"function_id": "steady::job", "payload": payload, "action": TriggerAction.Enqueue(queue="default")})
worker.register_function("steady::enqueue", enqueue)
def stream(payload):
    channel = create_channel(worker)
    channel.writer.send(b"x" * payload)
    channel.writer.close()
    return len(channel.reader.read())
worker.register_function("steady::channel", stream)
for kind, config in (("state", {"scope": "soak"}), ("subscribe", {"topic": "soak"}), ("log", {"level": "error"})):
    worker.register_trigger({"type": kind, "function_id": "steady::nothing", "config": config})
"""
KILLED = """
from iii import register_worker
register_worker().register_function("killed::echo", lambda payload: payload, metadata={"idempotent": True})
"""
SAVED = """
from iii import register_worker
register_worker().register_function("saved::version", lambda payload: {0})
"""


class Load:
    """Actions in threads of their own, each at its own rate, until `over` is set."""

    def __init__(self, facts: dict[str, Any], folder: Path, port: int) -> None:
        self.over = threading.Event()
        self.done: Counter[str] = Counter()
        self.failed: Counter[str] = Counter()
        self._facts, self._folder, self._port = facts, folder, port
        self._version = 0
        self._threads: list[threading.Thread] = []

    def start(self) -> None:
        body = "x" * 20_000
        calls: list[tuple[str, float, str, Callable[[], Any]]] = [
            ("calls", 100, "steady::echo", lambda: 1),
            ("large calls", 5, "steady::echo", lambda: body * 20),
            ("nested calls", 30, "steady::nested", lambda: 1),
            ("writes", 30, "state::set", lambda: {"scope": "soak", "key": f"k{random.randrange(50)}", "value": body}),
            ("jobs", 20, "steady::enqueue", lambda: {"n": 1}),
            ("messages", 20, "publish", lambda: {"topic": "soak", "data": {"n": 1}}),
            ("items", 10, "stream::set", self._item),
            ("channels", 2, "steady::channel", lambda: 300_000),
            ("calls of a worker that is killed", 20, "killed::echo", lambda: 1),
            ("calls of a worker that is saved", 20, "saved::version", lambda: None),
        ]
        for name, rate, function_id, payload in calls:
            self._run(name, rate, self._caller(function_id, payload))
        self._run("unfinished messages", 1, self._leave_unfinished)
        self._run("kills", 1 / 15, self._kill)  # below the limit of restarts, which is five within a minute
        self._run("saves", 0.2, self._save)

    def _item(self) -> dict[str, Any]:
        return {"stream_name": "s", "group_id": "g", "item_id": f"i{random.randrange(20)}", "data": {"n": 1}}

    def _run(self, name: str, rate: float, action: Callable[[], Any]) -> None:
        def work() -> None:
            number, began = 0, time.monotonic()
            while not self.over.wait(max(0.0, began + number / rate - time.monotonic())):
                number += 1
                try:
                    action()
                    self.done[name] += 1
                except InvocationError as error:
                    self.failed[f"{name}: {error.code}"] += 1

        self._threads.append(threading.Thread(target=work))
        self._threads[-1].start()

    def _caller(self, function_id: str, payload: Callable[[], Any]) -> Callable[[], Any]:
        connection = connect(self._facts["socket"])
        return lambda: connection.call(function_id, payload())

    def _leave_unfinished(self) -> None:
        with socket.create_connection(("127.0.0.1", self._port)) as client:
            head = f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{self._port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
            client.sendall(f"{head}Sec-WebSocket-Key: {'A' * 22}==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode())
            client.recv(4096)
            client.sendall((header(FINAL | TEXT, 8 * MIB, MASKED) + bytes(4) + b"x" * 8 * MIB)[: 4 * MIB])

    def _kill(self) -> None:
        for process in psutil.Process(self._facts["pid"]).children():
            with contextlib.suppress(psutil.Error):
                if process.cmdline()[-1].endswith("killed.py"):
                    os.kill(process.pid, signal.SIGKILL)

    def _save(self) -> None:
        self._version += 1
        (self._folder / "saved.py").write_text(SAVED.format(self._version))

    def stop(self) -> None:
        self.over.set()
        for thread in self._threads:
            thread.join()


def sample(engine: psutil.Process, folder: Path) -> dict[tuple[str, str], float]:
    """Return every figure now, by process and kind."""
    found: dict[tuple[str, str], float] = defaultdict(float)
    for process in [engine, *engine.children(recursive=True)]:
        with contextlib.suppress(psutil.Error, IndexError):
            name = "engine" if process == engine else process.environ().get("III_WORKER_NAME", "others")
            found[name, "MiB"] += process.memory_info().rss / MIB
            found[name, "descriptors"] += process.num_fds()
            found[name, "threads"] += process.num_threads()
    for path in (folder / ".iii").rglob("*"):
        with contextlib.suppress(OSError):
            if path.is_file():
                top = path.relative_to(folder / ".iii").parts[0].partition(".")[0]
                found[f".iii/{top}", "KiB on disk"] += path.stat().st_size / 1024
    return found


def page(samples: list[tuple[float, dict[tuple[str, str], float]]]) -> tuple[list[str], list[str]]:
    """Return the lines of the page, and what grew."""
    end = samples[-1][0]
    minutes = [
        [figures for at, figures in samples if begin <= at < begin + 60] for begin in (0.0, SETTLED, max(0.0, end - 60))
    ]
    lines = [f"{'':24} {'':12} {'1st min':>9} {'3rd min':>9} {'last min':>9}"]
    grown: list[str] = []
    for name, kind in sorted({key for _, figures in samples for key in figures}):
        first, settled, last = (
            statistics.median(figures.get((name, kind), 0.0) for figures in each) if each else 0.0 for each in minutes
        )
        mark = ""
        if last - settled > SLACK[kind]:
            mark = "  grew"
            grown.append(f"{name}: {kind} {settled:.0f} -> {last:.0f}")
        lines.append(f"{name:24} {kind:12} {first:9.1f} {settled:9.1f} {last:9.1f}{mark}")
    return lines, grown


def main() -> int:
    """Run, print the page, judge."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.mixed_soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=10.0)
    minutes = parser.parse_args().minutes
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        scripts = {"steady": STEADY, "killed": KILLED, "saved": SAVED.format(0)}
        with running_project(folder, PROJECT.replace("PORT", str(port)), scripts) as facts:
            engine = psutil.Process(facts["pid"])
            load = Load(facts, folder, port)
            load.start()
            samples, began = [], time.monotonic()
            while time.monotonic() - began < minutes * 60:
                time.sleep(SAMPLE_INTERVAL)
                samples.append((time.monotonic() - began, sample(engine, folder)))
            load.stop()
            reloads = len(events_of(folder, "Reloaded"))
    lines, broken = page(samples)
    print("\n".join(lines))
    print("done:", ", ".join(f"{count:,} {what}" for what, count in load.done.items()), f"; {reloads} reloads")
    print("failed:", dict(load.failed))
    broken += [f"{text} {count} times" for text, count in load.failed.items() if text.split(": ")[1] not in INTERRUPTED]
    broken += [f"{name} does not run at the end" for name in WORKERS if not samples[-1][1].get((name, "MiB"))]
    return verdict(broken)


if __name__ == "__main__":
    sys.exit(main())
