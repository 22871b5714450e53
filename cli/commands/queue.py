"""`iii queue ...`: look into queues and move their jobs. Printers over the queue worker's functions."""

from __future__ import annotations

import json
import shlex
from datetime import UTC, datetime
from typing import Any

import click

from cli.client.connection import connect
from cli.client.errors import UsageError
from cli.commands import completion
from cli.commands.options import engine_options, json_value
from cli.text.output import count, shown, shown_json, write, write_error
from cli.text.table import table

COLUMNS = (
    *("QUEUE", "TYPE", "STATE", "READY", "DELAYED", "RUNNING", "LIMITED", "FILLING", "BEHIND", "HELD", "DEAD", "DONE"),
    *("CONCURRENCY", "FUNCTION"),
)
COUNTED = ("ready", "delayed", "running", "limited", "filling", "behind", "held", "dlq_depth", "delivered")
JOB_COLUMNS = ("ID", "FUNCTION", "STATE", "WAITS FOR", "ATTEMPT", "PRIORITY", "GROUP", "DUE", "PAYLOAD")
DEAD_COLUMNS = ("ID", "FUNCTION", "FAILED", "ATTEMPTS", "ERROR")
# A payload in a table shows its beginning; `--json` shows it whole.
PAYLOAD_WIDTH = 40

_limit_option = click.option("--limit", type=click.IntRange(min=0), default=20, show_default=True)
_offset_option = click.option("--offset", type=click.IntRange(min=0), default=0, show_default=True)


@click.group("queue")
def command() -> None:
    """Look into queues, and redrive, discard, pause, resume or purge."""


@command.command("list")
@engine_options
def list_queues(engine: str | None, as_json: bool) -> None:
    """Show every queue with its figures."""
    with connect(engine) as connection:
        listed = connection.look_up("iii::queue::list")
    if as_json:
        write(shown_json(listed))
        return
    rows = []
    for queue in listed["queues"]:
        type_name = "topic" if queue["kind"] == "topic" else queue["type"]
        state = "orphaned" if queue.get("orphaned") else "paused" if queue["paused"] else "active"
        counts = (queue[name] for name in COUNTED)
        rows.append((queue["name"], type_name, state, *counts, queue["concurrency"], queue["function_id"]))
    drop = (
        "CONCURRENCY",
        "FILLING",
        "LIMITED",
        "BEHIND",
        "HELD",
        "TYPE",
        "DONE",
        "DELAYED",
        "FUNCTION",
        "RUNNING",
        "READY",
        "STATE",
    )
    write(table(COLUMNS, rows, cut="FUNCTION", drop=drop))
    for queue in listed["queues"]:
        if queue.get("orphaned"):
            command_line = f"iii queue delete {shlex.quote(queue['name'])}"
            write_error(shown(f"note: {queue['name']} has left iii.toml; `{command_line}` removes it with its jobs"))


@command.command("peek")
@click.argument("queue", shell_complete=completion.queue_names)
@_limit_option
@_offset_option
@engine_options
def peek(queue: str, offset: int, limit: int, engine: str | None, as_json: bool) -> None:
    """Show the jobs of QUEUE that are not done, the oldest first."""
    with connect(engine) as connection:
        page = connection.look_up("iii::queue::peek", {"queue": queue, "offset": offset, "limit": limit})
    if as_json:
        write(shown_json(page))
        return
    rows = []
    for job in page["messages"]:
        payload = json.dumps(job["payload"], ensure_ascii=False)
        short = payload if len(payload) <= PAYLOAD_WIDTH else payload[: PAYLOAD_WIDTH - 1] + "…"
        cells = (job[name] for name in ("id", "function_id", "state", "waits_for", "attempt", "priority", "group"))
        rows.append((*cells, _time(job["due_at"]), short))
    drop = ("PRIORITY", "GROUP", "PAYLOAD", "ATTEMPT", "DUE", "WAITS FOR", "FUNCTION", "STATE")
    write(table(JOB_COLUMNS, rows, cut="PAYLOAD", drop=drop))


@command.command("dead")
@click.argument("queue", required=False, shell_complete=completion.queue_names)
@_limit_option
@_offset_option
@engine_options
def dead(queue: str | None, offset: int, limit: int, engine: str | None, as_json: bool) -> None:
    """Show the dead letters of QUEUE, the newest first; without QUEUE, which queues have some."""
    with connect(engine) as connection:
        if queue is None:
            listed = connection.look_up("engine::queue::dlq_topics")
        else:
            listed = connection.look_up(
                "engine::queue::dlq_messages", {"topic": queue, "offset": offset, "limit": limit}
            )
    if as_json:
        write(shown_json(listed))
    elif queue is None:
        write(table(("QUEUE", "DEAD"), [(row["topic"], row["message_count"]) for row in listed]))
    else:
        rows = []
        for letter in listed:
            first_line = str(letter["error"]).partition("\n")[0]
            failed_at = _time(letter["failed_at"])
            rows.append((letter["id"], letter["function_id"], failed_at, letter["retries"], first_line))
        write(table(DEAD_COLUMNS, rows, cut="ERROR", drop=("ATTEMPTS", "FAILED", "FUNCTION", "ERROR")))


