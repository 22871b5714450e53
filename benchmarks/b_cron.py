"""Schedules: what a hundred thousand of them cost the cron worker. `python -m benchmarks.b_cron [--schedules N]`.

Prints memory, and what is used of the CPU in idle seconds, beside those of a worker that has none.
"""

from __future__ import annotations

import argparse
import json
import time
from pathlib import Path

import psutil

from benchmarks.b_queue import folder
from benchmarks.harness import number
from benchmarks.setups import PATIENCE, engine
from cli.client.connection import connect
from iii.errors import IIIError
from stdlib_workers.cron.job_store import SCHEMA
from stdlib_workers.cron.schedule_store import ScheduleStore
from stdlib_workers.cron.schedules import Schedule
from stdlib_workers.storage import Store

# Schedules that are written before the store is waited for, and the seconds that are looked at.
ROWS, IDLE_SECONDS = 1_000, 5.0


def cost(count: int) -> dict[str, float]:
    """Start an engine with so many schedules, none of which is due; return what its cron worker uses."""
    with folder() as made:
        (made / "iii.toml").write_text('[engine]\nlisten = "off"\n[workers.cron]\n', encoding="utf-8")
        (made / ".iii").mkdir()
        fill(made / ".iii" / "cron.db", count)
        begin = time.perf_counter()
        with engine(made, "start"):
            process = psutil.Process(pid_of(made))
            ready = (time.perf_counter() - begin) * 1000
            time.sleep(1.0)  # what its start has left
            before, woken = process.cpu_times(), process.num_ctx_switches().voluntary
            time.sleep(IDLE_SECONDS)
            after = process.cpu_times()
            return {
                "ready_ms": ready,
                "rss_mib": process.memory_info().rss / 2**20,
                "idle_cpu_ms_a_second": (after.user + after.system - before.user - before.system) * 1000 / IDLE_SECONDS,
                "wakeups_a_second": (process.num_ctx_switches().voluntary - woken) / IDLE_SECONDS,
            }


def pid_of(project: Path) -> int:
    """Return the process of the cron worker as soon as it answers."""
    give_up = time.monotonic() + PATIENCE
    while True:
        try:
            run = json.loads((project / ".iii" / "run" / "engine.json").read_text(encoding="utf-8"))
            with connect(run["socket"]) as connection:
                connection.call("cron::schedules", {"limit": 1})
                workers = connection.call("engine::workers::list")["workers"]
                return int(next(each["pid"] for each in workers if each["name"] == "cron"))
        except (OSError, ValueError, IIIError):
            if time.monotonic() > give_up:
                raise
        time.sleep(0.005)


def fill(database: Path, count: int) -> None:
    """Make a database of schedules that are due once a year."""
    store = Store(database, SCHEMA)
    schedules, now = ScheduleStore(store), round(time.time() * 1000)
    for index in range(count):
        written = schedules.put(Schedule(f"s{index:06}", "a::b", now, every_ms=365 * 86_400_000), now)
        if index % ROWS == 0 or index == count - 1:
            written.result()
    store.close()


def main() -> None:
    """Measure both and print them."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.b_cron", description=__doc__)
    parser.add_argument("--schedules", type=int, default=100_000)
    for count in (0, parser.parse_args().schedules):
        print(f"{count:,} schedules: " + ", ".join(f"{name} {number(value)}" for name, value in cost(count).items()))


if __name__ == "__main__":
    main()
