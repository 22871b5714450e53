"""`iii traces` and `iii trace [ID]`: what happened lately, a row for each trace; one trace as a tree with its times.

Printers over `engine::traces::list` and `engine::traces::tree`.
"""

from __future__ import annotations

import shutil
import sys
from datetime import UTC, datetime
from typing import Any

import click

from cli.client.connection import Connection, connect
from cli.client.errors import UsageError
from cli.client.observability import RECENT, ask, check_trace, find_trace
from cli.commands.options import engine_option, json_option
from cli.observe.logs import start_of
from cli.text.output import shown, shown_json, write
from cli.text.table import table
from cli.text.waterfall import FINE, PLAIN, milliseconds, waterfall

COLUMNS = ("STARTED", "TOOK", "STATUS", "NAME", "SERVICE", "TRACE")
# Columns for a pipe; a terminal gets its own width.
PIPE_WIDTH = 120


@click.command("traces")
@click.option("--slow", is_flag=True, help="The slowest first.  [default: the newest]")
@click.option("--failed", is_flag=True, help="Only those in which something failed.")
@click.option("--name", metavar="TEXT", help="Only those with a span of such a name.")
@click.option("--since", metavar="WHEN", help='Only what is newer: "10m", "2h", or a time like 2026-01-31T12:00.')
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True)
@click.option("--all", "internal", is_flag=True, help="The engine's own, too.")
@engine_option
@json_option
def traces(engine: str | None, as_json: bool, **options: Any) -> None:
    """List traces, the newest first."""
    with connect(engine) as connection:
        listed = ask(connection, "engine::traces::list", payload_from(connection, options))
    if as_json:
        write(shown_json(listed))
        return
    rows = []
    for span in listed["spans"]:
        start = span["start_time_unix_nano"]
        started = datetime.fromtimestamp(start / 1e9).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
        took = "running" if span.get("pending") else milliseconds(span["end_time_unix_nano"] - start)
        rows.append((started, took, span["status"], span["name"], span["service_name"], span["trace_id"]))
    write(table(COLUMNS, rows))
    more = listed["total"] - len(rows)
    if more > 0:
        write(f"{more} more; see them with --limit")


def payload_from(connection: Connection, options: dict[str, Any]) -> dict[str, Any]:
    """Return the query of the rows to show. Raises UsageError."""
    query: dict[str, Any] = {
        "sort_by": "duration" if options["slow"] else "start_time",
        "sort_order": "desc",
        "include_internal": options["internal"],
    }
    first = start_of(options["since"], datetime.now(UTC))
    if first:
        query["start_time"] = int(datetime.fromisoformat(first).timestamp() * 1000)
    wanted = {"status": "error"} if options["failed"] else {}
    wanted |= {"name": options["name"]} if options["name"] else {}
    if wanted:
        # The span that failed, or has the name, may lie deep inside: first find the traces, then ask for their roots.
        inside = {**query, **wanted, "search_all_spans": True, "limit": RECENT}
        spans = ask(connection, "engine::traces::list", inside)["spans"]
        query["trace_ids"] = sorted({span["trace_id"] for span in spans})
    return {**query, "limit": options["limit"]}


@click.command("trace")
@click.argument("trace_id", required=False)
@click.option("--logs", "with_logs", is_flag=True, help="Show what was logged in it, too.")
@engine_option
@json_option
def trace(trace_id: str | None, with_logs: bool, engine: str | None, as_json: bool) -> None:
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
        return
    is_terminal = sys.stdout.isatty()
    width = shutil.get_terminal_size().columns if is_terminal else PIPE_WIDTH
    glyphs = FINE if (sys.stdout.encoding or "").lower().startswith("utf") else PLAIN
    for line in waterfall(tree["roots"], width, glyphs):
        write(line)
    for record in tree.get("logs", ()):
        time = datetime.fromtimestamp(record["timestamp_unix_nano"] / 1e9).strftime("%H:%M:%S.%f")[:-3]
        write(shown(f"{time} {record['severity_text']:<5} {record['service_name']}  {record['body']}"))
