"""`iii functions`, `iii triggers` and `iii openapi`: what the workers of a running project have registered."""

from __future__ import annotations

from typing import Any

import click

from cli.client.connection import connect
from cli.commands import completion
from cli.commands.options import engine_option, engine_options
from cli.text.output import shown_json, write
from cli.text.table import table


@click.command("functions")
@click.argument("search", required=False, shell_complete=completion.function_names)
@click.option(
    "--worker", metavar="NAME", shell_complete=completion.worker_names, help="Only the functions of this worker."
)
@click.option("--all", "with_internal", is_flag=True, help="The engine's own functions too.")
@engine_options
def functions(search: str | None, worker: str | None, with_internal: bool, engine: str | None, as_json: bool) -> None:
    """List the functions that can be called; SEARCH keeps those that contain it."""
    filters: dict[str, Any] = {"search": search, "worker": worker, "include_internal": with_internal}
    with connect(engine) as connection:
        listed = connection.look_up(
            "engine::functions::list", {name: value for name, value in filters.items() if value}
        )
    if as_json:
        write(shown_json(listed))
        return
    rows = []
    for function in listed["functions"]:
        namespace = function.get("namespace", "default")
        name = function["function_id"] if namespace == "default" else f"{function['function_id']} ({namespace})"
        first_line = str(function.get("description") or "").strip().partition("\n")[0]
        rows.append((name, function.get("worker_name"), first_line))
    write(table(("FUNCTION", "WORKER", "DESCRIPTION"), rows, cut="DESCRIPTION", drop=("DESCRIPTION", "WORKER")))


@click.command("triggers")
@click.argument("search", required=False)
@click.option("--types", is_flag=True, help="List the kinds of triggers instead of the triggers.")
@engine_options
def triggers(search: str | None, types: bool, engine: str | None, as_json: bool) -> None:
    """List what calls which function; SEARCH keeps those that contain it."""
    with connect(engine) as connection:
        listed = connection.look_up("engine::triggers::list", {"search": search} if search else {})
    if as_json:
        write(shown_json(listed))
    elif types:
        rows = [(row["id"], row.get("worker_name"), row.get("description")) for row in listed["trigger_types"]]
        write(table(("TYPE", "WORKER", "DESCRIPTION"), rows, cut="DESCRIPTION", drop=("DESCRIPTION", "WORKER")))
    else:
        fields = ("trigger_type", "function_id", "worker_name", "config_summary", "id")
        columns = ("TYPE", "FUNCTION", "WORKER", "CONFIG", "ID")
        bindings = [binding for row in listed["triggers"] for binding in row["bindings"]]
        cells = [[binding.get(name) for name in fields] for binding in bindings]
        write(table(columns, cells, cut="CONFIG", drop=("WORKER", "CONFIG", "ID")))


@click.command("openapi")
@engine_option
def openapi(engine: str | None) -> None:
    """Print the OpenAPI 3.1 document of all http routes that are live."""
    with connect(engine) as connection:
        write(shown_json(connection.look_up("http::openapi")))
