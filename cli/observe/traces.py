"""`iii traces`, `iii trace [ID]`, `iii replay ID`: what happened lately, one trace as a tree, one of its calls again.

Printers over the functions of the observability worker. A replayed payload is the recorded one: without its secrets,
and recorded only if it was small. A call whose payload has lost something is not made unless the user fills that in.
"""

from __future__ import annotations

import json
import shutil
import sys
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from cli.client.connection import Connection, connect
from cli.client.errors import UsageError, invocation_error
from cli.commands import completion
from cli.commands.options import engine_options, json_value
from cli.observe.logs import start_of
from cli.text.output import shown, shown_json, write, write_error
from cli.text.table import table
from cli.text.waterfall import FINE, PLAIN, milliseconds, waterfall
from iii.errors import ErrorCode, InvocationError

COLUMNS = ("STARTED", "TOOK", "STATUS", "NAME", "SERVICE", "TRACE")
# Columns for a pipe; a terminal gets its own width.
PIPE_WIDTH = 120
# Traces that are searched for one whose id begins with what the user wrote.
RECENT = 1000
LEAST_PREFIX = 4
ID_LENGTH = 32
REDACTED = "[REDACTED]"
INPUT = "iii.invocation.input"
STACK = "exception.stacktrace"
TIMEOUT_MS = 30_000


@click.command("traces")
@click.option("--slow", is_flag=True, help="The slowest first.  [default: the newest]")
@click.option(
    "--failed", is_flag=True, help="Only those that failed, or in which a call failed that no caller waited for."
)
@click.option("--name", metavar="TEXT", help="Only those with a span of such a name.")
@click.option("--since", metavar="WHEN", help='Only what is newer: "10m", "2h", or a time like 2026-01-31T12:00.')
@click.option("--limit", type=click.IntRange(min=1), default=20, show_default=True)
@click.option("--all", "internal", is_flag=True, help="The engine's own, too.")
@engine_options
def traces(engine: str | None, as_json: bool, **options: Any) -> None:
    """List traces, the newest first."""
    with connect(engine) as connection:
        listed = ask(connection, "engine::traces::list", payload_from(connection, options))
        mark_failed(connection, listed["spans"])
    if as_json:
        write(shown_json(listed))
        return
    rows = []
    for span in listed["spans"]:
        start = span["start_time_unix_nano"]
        started = datetime.fromtimestamp(start / 1e9).strftime("%Y-%m-%d %H:%M:%S.%f")[:-3]
        took = "running" if span.get("pending") else milliseconds(span["end_time_unix_nano"] - start)
        rows.append((started, took, span["status"], span["name"], span["service_name"], span["trace_id"]))
    write(table(COLUMNS, rows, cut="NAME", drop=("SERVICE", "STARTED", "TOOK", "STATUS")))
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
        query["trace_ids"] = sorted({span["trace_id"] for span in spans if not options["failed"] or is_failure(span)})
    return {**query, "limit": options["limit"]}


def mark_failed(connection: Connection, roots: list[dict[str, Any]]) -> None:
    """Give the roots of traces in which something failed the status `error`."""
    traces = [root["trace_id"] for root in roots if root["status"] != "error"]
    if traces:
        inside = {"trace_ids": traces, "status": "error", "search_all_spans": True, "limit": RECENT}
        spans = ask(connection, "engine::traces::list", inside)["spans"]
        failed = {span["trace_id"] for span in spans if is_failure(span)}
        for root in roots:
            root["status"] = "error" if root["trace_id"] in failed else root["status"]


def is_failure(span: dict[str, Any]) -> bool:
    """Whether a failed span is a failure of its trace: a handler that waited for a call may have caught its error."""
    attributes = dict(span["attributes"])
    return span["parent_span_id"] is None or "iii.caller.function" not in attributes or "iii.action" in attributes


@click.command("trace")
@click.argument("trace_id", required=False, shell_complete=completion.trace_ids)
@click.option("--logs", "with_logs", is_flag=True, help="Show what was logged in it, too.")
@engine_options
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
    add_places(tree["roots"])
    for line in waterfall(tree["roots"], width, glyphs):
        write(line)
    for record in tree.get("logs", ()):
        time = datetime.fromtimestamp(record["timestamp_unix_nano"] / 1e9).strftime("%H:%M:%S.%f")[:-3]
        write(shown(f"{time} {record['severity_text']:<5} {record['service_name']}  {record['body']}"))


def add_places(roots: list[dict[str, Any]]) -> None:
    """Add to each span that failed the lines of the project in its stack trace, the innermost last."""
    from iii.engine.supervision.stack_traces import parse_traceback  # keeps `--help` light

    root = next((folder for folder in (Path.cwd(), *Path.cwd().parents) if (folder / "iii.toml").is_file()), Path("/"))
    waiting = list(roots)
    while waiting:
        span = waiting.pop()
        waiting += span.get("children", ())
        stacks = [dict(event["attributes"]).get(STACK) for event in span.get("events", ())]
        for stack in filter(None, stacks):
            if (error := parse_traceback(str(stack).split("\n"), root)) is not None:
                span["places"] = [f"{frame.file}:{frame.line}  {frame.source}".rstrip() for frame in error.frames]


