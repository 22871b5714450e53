"""`iii triggers`: which event calls which function. A printer over `engine::triggers::list`."""

from __future__ import annotations

import click

from cli.client.connection import connect
from cli.commands.options import engine_option, json_option
from cli.text.output import shown_json, write
from cli.text.table import table

COLUMNS = ("TYPE", "FUNCTION", "WORKER", "CONFIG", "ID")


@click.command("triggers")
@click.argument("search", required=False)
@click.option("--types", is_flag=True, help="List the kinds of triggers instead of the triggers.")
@engine_option
@json_option
def command(search: str | None, types: bool, engine: str | None, as_json: bool) -> None:
    """List what calls which function; SEARCH keeps those that contain it."""
    with connect(engine) as connection:
        listed = connection.call("engine::triggers::list", {"search": search} if search else {})
    if as_json:
        write(shown_json(listed))
    elif types:
        rows = [(row["id"], row.get("worker_name"), row.get("description")) for row in listed["trigger_types"]]
        write(table(("TYPE", "WORKER", "DESCRIPTION"), rows))
    else:
        fields = ("trigger_type", "function_id", "worker_name", "config_summary", "id")
        write(table(COLUMNS, [[trigger.get(name) for name in fields] for trigger in listed["triggers"]]))
