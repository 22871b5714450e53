"""`iii functions`, `iii triggers` and `iii openapi`: what the workers of a running project have registered."""

from __future__ import annotations

from typing import Any

import click

from cli.client.connection import connect
from cli.commands import completion
from cli.commands.options import engine_option, engine_options
from cli.observe.engines import answers, check_engine_name, engine_name_option
from cli.text.output import shown_json, write
from cli.text.table import table


@click.command("functions")
@click.argument("search", required=False, shell_complete=completion.function_names)
@click.option(
    "--worker", metavar="NAME", shell_complete=completion.worker_names, help="Only the functions of this worker."
)
@click.option("--all", "with_internal", is_flag=True, help="The engine's own functions too.")
@engine_name_option
@engine_options
def functions(
    search: str | None,
    worker: str | None,
    with_internal: bool,
    engine_name: str | None,
    engine: str | None,
    as_json: bool,
) -> None:
    """List the functions that can be called; SEARCH keeps those that contain it."""
    filters: dict[str, Any] = {"search": search, "worker": worker, "include_internal": with_internal}
    with connect(engine) as connection:
        listed = connection.look_up(
            "engine::functions::list", {name: value for name, value in filters.items() if value}
        )
    check_engine_name(listed, engine_name)
    if engine_name is not None:
        listed["functions"] = [row for row in listed["functions"] if engine_name in row["engines"]]
    if as_json:
        write(shown_json(listed))
        return
    columns = ("FUNCTION", "WORKER", *(("ENGINE",) if "engines" in listed else ()), "DESCRIPTION")
    rows = []
    for function in listed["functions"]:
        namespace = function.get("namespace", "default")
        name = function["function_id"] if namespace == "default" else f"{function['function_id']} ({namespace})"
        first_line = str(function.get("description") or "").strip().partition("\n")[0]
        where = (", ".join(function["engines"]),) if "engines" in listed else ()
        rows.append((name, function.get("worker_name"), *where, first_line))
    write(table(columns, rows, cut="DESCRIPTION", drop=("DESCRIPTION", "WORKER")))


@click.command("triggers")
@click.argument("search", required=False)
@click.option("--types", is_flag=True, help="List the kinds of triggers instead of the triggers.")
@engine_name_option
@engine_options
def triggers(search: str | None, types: bool, engine_name: str | None, engine: str | None, as_json: bool) -> None:
    """List what calls which function; SEARCH keeps those that contain it."""
    listed: dict[str, Any] = {"triggers": [], "trigger_types": []}
    with connect(engine) as connection:
        filters = {"search": search} if search else {}
        for name, answer in answers(connection, "engine::triggers::list", filters, engine_name):
            where = {} if name is None else {"engine": name}
            for key, rows in listed.items():
                rows += [{**row, **where} for row in answer[key]]
    if as_json:
        write(shown_json(listed))
        return
    place = {"engine": "ENGINE"} if any("engine" in row for row in listed["trigger_types"] + listed["triggers"]) else {}
    if types:
        fields = {"id": "TYPE", "worker_name": "WORKER", **place, "description": "DESCRIPTION"}
        rows = [[row.get(name) for name in fields] for row in listed["trigger_types"]]
        write(table(tuple(fields.values()), rows, cut="DESCRIPTION", drop=("DESCRIPTION", "WORKER")))
    else:
        fields = {"trigger_type": "TYPE", "function_id": "FUNCTION", "worker_name": "WORKER", **place}
        fields |= {"config_summary": "CONFIG", "id": "ID"}
        columns = tuple(fields.values())
        bindings = [{**row, **binding} for row in listed["triggers"] for binding in row["bindings"]]
        cells = [[binding.get(name) for name in fields] for binding in bindings]
        write(table(columns, cells, cut="CONFIG", drop=("WORKER", "CONFIG", "ID")))


@click.command("openapi")
@engine_option
def openapi(engine: str | None) -> None:
    """Print the OpenAPI 3.1 document of all http routes that are live."""
    with connect(engine) as connection:
        write(shown_json(connection.look_up("http::openapi")))
