"""`iii state get|set|list|watch`: printers over the functions of the standard worker `state`."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from typing import Any

import click

from cli.client.connection import Connection, connect
from cli.client.errors import FAILED
from cli.client.follow import follow
from cli.commands.options import engine_option, json_option
from cli.text.output import shown, shown_json, write
from cli.text.table import table
from cli.trigger.payload import convert

PAGE = 1000


@click.group("state")
def command() -> None:
    """Read, write and watch what the state worker keeps."""


@command.command("get")
@click.argument("scope")
@click.argument("key")
@engine_option
@json_option
def get(scope: str, key: str, engine: str | None, as_json: bool) -> int:
    """Print a value; exit code 1 when there is none. With --json also its version."""
    with connect(engine) as connection:
        entry = connection.call("state::get_entry", {"scope": scope, "key": key})
    if as_json:
        write(shown_json(entry, raw=True))
    elif entry is not None:
        write(shown_json(entry["value"]))
    return FAILED if entry is None else 0


@command.command("set")
@click.argument("scope")
@click.argument("key")
@click.argument("value")
@click.option("--if-version", type=int, metavar="N", help="Only over this version; 0: only if there is none.")
@click.option("--string", "is_text", is_flag=True, help="Take VALUE as text even if it is JSON.")
@engine_option
@json_option
def set_(
    scope: str, key: str, value: str, if_version: int | None, is_text: bool, engine: str | None, as_json: bool
) -> None:
    """Write VALUE: JSON if it parses, else text."""
    payload: dict[str, Any] = {"scope": scope, "key": key, "value": value if is_text else convert(value)}
    if if_version is not None:
        payload["if_version"] = if_version
    with connect(engine) as connection:
        result = connection.call("state::set", payload)
    if as_json:
        write(shown_json(result, raw=True))


@command.command("list")
@click.argument("scope", required=False)
@engine_option
@json_option
def list_(scope: str | None, engine: str | None, as_json: bool) -> None:
    """List the scopes, or the keys and values of SCOPE; --json prints one object a line."""
    with connect(engine) as connection:
        if scope is None:
            rows = [{"scope": name} for name in connection.call("state::list_groups")["groups"]]
        else:
            rows = list(_entries(connection, scope))
    if as_json:
        for row in rows:
            write(shown_json(row, raw=True))
    elif scope is None:
        write(table(("SCOPE",), [(row["scope"],) for row in rows]))
    else:
        write(table(("KEY", "VALUE"), [(row["key"], shown_json(row["value"], raw=True)) for row in rows]))


def _entries(connection: Connection, scope: str) -> Iterator[dict[str, Any]]:
    cursor = None
    while True:
        query = {"scope": scope, "limit": PAGE, "max_bytes": 8_000_000, "cursor": cursor}
        page = connection.call("state::list_entries", query)
        yield from page["entries"]
        cursor = page["next_cursor"]
        if cursor is None:
            return


@command.command("watch")
@click.argument("scope", required=False)
@click.argument("key", required=False)
@engine_option
@json_option
def watch(scope: str | None, key: str | None, engine: str | None, as_json: bool) -> None:
    """Print every write of SCOPE (and KEY) as it happens, until Ctrl-C."""
    config = {name: value for name, value in (("scope", scope), ("key", key)) if value is not None}
    with connect(engine) as connection:
        connection.call("engine::functions::info", {"function_id": "state::get"})
        for event in follow(connection, "state", config):
            if as_json:
                write(shown_json(event, raw=True))
            else:
                event_name = event["event_type"].removeprefix("state:")
                value = "" if event_name == "deleted" else f" {shown_json(event['new_value'], raw=True)}"
                write(shown(f"{event['scope']} {event['key']} {event_name}") + value)
            sys.stdout.flush()  # the reader of a pipe wants each event when it happens
