"""`iii state ...` and `iii stream tail`: printers over the functions and events of these two standard workers."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from typing import Any

import click

from cli.client.connection import Connection, connect, new_id
from cli.client.errors import FAILED, invocation_error
from cli.commands.options import engine_options
from cli.text.output import shown, shown_json, write
from cli.text.table import table
from cli.trigger.payload import convert

PAGE = 1000


@click.group("state")
def state() -> None:
    """Read, write and watch what the state worker keeps."""


@state.command("get")
@click.argument("scope")
@click.argument("key")
@engine_options
def get(scope: str, key: str, engine: str | None, as_json: bool) -> int:
    """Print a value; exit code 1 when there is none. With --json also its version."""
    with connect(engine) as connection:
        entry = connection.look_up("state::get_entry", {"scope": scope, "key": key})
    if as_json:
        write(shown_json(entry, raw=True))
    elif entry is not None:
        write(shown_json(entry["value"]))
    return FAILED if entry is None else 0


@state.command("set")
@click.argument("scope")
@click.argument("key")
@click.argument("value")
@click.option("--if-version", type=int, metavar="N", help="Only over this version; 0: only if there is none.")
@click.option("--string", "is_text", is_flag=True, help="Take VALUE as text even if it is JSON.")
@engine_options
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


@state.command("list")
@click.argument("scope", required=False)
@engine_options
def list_(scope: str | None, engine: str | None, as_json: bool) -> None:
    """List the scopes, or the keys and values of SCOPE; --json prints one object a line."""
    with connect(engine) as connection:
        if scope is None:
            rows = [{"scope": name} for name in connection.look_up("state::list_groups")["groups"]]
        else:
            rows = list(_entries(connection, scope))
    if as_json:
        for row in rows:
            write(shown_json(row, raw=True))
    elif scope is None:
        write(table(("SCOPE",), [(row["scope"],) for row in rows]))
    else:
        cells = [(row["key"], shown_json(row["value"], raw=True)) for row in rows]
        write(table(("KEY", "VALUE"), cells, cut="VALUE"))


def _entries(connection: Connection, scope: str) -> Iterator[dict[str, Any]]:
    cursor = None
    while True:
        query = {"scope": scope, "limit": PAGE, "max_bytes": 8_000_000, "cursor": cursor}
        page = connection.look_up("state::list_entries", query)
        yield from page["entries"]
        cursor = page["next_cursor"]
        if cursor is None:
            return


@state.command("watch")
@click.argument("scope", required=False)
@click.argument("key", required=False)
@engine_options
def watch(scope: str | None, key: str | None, engine: str | None, as_json: bool) -> None:
    """Print every write of SCOPE (and KEY) as it happens, until Ctrl-C."""

    def text_of(event: dict[str, Any]) -> str:
        event_name = event["event_type"].removeprefix("state:")
        value = "" if event_name == "deleted" else f" {shown_json(event['new_value'], raw=True)}"
        return shown(f"{event['scope']} {event['key']} {event_name}") + value

    _print_events(engine, "state", {"scope": scope, "key": key}, None if as_json else text_of)


@click.group("stream")
def stream() -> None:
    """Follow what the stream worker tells."""


@stream.command("tail")
@click.argument("stream")
@click.argument("group", required=False)
@click.argument("item", required=False)
@engine_options
def tail(stream: str, group: str | None, item: str | None, engine: str | None, as_json: bool) -> None:
    """Print every event of STREAM (of a GROUP, of an ITEM) as it happens, until Ctrl-C."""

    def text_of(envelope: dict[str, Any]) -> str:
        event = envelope["event"]
        if event["type"] == "event":
            event = event["event"]
        place = " ".join(str(envelope[name]) for name in ("groupId", "id") if envelope[name] is not None)
        return f"{shown(place)} {shown(event['type'])} {shown_json(event.get('data'), raw=True)}"

    filters = {"stream_name": stream, "group_id": group, "item_id": item}
    _print_events(engine, "stream", filters, None if as_json else text_of)


def _print_events(
    engine: str | None, worker: str, filters: dict[str, str | None], text_of: Callable[[dict[str, Any]], str] | None
) -> None:
    """Print every event of the worker's trigger that passes the filters, as JSON without `text_of`, until Ctrl-C."""
    config = {name: value for name, value in filters.items() if value is not None}
    with connect(engine) as connection:
        connection.call("engine::functions::info", {"function_id": f"{worker}::get"})
        for event in _events(connection, worker, config):
            write(text_of(event) if text_of else shown_json(event, raw=True))
            sys.stdout.flush()  # the reader of a pipe wants each event when it happens


def _events(connection: Connection, trigger_type: str, config: dict[str, Any]) -> Iterator[Any]:
    """Bind a function of this process to the trigger, and yield the payload of every call of it.

    The binding ends with the connection. Raises InvocationError when it is refused.
    """
    function_id = f"cli::{new_id()}"
    connection.send({"type": "registerfunction", "id": function_id, "metadata": {"internal": True}})
    binding = {"id": new_id(), "trigger_type": trigger_type, "function_id": function_id, "config": config}
    connection.send({"type": "registertrigger", **binding})
    while True:
        message = connection.receive()
        if message.get("type") == "triggerregistrationresult" and message.get("error"):
            raise invocation_error(trigger_type, message["error"])
        if message.get("type") == "ping":
            connection.send({"type": "pong"})
        if message.get("type") == "invokefunction":
            yield message.get("data")
            # Answered after it was shown: events of one key come one after the other, none counts as seen too early.
            if message.get("invocation_id") is not None:
                fields = {name: message[name] for name in ("invocation_id", "function_id")}
                connection.send({"type": "invocationresult", **fields, "result": None})
