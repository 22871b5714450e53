"""Calls of another engine: `python -m benchmarks.b_cluster [--quick]`.

Three NATS servers and two engines on this machine, each engine on a server of its own. Compared with a call of the same
worker's own engine, and with a request and its reply by nats-py between the same two servers, in one run.
"""

from __future__ import annotations

import argparse
import asyncio
import os
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Any

from benchmarks.b_state import read_report
from benchmarks.harness import Comparison, Options, Row, interleave
from benchmarks.report import table
from benchmarks.setups import ENDS, engine, worker_table
from tests.support.nats_servers import NatsServers

WINDOW = 64
TARGET_LOCAL, TARGET_NATS = 2.5, 1.3


def run(options: Options) -> list[Row]:
    """Return every comparison."""
    times = options.calls(20_000)
    with tempfile.TemporaryDirectory(prefix="iii-bench-") as folder:
        servers = NatsServers(Path(folder))
        try:
            runs = {
                "engines": lambda: two_engines(servers, times),
                "nats": lambda: asyncio.run(request_and_reply(servers, times)),
            }
            figures = interleave(runs, max(3, options.rounds // 2))
        finally:
            servers.close()
    engines, nats = figures["engines"], figures["nats"]

    def of(place: str, load: str, unit: str) -> list[float]:
        return [each[place][load][unit] for each in engines]

    rate = f"another engine, {WINDOW} in flight"
    there, many = of("there", "one", "p50_us"), of("there", "many", "calls_per_s")
    return [
        Comparison("C1", "a call of another engine against one of its own", "us p50", TARGET_LOCAL).row(
            there, of("here", "one", "p50_us")
        ),
        Comparison("C2", "the same against nats-py's request and reply", "us p50", TARGET_NATS).row(
            there, [each["one"]["p50_us"] for each in nats]
        ),
        Comparison("C3", f"{rate}, against its own", "calls/s", None, False).row(
            many, of("here", "many", "calls_per_s")
        ),
        Comparison("C4", f"{rate}, against nats-py", "calls/s", None, False).row(
            many, [each["many"]["calls_per_s"] for each in nats]
        ),
    ]


def two_engines(servers: NatsServers, times: int) -> dict[str, Any]:
    """Return the figures of `ends/cluster_caller.py`: of its engine, and of another one on another server."""
    with tempfile.TemporaryDirectory(prefix="iii-bench-") as path:
        report = Path(path) / "report"
        os.mkfifo(report)
        workers = {
            "there": worker_table("callee", "cluster_callee.py", (), {"function": "there::echo"}),
            "here": worker_table("callee", "cluster_callee.py", (), {"function": "here::echo"})
            + worker_table("caller", "cluster_caller.py", (), {"report": str(report), "calls": times}),
        }
        for index, (name, tables) in enumerate(workers.items()):
            folder = Path(path) / name
            folder.mkdir()
            cluster = f'[cluster]\nname = "bench"\nengine = "{name}"\nservers = ["{servers.url(index)}"]\n'
            (folder / "iii.toml").write_text(f'[engine]\nlisten = "off"\n{cluster}{tables}', encoding="utf-8")
        with engine(Path(path) / "there", "start"), engine(Path(path) / "here", "start"):
            return read_report(report)


async def request_and_reply(servers: NatsServers, times: int) -> dict[str, Any]:
    """Return the same figures of nats-py between two servers, its callee in a process of its own."""
    import nats

    command = [sys.executable, str(ENDS / "nats_callee.py"), servers.url(0)]
    callee = subprocess.Popen(command, stdout=subprocess.PIPE)
    try:
        assert callee.stdout is not None
        callee.stdout.readline()
        client = await nats.connect(servers.url(1))

        async def requests(count: int, latencies: list[float]) -> None:
            for _ in range(count):
                begin = time.perf_counter()
                await client.request("bench.echo", b'{"a":2,"b":3}', 10)
                latencies.append(time.perf_counter() - begin)

        async def load(window: int, count: int) -> dict[str, float]:
            latencies: list[float] = []
            begin = time.perf_counter()
            await asyncio.gather(*(requests(count // window, latencies) for _ in range(window)))
            seconds = time.perf_counter() - begin
            return {"p50_us": sorted(latencies)[len(latencies) // 2] * 1e6, "calls_per_s": len(latencies) / seconds}

        await load(WINDOW, 640)
        figures = {"one": await load(1, times), "many": await load(WINDOW, times)}
        await client.close()
        return figures
    finally:
        callee.kill()
        callee.communicate()


def main() -> None:
    """Run everything and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.b_cluster", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer calls and rounds")
    print(table(run(Options(quick=parser.parse_args().quick))))


if __name__ == "__main__":
    main()
