"""DBOS on SQLite: workflows of five local steps, one after the other. `dbos_steps.py 1 WORKFLOWS FOLDER`."""

from __future__ import annotations

import sys
import time

from dbos import DBOS
from figures import CALLS, report

DBOS(config={"name": "bench", "system_database_url": f"sqlite:///{sys.argv[3]}/dbos.sqlite", "log_level": "ERROR"})


@DBOS.step()
def step(number: int) -> int:
    """Do nothing."""
    return number


@DBOS.workflow()
def five() -> int:
    """Make five steps."""
    return sum(step(number) for number in range(5))


def main() -> None:
    """Warm up and measure."""
    DBOS.launch()
    latencies: list[float] = []
    for _ in range(CALLS // 5):
        five()
    begin = time.perf_counter()
    for _ in range(CALLS):
        began = time.perf_counter()
        five()
        latencies.append(time.perf_counter() - began)
    report(latencies, time.perf_counter() - begin)
    DBOS.destroy()


if __name__ == "__main__":
    main()
