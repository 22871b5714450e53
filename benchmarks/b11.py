"""B11: calls over WebSocket, the gateway against the obvious router on the same library; minimal ends."""

from __future__ import annotations

import json
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from benchmarks.harness import Comparison, Options, Row, interleave
from benchmarks.setups import engine

TARGET_P50, TARGET_RATE = 0.8, 2.0
ENDS = Path(__file__).parent / "ends"
PROJECT = '[engine]\nlisten = "127.0.0.1:0"\n[workers.b]\nrun = "b.py"\n'
WORKER = "from iii import register_worker\nregister_worker()\n"


def run(options: Options) -> list[Row]:
    """Compare one call in flight, and 64."""
    with obvious() as theirs, gateway() as ours:
        one = pairs(theirs, ours, 1, options.calls(20_000), options.rounds)
        many = pairs(theirs, ours, 64, options.calls(100_000), options.rounds)
    latency = Comparison("B11", "gateway, 1 in flight, against the obvious router", "µs", TARGET_P50)
    rate = Comparison("B11", "gateway, 64 in flight", "calls/s", TARGET_RATE, smaller_is_better=False)
    return [
        latency.row([p50 for p50, _ in one["gateway"]], [p50 for p50, _ in one["obvious"]]),
        rate.row([calls for _, calls in many["gateway"]], [calls for _, calls in many["obvious"]]),
    ]


def pairs(theirs: int, ours: int, window: int, calls: int, rounds: int) -> dict[str, list[tuple[float, float]]]:
    """Run the same ends against both ports, round by round."""
    setups = {
        "obvious": lambda: measured(theirs, window, calls),
        "gateway": lambda: measured(ours, window, calls),
    }
    return interleave(setups, rounds)


def measured(port: int, window: int, calls: int) -> tuple[float, float]:
    """Return the median call in microseconds and the calls per second."""
    command = [sys.executable, str(ENDS / "ws_pair.py"), str(port), str(window), str(calls)]
    p50, rate = subprocess.run(command, check=True, capture_output=True, text=True).stdout.split()
    return float(p50), float(rate)


@contextmanager
def obvious() -> Iterator[int]:
    """Run the obvious router; yield its port."""
    command = [sys.executable, str(ENDS / "ws_router.py")]
    router = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.DEVNULL)
    assert router.stdout is not None
    try:
        yield int(router.stdout.readline())
    finally:
        router.communicate()


@contextmanager
def gateway() -> Iterator[int]:
    """Run an engine; yield the port of its gateway."""
    with tempfile.TemporaryDirectory(prefix="iii-bench-") as folder:
        root = Path(folder)
        (root / "iii.toml").write_text(PROJECT, encoding="utf-8")
        (root / "b.py").write_text(WORKER, encoding="utf-8")
        with engine(root, "dev"):
            yield port_of(root)


def port_of(folder: Path) -> int:
    """Wait for the engine to say where it is; return its port."""
    facts = folder / ".iii" / "run" / "engine.json"
    while True:
        try:
            return int(json.loads(facts.read_text())["url"].rpartition(":")[2])
        except (FileNotFoundError, json.JSONDecodeError):
            subprocess.run([sys.executable, "-c", "pass"], check=True)
