"""`iii ps`: the workers as the engine sees them. A printer over `engine::workers::list`."""

from __future__ import annotations

from typing import Any

import click

from cli.client.connection import connect
from cli.client.version_check import note_other_version
from cli.commands.options import engine_option, json_option
from cli.text.output import shown_json, write
from cli.text.table import duration, size, table

COLUMNS = ("NAME", "STATE", "GEN", "PID", "CPU", "MEMORY", "RESTARTS", "FUNCTIONS", "UPTIME", "LAST EXIT")


@click.command("ps")
@engine_option
@json_option
def command(engine: str | None, as_json: bool) -> int:
    """Show the workers: state, generation, process, load, restarts."""
    with connect(engine) as connection:
        listed = connection.call("engine::workers::list")
    note_other_version()
    write(shown_json(listed) if as_json else table(COLUMNS, map(row_of, listed["workers"])))
    return 0


def row_of(worker: dict[str, Any]) -> tuple[object, ...]:
    """Return the cells of one row of `engine::workers::list`; None for what the engine does not know."""
    metrics = worker.get("metrics") or {}
    cpu = metrics.get("cpu_percent")
    instance = worker.get("instance") or 0
    last_exit = worker.get("last_exit")
    if isinstance(last_exit, dict):
        last_exit = last_exit.get("reason") or last_exit
    return (
        f"{worker.get('name')}/{instance}" if instance else str(worker.get("name")),
        worker.get("state") or worker.get("status"),
        worker.get("generation"),
        worker.get("pid"),
        None if cpu is None else f"{cpu:.1f}%",
        size(metrics.get("memory_rss")),
        worker.get("restarts"),
        worker.get("function_count"),
        duration(metrics.get("uptime_seconds")),
        None if last_exit is None else str(last_exit),
    )
