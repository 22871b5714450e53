"""`iii queue ...`: look into queues and move their jobs. Printers over the queue worker's functions. Called by
`commands`.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Any, TypeVar

import click

from cli.client.connection import connect
from cli.client.errors import UsageError
from cli.commands.options import engine_option, json_option
from cli.text.output import shown, shown_json, write
from cli.text.table import table

Function = TypeVar("Function", bound=Callable[..., Any])

COLUMNS = (
    *("QUEUE", "TYPE", "STATE", "READY", "DELAYED", "RUNNING", "BEHIND", "HELD", "DEAD", "DONE"),
    *("CONCURRENCY", "FUNCTION"),
)
JOB_COLUMNS = ("ID", "FUNCTION", "STATE", "ATTEMPT", "PRIORITY", "GROUP", "DUE", "PAYLOAD")
DEAD_COLUMNS = ("ID", "FUNCTION", "FAILED", "ATTEMPTS", "ERROR")
# A payload in a table shows its beginning; `--json` shows it whole.
PAYLOAD_WIDTH = 40


@click.group("queue")
def command() -> None:
    """Look into queues, and redrive, discard, pause, resume or purge."""


def _paged(function: Function) -> Function:
    for name in ("offset", "limit"):
        default = 0 if name == "offset" else 20
        function = click.option(f"--{name}", type=click.IntRange(min=0), default=default, show_default=True)(function)
    return function


@command.command("list")
@engine_option
@json_option
def list_queues(engine: str | None, as_json: bool) -> int:
    """Show every queue with its figures."""
    with connect(engine) as connection:
        listed = connection.call("iii::queue::list")
    if as_json:
        write(shown_json(listed))
    else:
        write(table(COLUMNS, [_queue_row(queue) for queue in listed["queues"]]))
    return 0


def _queue_row(queue: dict[str, Any]) -> tuple[object, ...]:
    kind = "topic" if queue["kind"] == "topic" else queue["type"]
    state = "paused" if queue["paused"] else "active"
    figures = ("ready", "delayed", "running", "behind", "held", "dlq_depth", "delivered", "concurrency")
    return (queue["name"], kind, state, *(queue[name] for name in figures), queue["function_id"])


@command.command("peek")
@click.argument("queue")
@_paged
@engine_option
@json_option
def peek(queue: str, offset: int, limit: int, engine: str | None, as_json: bool) -> int:
    """Show the jobs of QUEUE that are not done, the oldest first."""
    with connect(engine) as connection:
        found = connection.call("iii::queue::peek", {"queue": queue, "offset": offset, "limit": limit})
    if as_json:
        write(shown_json(found))
    else:
        write(table(JOB_COLUMNS, [_job_row(job) for job in found["messages"]]))
    return 0


def _job_row(job: dict[str, Any]) -> tuple[object, ...]:
    payload = json.dumps(job["payload"], ensure_ascii=False)
    short = payload if len(payload) <= PAYLOAD_WIDTH else payload[: PAYLOAD_WIDTH - 1] + "…"
    due = _time(job["due_at"])
    return (job["id"], job["function_id"], job["state"], job["attempt"], job["priority"], job["group"], due, short)


@command.command("dead")
@click.argument("queue", required=False)
@_paged
@engine_option
@json_option
def dead(queue: str | None, offset: int, limit: int, engine: str | None, as_json: bool) -> int:
    """Show the dead letters of QUEUE, the newest first; without QUEUE, which queues have some."""
    with connect(engine) as connection:
        if queue is None:
            found = connection.call("engine::queue::dlq_topics")
        else:
            found = connection.call("engine::queue::dlq_messages", {"topic": queue, "offset": offset, "limit": limit})
    if as_json:
        write(shown_json(found))
    elif queue is None:
        write(table(("QUEUE", "DEAD"), [(row["topic"], row["message_count"]) for row in found]))
    else:
        write(table(DEAD_COLUMNS, [_dead_row(letter) for letter in found]))
    return 0


def _dead_row(letter: dict[str, Any]) -> tuple[object, ...]:
    first_line = str(letter["error"]).partition("\n")[0]
    return (letter["id"], letter["function_id"], _time(letter["failed_at"]), letter["retries"], first_line)


def _time(milliseconds: int) -> str:
    return datetime.fromtimestamp(milliseconds / 1000, UTC).strftime("%Y-%m-%d %H:%M:%S")


@command.command("redrive")
@click.argument("queue")
@click.argument("message_id", required=False)
@click.option("--all", "everything", is_flag=True, help="All dead letters of the queue, the oldest first.")
@click.option("--data", metavar="JSON", help="A new payload for the one message.")
@engine_option
@json_option
def redrive(
    *, queue: str, message_id: str | None, everything: bool, data: str | None, engine: str | None, as_json: bool
) -> int:
    """Deliver a dead letter again: one MESSAGE_ID, edited with --data, or --all."""
    if (message_id is None) != everything or (everything and data is not None):
        raise UsageError("name one MESSAGE_ID, or --all", f"see the ids with `iii queue dead {queue}`")
    fields: dict[str, Any] = {"queue": queue}
    if message_id is not None:
        fields["message_id"] = message_id
    if data is not None:
        fields["data"] = _parsed(data)
    function_id = "iii::queue::redrive" if everything else "iii::queue::redrive_message"
    return _move(function_id, fields, engine, as_json=as_json)


def _parsed(text: str) -> Any:
    try:
        return json.loads(text)
    except ValueError as error:
        raise UsageError(f"--data is not JSON: {error}") from None


@command.command("discard")
@click.argument("queue")
@click.argument("message_id")
@engine_option
@json_option
def discard(queue: str, message_id: str, engine: str | None, as_json: bool) -> int:
    """Forget the dead letter MESSAGE_ID."""
    fields = {"queue": queue, "message_id": message_id}
    return _move("iii::queue::discard_message", fields, engine, as_json=as_json, word="discarded")


@command.command("cancel")
@click.argument("message_id")
@engine_option
@json_option
def cancel(message_id: str, engine: str | None, as_json: bool) -> int:
    """Remove the waiting job MESSAGE_ID, the receipt of its enqueue."""
    with connect(engine) as connection:
        found = connection.call("iii::queue::cancel", {"message_id": message_id})
    if as_json:
        write(shown_json(found))
    else:
        write(shown(f"{message_id}: {'canceled' if found['canceled'] else 'not canceled, it is ' + found['state']}"))
    return 0 if found["canceled"] else 1


def _add_pause(verb: str, text: str) -> None:
    @command.command(verb, help=text)
    @click.argument("queue")
    @engine_option
    @json_option
    def pause(queue: str, engine: str | None, as_json: bool) -> int:
        return _move(f"iii::queue::{verb}", {"queue": queue}, engine, as_json=as_json)


_add_pause("pause", "Start nothing more of QUEUE; what runs goes on.")
_add_pause("resume", "Start jobs of QUEUE again.")


@command.command("purge")
@click.argument("queue")
@click.option("--yes", is_flag=True, help="Do not ask.")
@engine_option
@json_option
def purge(queue: str, yes: bool, engine: str | None, as_json: bool) -> int:
    """Remove every job of QUEUE that waits; what runs and what is dead stays."""
    if not yes:
        click.confirm(f"Remove every waiting job of {queue}?", abort=True, err=True)
    return _move("iii::queue::purge", {"queue": queue}, engine, as_json=as_json)


def _move(
    function_id: str, fields: dict[str, Any], engine: str | None, *, as_json: bool, word: str = "redriven"
) -> int:
    with connect(engine) as connection:
        found = connection.call(function_id, fields)
    if as_json:
        write(shown_json(found))
        return 0
    if "purged" in found:
        write(shown(f"{found['queue']}: {found['purged']} purged"))
    elif "paused" in found:
        state = "paused" if found["paused"] else "active"
        write(shown(f"{found['queue']}: {state}{'' if found['changed'] else ' already'}"))
    else:
        write(shown(f"{found['queue']}: {found['redriven']} {word}"))
    return 0
