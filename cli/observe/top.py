"""`iii top`: the table of `iii ps`, live. Draws over itself in a terminal, prints once elsewhere.

Called by `commands`.
"""

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

# Home, and erase what is below: the rest of the terminal's history stays as it is.
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
        show = _show_json if as_json else _Table(is_live=is_live).show
        show(listed(connection))
        while is_live or (as_json and not once):
            time.sleep(every)  # the refresh that was asked for: usage changes all the time, there is no event of it
            show(listed(connection))
    return 0


def listed(connection: Connection) -> list[dict[str, Any]]:
    """Return the workers that have a process or a state, busiest first."""
    workers: list[dict[str, Any]] = connection.call("engine::workers::list")["workers"]
    return sorted(workers, key=lambda worker: (-_metric(worker, "cpu_percent"), str(worker.get("name"))))


def summary(workers: list[dict[str, Any]]) -> str:
    """Return one line about all of them."""
    cpu = sum(_metric(worker, "cpu_percent") for worker in workers)
    memory = size(sum(_metric(worker, "memory_rss") for worker in workers))
    return f"{len(workers)} worker{'' if len(workers) == 1 else 's'}, {cpu:.1f}% CPU, {memory} memory"


def _metric(worker: dict[str, Any], name: str) -> float:
    return float((worker.get("metrics") or {}).get(name) or 0.0)


def _show_json(workers: list[dict[str, Any]]) -> None:
    sys.stdout.write(json.dumps({"workers": workers}, separators=(",", ":")) + "\n")
    sys.stdout.flush()


class _Table:
    """What is on the screen now, so that the next look replaces it."""

    def __init__(self, *, is_live: bool) -> None:
        self._is_live = is_live
        self._drawn = 0

    def show(self, workers: list[dict[str, Any]]) -> None:
        text = f"{summary(workers)}\n{table(COLUMNS, [row_of(worker) for worker in workers])}"
        if self._drawn:
            sys.stdout.write(_REDRAW.format(lines=self._drawn))
        write(_clipped(text) if self._is_live else text)
        sys.stdout.flush()
        self._drawn = text.count("\n") + 1


def _clipped(text: str) -> str:
    """Cut lines at the terminal's edge: a line that wraps would be two on the screen."""
    import shutil  # a terminal only

    width = max(shutil.get_terminal_size().columns, 1)
    return "\n".join(line[:width] for line in text.split("\n"))
