"""B8: the engine's memory: idle, for each idle peer, and what a million calls leave behind. Resident set sizes."""

from __future__ import annotations

import json
import os
import select
import socket
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

import psutil

from benchmarks.harness import Comparison, Load, Options, Row
from benchmarks.setups import Engine, engine

IDLE_MIB, PEER_KIB, GROWTH_MIB = 40.0, 40.0, 1.0
PEERS = 200
CALLS = 1_000_000
# How often the size is read while the calls last.
SAMPLE_SECONDS = 0.1
# The first calls warm caches up and fill the allocator's pools.
WARM_SHARE = 0.2
PATIENCE = 60.0
REGISTER = {"type": "invokefunction", "function_id": "engine::workers::register", "action": {"type": "void"}}


def run(options: Options) -> list[Row]:
    """Measure all three; what is allowed is the baseline."""
    with running() as (process, address):
        idle = process.memory_info().rss
        with connected(address, PEERS):
            per_peer = (process.memory_info().rss - idle) / PEERS
    grown = growth(options)
    return [
        limit("idle engine", "MiB", idle / 2**20, IDLE_MIB),
        limit(f"each of {PEERS} idle peers", "KiB", per_peer / 2**10, PEER_KIB),
        limit(f"growth over {options.calls(CALLS):,} calls", "MiB", max(grown, 1) / 2**20, GROWTH_MIB),
    ]


def limit(what: str, unit: str, measured: float, allowed: float) -> Row:
    """Return the row of a figure against what it may be."""
    return Comparison("B8", f"memory, {what}, against what is allowed", unit, 1.0).row([measured], [allowed])


@contextmanager
def running() -> Iterator[tuple[psutil.Process, str]]:
    """Run an engine; yield its process and the address of its socket."""
    with tempfile.TemporaryDirectory(prefix="iii-bench-") as folder:
        root = Path(folder)
        (root / "iii.toml").write_text('[engine]\nlisten = "off"\n', encoding="utf-8")
        with engine(root, "start"):
            facts = facts_of(root)
            yield psutil.Process(facts["pid"]), facts["socket"]


def facts_of(folder: Path) -> dict[str, object]:
    """Wait for the engine to say where it is."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            found: dict[str, object] = json.loads((folder / ".iii" / "run" / "engine.json").read_text())
        except (FileNotFoundError, ValueError):
            time.sleep(0.02)
        else:
            return found
    raise RuntimeError("the engine has not come up")


@contextmanager
def connected(address: str, count: int) -> Iterator[None]:
    """Hold that many peers that have said who they are; everything they sent has been taken when this yields."""
    with ExitStack() as stack:
        for number in range(count):
            peer = stack.enter_context(socket.socket(socket.AF_UNIX))
            peer.settimeout(PATIENCE)
            peer.connect(address)
            name = {"runtime": "c", "version": "1", "name": f"idle{number}", "os": "linux"}
            ask = {"type": "invokefunction", "invocation_id": f"00000000-0000-4000-8000-{number:012x}"}
            lines = [{**REGISTER, "data": name}, {**ask, "function_id": "engine::workers::list", "data": {}}]
            peer.sendall(b"".join(json.dumps(line).encode() + b"\n" for line in lines))
            await_result(peer)
        yield


def await_result(peer: socket.socket) -> None:
    """Read until the answer has come."""
    data = b""
    while b'"invocationresult"' not in data or not data.endswith(b"\n"):
        part = peer.recv(1 << 20)
        if not part:
            raise RuntimeError(f"the engine closed an idle peer: {data[-300:]!r}")
        data += part


def growth(options: Options) -> int:
    """Return by how many bytes the engine is larger after the calls than it was after the first fifth of them."""
    with tempfile.TemporaryDirectory(prefix="iii-bench-") as folder:
        root = Path(folder)
        report = root / "report"
        os.mkfifo(report)
        load = Load(64, options.calls(CALLS))
        (root / "iii.toml").write_text(Engine().project(report, load, -1), encoding="utf-8")
        with engine(root, "start") as process:
            sizes = sizes_until(report, process, psutil.Process(int(str(facts_of(root)["pid"]))))
    return sizes[-1] - sizes[int(len(sizes) * WARM_SHARE)]


def sizes_until(report: Path, process: subprocess.Popen[bytes], measured: psutil.Process) -> list[int]:
    """Return the sizes of a process until the caller has reported."""
    pipe = os.open(report, os.O_RDONLY | os.O_NONBLOCK)
    sizes = []
    try:
        while not select.select([pipe], [], [], SAMPLE_SECONDS)[0]:
            sizes.append(measured.memory_info().rss)
            if process.poll() is not None:
                raise RuntimeError(f"the engine has ended with {process.returncode}")
    finally:
        os.close(pipe)
    return [*sizes, measured.memory_info().rss]
