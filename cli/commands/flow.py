"""`iii flow ...`: look into runs of flows and mend them. Printers over the flow worker's functions."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import click

from cli.client.connection import connect
from cli.client.errors import UsageError
from cli.commands.options import engine_option, engine_options, json_value
from cli.text.output import shown, shown_json, write
from cli.text.table import table

RUN_COLUMNS = ("RUN", "FUNCTION", "STATE", "STEPS", "CREATED", "DUE", "ERROR")
STEP_COLUMNS = ("KEY", "KIND", "STATE", "FAILURES", "ENDED", "UNDO", "AT", "ERROR")
# How long `iii flow result` waits for a run, in milliseconds: as long as a caller can.
MAX_WAIT_MS = 20 * 86_400_000
STATES = (
    *("queued", "running", "parked", "held", "blocked", "undoing"),
    *("completed", "failed", "cancelled"),
)

_run = click.argument("run")


@click.group("flow")
def command() -> None:
    """Look into runs of flows; signal, cancel, retry, fork or check them."""


@command.command("list")
@click.option("--state", type=click.Choice(STATES), multiple=True, help="Runs in this state; may be repeated.")
@click.option("--function", "function_id", metavar="ID", help="Runs of this flow.")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True)
@engine_options
def list_runs(
    *, state: tuple[str, ...], function_id: str | None, limit: int, engine: str | None, as_json: bool
) -> None:
    """Show the runs, the newest first."""
    fields: dict[str, Any] = {"limit": limit}
    if state:
        fields["state"] = list(state)
    if function_id is not None:
        fields["function_id"] = function_id
    with connect(engine) as connection:
        listed = connection.look_up("flow::list", fields)
    if as_json:
        write(shown_json(listed))
        return
    rows = [
        (
            *(run["run"], run["function_id"], run["state"], run["step_count"]),
            *(_time(run["created"]), _time(run.get("due")), _first_line(run.get("error"))),
        )
        for run in listed["runs"]
    ]
    write(table(RUN_COLUMNS, rows, cut="ERROR", drop=("DUE", "STEPS", "CREATED", "ERROR", "FUNCTION")))


@command.command("show")
@_run
@engine_options
def show(run: str, engine: str | None, as_json: bool) -> None:
    """Show RUN and its steps."""
    with connect(engine) as connection:
        found = connection.look_up("flow::get", {"run": run})
    if as_json:
        write(shown_json(found))
        return
    write(shown(f"{found['run']}  {found['function_id']}  {found['state']}  {found['turn']} turns"))
    for name in ("status", "result"):
        if name in found:
            write(shown(f"{name}: {json.dumps(found[name], ensure_ascii=False)}"))
    if found["unread"]:
        write(shown(f"unread events: {', '.join(found['unread'])}"))
    if found.get("error"):
        write(shown(f"{found['error'].get('code')}: {found['error'].get('message')}"))
    rows = [
        (
            *(step["key"], step["kind"], step["state"], step.get("failures", 0), _time(step.get("ended"))),
            *(step.get("undone") or step.get("undo") or "", step.get("at", ""), _first_line(step.get("error"))),
        )
        for step in found["steps"]
    ]
    write(table(STEP_COLUMNS, rows, cut="ERROR", drop=("UNDO", "FAILURES", "AT", "ENDED", "ERROR")))


@command.command("result")
@_run
@engine_option
def result(run: str, engine: str | None) -> None:
    """Wait for the end of RUN and print its result; its error is the command's."""
    with connect(engine) as connection:
        write(shown_json(connection.call("flow::result", {"run": run}, timeout_ms=MAX_WAIT_MS)))


@command.command("signal")
@_run
@click.argument("event")
@click.argument("payload", required=False, metavar="[JSON]")
@click.option("--id", "event_id", help="Of two events with one id the second is dropped.")
@engine_options
def signal(
    *, run: str, event: str, payload: str | None, event_id: str | None, engine: str | None, as_json: bool
) -> None:
    """Send EVENT to RUN."""
    value = None if payload is None else json_value(payload, "the event's payload")
    answer = _ask("flow::signal", {"run": run, "event": event, "payload": value, "id": event_id}, engine)
    if as_json:
        write(shown_json(answer))
    else:
        write("sent" if answer["accepted"] else "it was sent before")


@command.command("cancel")
@_run
@click.option("--reason", help="Shown in the run's error.")
@click.option("--force", is_flag=True, help="Without a last turn of its function; steps are undone all the same.")
@engine_options
def cancel(run: str, reason: str | None, force: bool, engine: str | None, as_json: bool) -> None:
    """Cancel RUN: its steps are undone."""
    _say_state("flow::cancel", {"run": run, "reason": reason, "force": force}, engine, as_json=as_json)


@command.command("retry")
@_run
@engine_options
def retry(run: str, engine: str | None, as_json: bool) -> None:
    """Let RUN, which has failed or is blocked, go on with today's code."""
    _say_state("flow::retry", {"run": run}, engine, as_json=as_json)


@command.command("fork")
@_run
@click.option("--from", "key", required=True, metavar="KEY", help="The first step that is not taken over.")
@click.option("--id", "new_id", help="Id of the new run.")
@engine_options
def fork(run: str, key: str, new_id: str | None, engine: str | None, as_json: bool) -> None:
    """Start a new run with the steps that RUN made before a step."""
    answer = _ask("flow::fork", {"run": run, "from": key, "id": new_id}, engine)
    write(shown_json(answer) if as_json else shown(answer["run"]))


@command.command("check")
@click.argument("run", metavar="RUN|FILE")
@engine_options
def check(run: str, engine: str | None, as_json: bool) -> None:
    """Call today's function against the journal of RUN, or of a FILE of `iii flow export`, without making a step."""
    file = Path(run)
    fields = {"journal": json_value(file.read_text(encoding="utf-8"), run)} if file.is_file() else {"run": run}
    answer = _ask("flow::check", fields, engine)
    if as_json:
        write(shown_json(answer))
    elif answer["ok"]:
        skipped = ", ".join(answer.get("leftovers") or ())
        write(shown(f"the function matches, and skips {skipped}" if skipped else "the function matches"))
    if not answer["ok"]:
        raise UsageError(f"the function does not match: {answer['error'].get('message')}")


@command.command("export")
@_run
@engine_option
def export(run: str, engine: str | None) -> None:
    """Print the journal of RUN as JSON, for `iii flow check` and the tests of a project."""
    with connect(engine) as connection:
        write(shown_json(connection.look_up("flow::export", {"run": run})))


def _ask(function_id: str, fields: dict[str, Any], engine: str | None) -> Any:
    with connect(engine) as connection:
        return connection.call(function_id, {name: value for name, value in fields.items() if value is not None})


def _say_state(function_id: str, fields: dict[str, Any], engine: str | None, *, as_json: bool) -> None:
    answer = _ask(function_id, fields, engine)
    write(shown_json(answer) if as_json else shown(f"{answer['run']} is {answer['state']}"))


def _time(milliseconds: int | None) -> str:
    moment = None if milliseconds is None else datetime.fromtimestamp(milliseconds / 1000, UTC)
    return "" if moment is None else moment.strftime("%Y-%m-%d %H:%M:%S")


def _first_line(error: dict[str, Any] | None) -> str:
    return "" if not error else f"{error.get('code')}: {error.get('message')}".partition("\n")[0]
