"""`iii stream tail`: what happens in a stream, line by line. Called by `commands`."""

from __future__ import annotations

import sys
from typing import Any

import click

from cli.client.connection import connect
from cli.client.follow import follow
from cli.commands.options import engine_option, json_option
from cli.text.output import shown, shown_json, write


@click.group("stream")
def command() -> None:
    """Follow what the stream worker tells."""


@command.command("tail")
@click.argument("stream")
@click.argument("group", required=False)
@click.argument("item", required=False)
@engine_option
@json_option
def tail(stream: str, group: str | None, item: str | None, engine: str | None, as_json: bool) -> int:
    """Print every event of STREAM (of a GROUP, of an ITEM) as it happens, until Ctrl-C."""
    config = {"stream_name": stream, "group_id": group, "item_id": item}
    with connect(engine) as connection:
        connection.call("engine::functions::info", {"function_id": "stream::get"})
        for event in follow(connection, "stream", {key: value for key, value in config.items() if value is not None}):
            write(shown_json(event, raw=True) if as_json else _line(event))
            # Whoever reads a pipe wants each event when it happens.
            sys.stdout.flush()
    return 0


def _line(envelope: dict[str, Any]) -> str:
    event = envelope["event"]
    if event["type"] == "event":
        event = event["event"]
    place = " ".join(str(envelope[name]) for name in ("groupId", "id") if envelope[name] is not None)
    return f"{shown(place)} {shown(event['type'])} {shown_json(event.get('data'), raw=True)}"
