"""`iii top`: the table of `iii ps`, live. Draws over itself in a terminal, prints once elsewhere."""

from __future__ import annotations

import json
import sys
import time
from typing import Any

import click

from cli.client.connection import Connection, connect
from cli.commands.options import engine_option, json_option
from cli.observe.ps import COLUMNS, row_of
from cli.text.output import write
from cli.text.table import size, table

# To the first line of the table, and erase from there: the terminal's history above stays as it is.
_REDRAW = "\x1b[{lines}A\x1b[J"


@click.command("top")
@click.option("--once", is_flag=True, help="Show it once and leave.")
@click.option("--every", type=click.FloatRange(0.1, 3600), default=1.0, show_default=True, help="Seconds in between.")
@engine_option
@json_option
def command(once: bool, every: float, engine: str | None, as_json: bool) -> int:
    """Show the workers and what they use, again and again. Ctrl-C leaves."""
    is_live = sys.stdout.isatty() and not once
    with connect(engine) as connection:
        drawn = 0  # lines of the table on the screen, which the next one replaces
        while True:
            workers = listed(connection)
            if as_json:
                sys.stdout.write(json.dumps({"workers": workers}, separators=(",", ":")) + "\n")
            else:
                text = f"{summary(workers)}\n{table(COLUMNS, map(row_of, workers))}"
                if drawn:
                    sys.stdout.write(_REDRAW.format(lines=drawn))
                write(_clipped(text) if is_live else text)
                drawn = text.count("\n") + 1
            sys.stdout.flush()
            if once or not (is_live or as_json):
                return 0
            time.sleep(every)  # the refresh the user asked for: usage changes all the time, without an event


def listed(connection: Connection) -> list[dict[str, Any]]:
    """Return the workers that have a process or a state, busiest first."""
    workers: list[dict[str, Any]] = connection.call("engine::workers::list")["workers"]
    return sorted(workers, key=lambda worker: (-_metric(worker, "cpu_percent"), str(worker.get("name"))))


def summary(workers: list[dict[str, Any]]) -> str:
    """Return one line about all workers together."""
    cpu = sum(_metric(worker, "cpu_percent") for worker in workers)
    memory = size(sum(_metric(worker, "memory_rss") for worker in workers))
    return f"{len(workers)} worker{'' if len(workers) == 1 else 's'}, {cpu:.1f}% CPU, {memory} memory"


def _metric(worker: dict[str, Any], name: str) -> float:
    return float((worker.get("metrics") or {}).get(name) or 0.0)


def _clipped(text: str) -> str:
    """Cut lines at the terminal's edge: a line that wraps would be two on the screen."""
    import shutil  # a terminal only

    width = max(shutil.get_terminal_size().columns, 1)
    return "\n".join(line[:width] for line in text.split("\n"))
