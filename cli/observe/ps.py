"""`iii ps`: the workers as the engine sees them. A printer over `engine::workers::list`. Called by `commands`."""

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
    if as_json:
        write(shown_json(listed))
    else:
        write(table(COLUMNS, [row_of(worker) for worker in listed["workers"]]))
    return 0


def row_of(worker: dict[str, Any]) -> tuple[object, ...]:
    """Return the cells of one row of `engine::workers::list`; what the engine does not know is None."""
    metrics = worker.get("metrics") or {}
    cpu = metrics.get("cpu_percent")
    return (
        _name(worker),
        worker.get("state") or worker.get("status"),
        worker.get("generation"),
        worker.get("pid"),
        None if cpu is None else f"{cpu:.1f}%",
        size(metrics.get("memory_rss")),
        worker.get("restarts"),
        worker.get("function_count"),
        duration(metrics.get("uptime_seconds")),
        _last_exit(worker.get("last_exit")),
    )


def _name(worker: dict[str, Any]) -> str:
    instance = worker.get("instance") or 0
    name = str(worker.get("name"))
    return f"{name}/{instance}" if instance else name


def _last_exit(last_exit: Any) -> str | None:
    if isinstance(last_exit, dict):
        return str(last_exit.get("reason") or last_exit)
    return None if last_exit is None else str(last_exit)
