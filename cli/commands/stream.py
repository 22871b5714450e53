"""`iii stream tail`: what happens in a stream, line by line."""

from __future__ import annotations

import sys

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
def tail(stream: str, group: str | None, item: str | None, engine: str | None, as_json: bool) -> None:
    """Print every event of STREAM (of a GROUP, of an ITEM) as it happens, until Ctrl-C."""
    filters = {"stream_name": stream, "group_id": group, "item_id": item}
    config = {name: value for name, value in filters.items() if value is not None}
    with connect(engine) as connection:
        connection.call("engine::functions::info", {"function_id": "stream::get"})
        for envelope in follow(connection, "stream", config):
            if as_json:
                write(shown_json(envelope, raw=True))
            else:
                event = envelope["event"]
                if event["type"] == "event":
                    event = event["event"]
                place = " ".join(str(envelope[name]) for name in ("groupId", "id") if envelope[name] is not None)
                write(f"{shown(place)} {shown(event['type'])} {shown_json(event.get('data'), raw=True)}")
            sys.stdout.flush()  # the reader of a pipe wants each event when it happens
