"""`iii trace [ID]`: one trace as a tree with its times. A printer over `engine::traces::tree`."""

from __future__ import annotations

import shutil
import sys
from datetime import datetime
from typing import Any

import click

from cli.client.connection import connect
from cli.client.errors import UsageError
from cli.client.observability import ask, check_trace, find_trace
from cli.commands.options import engine_option, json_option
from cli.text.output import shown, shown_json, write
from cli.text.waterfall import FINE, PLAIN, waterfall

# Columns for a pipe; a terminal gets its own width.
PIPE_WIDTH = 120


@click.command("trace")
@click.argument("trace_id", required=False)
@click.option("--logs", "with_logs", is_flag=True, help="Show what was logged in it, too.")
@engine_option
@json_option
def command(trace_id: str | None, with_logs: bool, engine: str | None, as_json: bool) -> int:
    """Show the trace TRACE_ID (or its first characters; without, the newest) as a tree."""
    check_trace(trace_id)
    with connect(engine) as connection:
        id = find_trace(connection, trace_id)
        tree: dict[str, Any] = ask(connection, "engine::traces::tree", {"trace_id": id})
        if with_logs:
            tree["logs"] = ask(connection, "engine::logs::list", {"trace_id": id})["logs"][::-1]
    if not tree["roots"]:
        raise UsageError(f"there is no trace `{id}`", "see `iii traces`")
    if as_json:
        write(shown_json(tree))
        return 0
    is_terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if is_terminal else PIPE_WIDTH
    glyphs = FINE if (sys.stdout.encoding or "").lower().startswith("utf") else PLAIN
    for line in waterfall(tree["roots"], width, glyphs):
        write(line)
    for record in tree.get("logs", ()):
        time = datetime.fromtimestamp(record["timestamp_unix_nano"] / 1e9).strftime("%H:%M:%S.%f")[:-3]
        write(shown(f"{time} {record['severity_text']:<5} {record['service_name']}  {record['body']}"))
    return 0
