"""`iii functions`: what can be called. A printer over `engine::functions::list`."""

from __future__ import annotations

from typing import Any

import click

from cli.client.connection import connect
from cli.commands.options import engine_option, json_option
from cli.text.output import shown_json, write
from cli.text.table import table

COLUMNS = ("FUNCTION", "WORKER", "DESCRIPTION")


@click.command("functions")
@click.argument("search", required=False)
@click.option("--worker", metavar="NAME", help="Only the functions of this worker.")
@click.option("--all", "with_internal", is_flag=True, help="The engine's own functions too.")
@engine_option
@json_option
def command(search: str | None, worker: str | None, with_internal: bool, engine: str | None, as_json: bool) -> None:
    """List the functions that can be called; SEARCH keeps those that contain it."""
    filters: dict[str, Any] = {"search": search, "worker": worker, "include_internal": with_internal}
    filters = {name: value for name, value in filters.items() if value}
    with connect(engine) as connection:
        listed = connection.call("engine::functions::list", filters)
    write(shown_json(listed) if as_json else table(COLUMNS, map(row_of, listed["functions"])))


def row_of(function: dict[str, Any]) -> tuple[object, ...]:
    """Return the cells of one row: the first line of a description; the namespace unless it is `default`."""
    namespace = function.get("namespace", "default")
    name = function["function_id"] if namespace == "default" else f"{function['function_id']} ({namespace})"
    lines = str(function.get("description") or "").strip().split("\n")
    return name, function.get("worker_name"), lines[0]
