"""B6: against what a user would pick instead: add two numbers in another process, the same call, the same rounds.

Ours is the SDK at both ends of the engine: `trigger` with one call in flight, `trigger_async` with 64.
"""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
from dataclasses import dataclass
from pathlib import Path

from benchmarks.b11 import obvious
from benchmarks.environment import python_of_peers
from benchmarks.harness import Comparison, Load, Options, Row, Sample, Setup, p50_of, rate_of, rounds_of
from benchmarks.setups import PATIENCE, Engine

PROGRAMS = Path(__file__).parent / "peers"
# Where Debian has it; not on everybody's PATH.
SBIN = "/usr/sbin:/usr/local/sbin"
TARGET = 1.0
# The official SDK over the obvious router answers the same calls in the same words, so it is held to more.
TARGET_OFFICIAL = 5.0
OFFICIAL = "iii-sdk 0.25, WebSocket router"
# The slowest peers take a millisecond a call.
CALLS_SINGLE, CALLS_MANY = 3_000, 20_000


@dataclass(frozen=True)
class Peer:
    """A program of `peers/` with what else it is told. It makes a share of the calls if it is slow."""

    python: Path
    script: str
    words: tuple[str, ...] = ()
    share: float = 1.0

    def run(self, load: Load) -> Sample:
        """Run it and read its figures. Nobody stands between its ends whose CPU could be told."""
        calls = max(load.window, int(load.calls * self.share))
        command = [self.python, PROGRAMS / self.script, str(load.window), str(calls), *self.words]
        environment = {key: value for key, value in os.environ.items() if not key.startswith(("III_", "PYTHON"))}
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=PATIENCE, env=environment, cwd="/", check=False
        )
        if done.returncode != 0:
            raise RuntimeError(f"{self.script} failed:\n{done.stderr[-2000:]}")
        figures = json.loads(done.stdout.strip().splitlines()[-1])
        return Sample(figures["p50_us"], 0.0, figures["calls_per_s"], 0.0)


@dataclass(frozen=True)
class Official:
    """The official SDK at both ends of a router of its own."""

    python: Path

    def run(self, load: Load) -> Sample:
        """Start the router, run both ends."""
        with obvious() as port:
            return Peer(self.python, "official.py", (f"ws://127.0.0.1:{port}",), share=0.25).run(load)


def run(options: Options) -> list[Row]:
    """Compare with every peer that is there."""
    python = python_of_peers()
    if python is None:
        return []
    others = peers(python)
    ours = "sdk_callee.py"
    single: dict[str, Setup] = {"iii": Engine(callee=ours, caller="sdk_caller.py"), **others}
    many: dict[str, Setup] = {"iii": Engine(callee=ours, caller="sdk_caller_async.py"), **others}
    alone = rounds_of(single, Load(1, options.calls(CALLS_SINGLE)), options.rounds)
    crowd = rounds_of(many, Load(64, options.calls(CALLS_MANY)), options.rounds)
    rows = []
    for name in others:
        wait = Comparison("B6", f"against {name}, 1 in flight", "µs p50", TARGET)
        goal = TARGET_OFFICIAL if name == OFFICIAL else TARGET
        rate = Comparison("B6", f"against {name}, 64 in flight", "calls/s", goal, smaller_is_better=False)
        rows.append(wait.row(p50_of(alone["iii"]), p50_of(alone[name])))
        rows.append(rate.row(rate_of(crowd["iii"]), rate_of(crowd[name])))
    return rows


def peers(python: Path) -> dict[str, Setup]:
    """Return every peer by name; what is not installed is named and left out."""
    found: dict[str, Setup] = {
        "ProcessPoolExecutor": Peer(python, "pool.py"),
        "Pyro5": Peer(python, "pyro.py", share=0.5),
        "pyzmq + orjson, no one between": Peer(python, "zeromq.py"),
        "pyzmq + orjson, a proxy between": Peer(python, "zeromq.py", ("proxy",)),
        "MCP over stdio": Peer(python, "mcp_stdio.py", share=0.05),
        OFFICIAL: Official(python),
    }
    server = shutil.which("nats-server") or shutil.which("nats-server", path=SBIN)
    if server is None:
        print("b6: NATS is left out: there is no nats-server (Debian: apt install nats-server)", file=sys.stderr)
    else:
        found["NATS request/reply"] = Peer(python, "nats_request.py", (server,), share=0.25)
    return found