def _time(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


@command.command("redrive")
@click.argument("queue", shell_complete=completion.queue_names)
@click.argument("message_id", required=False)
@click.option("--all", "everything", is_flag=True, help="All dead letters of the queue, the oldest first.")
@click.option("--data", metavar="JSON", help="A new payload for the one message.")
@engine_options
def redrive(
    *, queue: str, message_id: str | None, everything: bool, data: str | None, engine: str | None, as_json: bool
) -> None:
    """Deliver a dead letter again: one MESSAGE_ID, edited with --data, or --all."""
    if (message_id is None) != everything or (everything and data is not None):
        raise UsageError("name one MESSAGE_ID, or --all", f"see the ids with `iii queue dead {queue}`")
    fields: dict[str, Any] = {"queue": queue}
    if message_id is not None:
        fields["message_id"] = message_id
    if data is not None:
        fields["data"] = json_value(data, "--data")
    function_id = "iii::queue::redrive" if everything else "iii::queue::redrive_message"
    _move(function_id, fields, engine, as_json=as_json)


@command.command("discard")
@click.argument("queue", shell_complete=completion.queue_names)
@click.argument("message_id")
@engine_options
def discard(queue: str, message_id: str, engine: str | None, as_json: bool) -> None:
    """Forget the dead letter MESSAGE_ID."""
    fields = {"queue": queue, "message_id": message_id}
    _move("iii::queue::discard_message", fields, engine, as_json=as_json, word="discarded")


@command.command("cancel")
@click.argument("message_id")
@engine_options
def cancel(message_id: str, engine: str | None, as_json: bool) -> int:
    """Remove the waiting job MESSAGE_ID, the receipt of its enqueue."""
    with connect(engine) as connection:
        result = connection.call("iii::queue::cancel", {"message_id": message_id})
    outcome = "canceled" if result["canceled"] else f"not canceled, it is {result['state']}"
    write(shown_json(result) if as_json else shown(f"{message_id}: {outcome}"))
    return 0 if result["canceled"] else 1


def _add_pause(verb: str, text: str) -> None:
    @command.command(verb, help=text)
    @click.argument("queue", shell_complete=completion.queue_names)
    @engine_options
    def pause(queue: str, engine: str | None, as_json: bool) -> None:
        _move(f"iii::queue::{verb}", {"queue": queue}, engine, as_json=as_json)


_add_pause("pause", "Start nothing more of QUEUE; what runs goes on.")
_add_pause("resume", "Start jobs of QUEUE again.")


@command.command("purge")
@click.argument("queue", shell_complete=completion.queue_names)
@click.option("--yes", is_flag=True, help="Do not ask.")
@engine_options
def purge(queue: str, yes: bool, engine: str | None, as_json: bool) -> None:
    """Remove every job of QUEUE that waits; what runs and what is dead stays."""
    if not yes:
        click.confirm(f"Remove every waiting job of {queue}?", abort=True, err=True)
    _move("iii::queue::purge", {"queue": queue}, engine, as_json=as_json)


@command.command("delete")
@click.argument("queue", shell_complete=completion.queue_names)
@click.option("--yes", is_flag=True, help="Do not ask.")
@engine_options
def delete(queue: str, yes: bool, engine: str | None, as_json: bool) -> None:
    """Remove QUEUE, which is no longer in iii.toml, with its jobs and dead letters."""
    if not yes:
        click.confirm(f"Remove {queue} with all its jobs and dead letters?", abort=True, err=True)
    _move("iii::queue::delete", {"queue": queue}, engine, as_json=as_json)


def _move(
    function_id: str, fields: dict[str, Any], engine: str | None, *, as_json: bool, word: str = "redriven"
) -> None:
    with connect(engine) as connection:
        result = connection.call(function_id, fields)
    if as_json:
        write(shown_json(result))
        return
    if "deleted" in result:
        outcome = f"deleted, with {count(result['deleted'], 'job')}"
    elif "purged" in result:
        outcome = f"{result['purged']} purged"
    elif "paused" in result:
        outcome = ("paused" if result["paused"] else "active") + ("" if result["changed"] else " already")
    else:
        outcome = f"{result['redriven']} {word}"
    write(shown(f"{result['queue']}: {outcome}"))
