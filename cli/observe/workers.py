"""`iii ps`, `iii top` and `iii worker`: the workers as the engine sees them, once or live; restart, stop or start one.

`top` draws over itself in a terminal and prints once elsewhere.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Iterable
from typing import Any

import click

from cli.client.connection import Connection, connect
from cli.client.errors import UsageError, note_other_version
from cli.commands import completion
from cli.commands.options import engine_options
from cli.observe.engines import engine_name_option, merged
from cli.text.output import count, shown, shown_json, write
from cli.text.progress import progress
from cli.text.table import duration, size, table
from iii.suggestions import did_you_mean

COLUMNS = ("NAME", "STATE", "GEN", "PID", "CPU", "MEMORY", "RESTARTS", "FUNCTIONS", "UPTIME", "LAST EXIT")
# A restart waits for the new generation's `ready`, a stop for the old one's last process.
WORKER_TIMEOUT_MS = 120_000


@click.command("ps")
@engine_name_option
@engine_options
def ps(engine_name: str | None, engine: str | None, as_json: bool) -> None:
    """Show the workers of all engines: state, generation, process, load, restarts."""
    with connect(engine) as connection:
        listed = merged(connection, "engine::workers::list", {}, engine_name, "workers")
    note_other_version()
    write(shown_json(listed) if as_json else workers_table(listed["workers"]))


def workers_table(workers: Iterable[dict[str, Any]]) -> str:
    """Return the table of rows of `engine::workers::list`, with the column ENGINE where rows name their engine."""
    drop = ("FUNCTIONS", "GEN", "UPTIME", "RESTARTS", "CPU", "MEMORY", "LAST EXIT", "PID")
    workers = list(workers)
    if not any("engine" in worker for worker in workers):
        return table(COLUMNS, map(row_of, workers), cut="LAST EXIT", drop=drop)
    rows = [(name, worker.get("engine"), *cells) for worker in workers for name, *cells in [row_of(worker)]]
    return table((COLUMNS[0], "ENGINE", *COLUMNS[1:]), rows, cut="LAST EXIT", drop=drop)


def row_of(worker: dict[str, Any]) -> tuple[object, ...]:
    """Return the cells of one row of `engine::workers::list`; None for what the engine does not know."""
    metrics = worker.get("metrics") or {}
    cpu = metrics.get("cpu_percent")
    instance = worker.get("instance") or 0
    last_exit = worker.get("last_exit")
    if isinstance(last_exit, dict):
        last_exit = last_exit.get("reason") or last_exit
    error = worker.get("last_error")
    if worker.get("state") == "failed" and isinstance(error, dict):
        last_exit = f"{error['text']} ({error['file']}:{error['line']})"
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


@click.command("top")
@click.option("--once", is_flag=True, help="Show it once and leave.")
@click.option("--every", type=click.FloatRange(0.1, 3600), default=1.0, show_default=True, help="Seconds in between.")
@engine_options
def top(once: bool, every: float, engine: str | None, as_json: bool) -> None:
    """Show the workers and what they use, again and again. Ctrl-C leaves."""
    with connect(engine) as connection:
        if as_json or once or not sys.stdout.isatty():
            while True:
                workers = listed(connection)
                if as_json:
                    write(json.dumps({"workers": workers}, separators=(",", ":")))
                else:
                    write(picture(workers))
                sys.stdout.flush()
                if once or not as_json:
                    return
                time.sleep(every)  # the refresh the user asked for: usage changes all the time, without an event
        from rich.live import Live  # a terminal only
        from rich.text import Text

        with Live(auto_refresh=False) as live:
            while True:
                live.update(Text(picture(listed(connection)), no_wrap=True, overflow="crop"), refresh=True)
                time.sleep(every)  # as above


def picture(workers: list[dict[str, Any]]) -> str:
    """Return what `iii top` shows: a line about all workers together, and a row for each."""
    return f"{summary(workers)}\n{workers_table(workers)}"


def listed(connection: Connection) -> list[dict[str, Any]]:
    """Return the workers that have a process or a state, busiest first."""
    workers: list[dict[str, Any]] = connection.look_up("engine::workers::list")["workers"]
    return sorted(workers, key=lambda worker: (-_metric(worker, "cpu_percent"), str(worker.get("name"))))


def summary(workers: list[dict[str, Any]]) -> str:
    """Return one line about all workers together."""
    cpu = sum(_metric(worker, "cpu_percent") for worker in workers)
    memory = size(sum(_metric(worker, "memory_rss") for worker in workers))
    return f"{count(len(workers), 'worker')}, {cpu:.1f}% CPU, {memory} memory"


def _metric(worker: dict[str, Any], name: str) -> float:
    return float((worker.get("metrics") or {}).get(name) or 0.0)


@click.command("status")
@click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=completion.worker_names)
@engine_options
def status(names: tuple[str, ...], engine: str | None, as_json: bool) -> None:
    """Show workers by name, each with its instances."""
    with connect(engine) as connection:
        rows = connection.look_up("engine::workers::list")["workers"]
    known = {str(row.get("name")) for row in rows}
    for name in names:
        if name not in known:
            hint = did_you_mean(name, known) or f"there are: {', '.join(sorted(known))}"
            raise UsageError(f"there is no worker `{name}`", hint)
    rows = [row for row in rows if row.get("name") in names]
    write(shown_json({"workers": rows}) if as_json else workers_table(rows))


def _verb(verb: str, text: str) -> click.Command:
    @click.command(verb, help=f"{text} Returns when it has happened.")
    @click.argument("names", nargs=-1, required=True, metavar="NAME...", shell_complete=completion.worker_names)
    @engine_options
    def manage(names: tuple[str, ...], engine: str | None, as_json: bool) -> None:
        workers = []
        with connect(engine) as connection:
            for name in names:
                with progress(f"{verb} {name}"):
                    workers += connection.call(f"engine::workers::{verb}", {"name": name}, WORKER_TIMEOUT_MS)["workers"]
        if as_json:
            write(shown_json({"workers": workers}))
            return
        for row in workers:
            generation = f", generation {row['generation']}" if row.get("generation") else ""
            write(shown(f"{row['name']}: {row['state']}{generation}"))

    return manage


restart = _verb("restart", "Start a new process of the worker.")
stop = _verb("stop", "Stop the worker until it is started again.")
start = _verb("start", "Start a worker that was stopped or has failed.")
