"""`iii replay TRACE`: make a call of a trace once more, with the payload it had.

The payload is the recorded one: without its secrets, and recorded only if it was small. A call whose payload has lost
something is not made unless the user fills that in.
"""

from __future__ import annotations

import json
from typing import Any

import click

from cli.client.connection import connect
from cli.client.errors import UsageError, invocation_error
from cli.client.observability import ask, check_trace, find_trace
from cli.commands.options import engine_option, json_option, json_value
from cli.text.output import shown_json, write, write_error

REDACTED = "[REDACTED]"
INPUT = "iii.invocation.input"
TIMEOUT_MS = 30_000


@click.command("replay")
@click.argument("trace_id")
@click.option("--span", "span_id", metavar="ID", help="This call of the trace.  [default: its first]")
@click.option("--edit", is_flag=True, help="Open the payload in $EDITOR first.")
@click.option("--data", metavar="JSON", help="Another payload.")
@engine_option
@json_option
def command(
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
        answer = connection.exchange(function_id, payload, TIMEOUT_MS)
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