@click.command("replay")
@click.argument("trace_id", shell_complete=completion.trace_ids)
@click.option("--span", "span_id", metavar="ID", help="This call of the trace.  [default: its first]")
@click.option("--edit", is_flag=True, help="Open the payload in $EDITOR first.")
@click.option("--data", metavar="JSON", help="Another payload.")
@engine_options
def replay(
    *, trace_id: str, span_id: str | None, edit: bool, data: str | None, engine: str | None, as_json: bool
) -> None:
    """Call again what TRACE_ID called, and print the result."""
    check_trace(trace_id)
    replacement = None if data is None else json_value(data, "--data")
    with connect(engine) as connection:
        trace_id = find_trace(connection, trace_id)
        query = {"trace_id": trace_id, "include_internal": True, "limit": 10_000}
        spans: list[dict[str, Any]] = ask(connection, "engine::traces::list", query)["spans"]
        if not spans:
            raise UsageError(f"there is no trace `{trace_id}`", "see `iii traces`")
        call = call_of(spans, span_id)
        payload = payload_of(call, is_edited=edit) if data is None else replacement
        if edit:
            payload = _edited(payload)
        function_id = dict(call["attributes"])["iii.function.id"]
        write_error(f"calling {function_id} again")
        answer = connection.request(function_id, payload, TIMEOUT_MS)
    if answer.get("error"):
        raise invocation_error(function_id, answer["error"])
    write(shown_json(answer.get("result"), raw=as_json))


def call_of(spans: list[dict[str, Any]], span_id: str | None) -> dict[str, Any]:
    """Return the span of the call to make again: the one named, or the first of the project's. Pure."""
    calls = [span for span in spans if "iii.function.id" in dict(span["attributes"])]
    if span_id is not None:
        calls = [span for span in calls if span["span_id"].startswith(span_id.lower())]
        if not calls:
            raise UsageError(f"the trace has no call with the span `{span_id}`", "see the ids with `iii trace --json`")
        return calls[0]
    for span in calls:
        attributes = dict(span["attributes"])
        is_internal = attributes.get("iii.function.kind") == "internal"
        if _input(span) is not None and not is_internal and not attributes["iii.function.id"].startswith("engine::"):
            return span
    raise UsageError("the trace has no call whose payload was recorded", "give one with --span ID --data JSON")


def _input(span: dict[str, Any]) -> dict[str, str] | None:
    return next((dict(event["attributes"]) for event in span["events"] if event["name"] == INPUT), None)


def payload_of(span: dict[str, Any], *, is_edited: bool) -> Any:
    """Return the recorded payload of a call. Raises UsageError if it is not whole, unless it is edited now. Pure."""
    recorded = _input(span) or {}
    text = recorded.get("iii.payload.json")
    if text is None or recorded.get("iii.payload.truncated") == "true":
        raise UsageError("the payload was too large to be recorded", "give one with --data JSON")
    if REDACTED in text and not is_edited:
        raise UsageError("the payload had secrets, which are never recorded", "fill them in with --edit or --data")
    return json_value(text, "the recorded payload")


def _edited(payload: Any) -> Any:
    text = click.edit(json.dumps(payload, indent=2, ensure_ascii=False) + "\n", extension=".json")
    if text is None:
        raise UsageError("nothing was changed, so nothing was called", "save the payload in the editor to call")
    if REDACTED in text:
        raise UsageError(f"the payload still says {REDACTED}", "put the value in its place")
    return json_value(text, "the edited payload")


def ask(connection: Connection, function_id: str, payload: dict[str, Any] | None = None) -> Any:
    """Call one of the worker's functions. Raises UsageError if the project has no observability worker."""
    try:
        return connection.call(function_id, payload)
    except InvocationError as error:
        if error.code != ErrorCode.FUNCTION_NOT_FOUND:
            raise
        raise UsageError("nothing is observed in this project", "add it with `iii add observability`") from None


def check_trace(text: str | None) -> None:
    """Raise UsageError for a text that cannot name a trace, before the engine is asked. Pure."""
    if text is not None and len(text) < LEAST_PREFIX:
        raise UsageError(f"`{text}` is too short for a trace", f"give at least {LEAST_PREFIX} characters of its id")


def find_trace(connection: Connection, text: str | None) -> str:
    """Return the id of a trace: whole, by its first characters, or the newest. Raises UsageError if there is none."""
    if text is not None and len(text) >= ID_LENGTH:
        return text.lower()
    payload = {"sort_order": "desc", "limit": RECENT if text else 1}
    ids: list[str] = [row["trace_id"] for row in ask(connection, "engine::traces::list", payload)["spans"]]
    matching = sorted({id for id in ids if id.startswith((text or "").lower())})
    if len(matching) == 1:
        return matching[0]
    if not matching:
        raise UsageError(f"there is no trace `{text}`" if text else "there are no traces yet", "see `iii traces`")
    raise UsageError(f"`{text}` begins {len(matching)} traces", f"give more of the id: {', '.join(matching[:3])}")
