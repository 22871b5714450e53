"""`iii cron ...`: when an expression fires, without an engine, and the schedules that were made at run time."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click

from cli.client.connection import connect
from cli.client.errors import UsageError
from cli.commands.options import engine_options, json_option, json_value
from cli.text.output import shown, shown_json, write
from cli.text.table import table

COLUMNS = ("ID", "FUNCTION", "WHEN", "NEXT", "RUNNING")


@click.group("cron")
def command() -> None:
    """Cron expressions, and schedules."""


@command.command("next")
@click.argument("expression")
@click.option("--timezone", "-z", default="UTC", show_default=True, metavar="NAME", help="A name like Europe/Berlin.")
@click.option("--count", "-n", type=click.IntRange(1, 1000), default=5, show_default=True)
@json_option
def next_ticks(expression: str, timezone: str, count: int, as_json: bool) -> None:
    """Show the next instants of EXPRESSION: 5 fields (crontab), 6 (from seconds), 7 (with years), or an @ form."""
    from stdlib_workers.cron.expression import upcoming  # keeps `--help` light

    try:
        instants = upcoming(expression, timezone, datetime.now(UTC), count)
    except ValueError as error:
        raise UsageError(str(error)) from None
    if as_json:
        write(shown_json({"next": [instant.isoformat() for instant in instants]}))
        return
    for instant in instants:
        write(shown(instant.strftime("%a %Y-%m-%d %H:%M:%S %Z")))
    if not instants:
        write("never")


@command.command("list")
@click.option("--prefix", help="Only those whose id begins so.")
@click.option("--function", "function_id", metavar="ID", help="Only those that call this function.")
@click.option("--limit", type=click.IntRange(1, 1000), default=20, show_default=True)
@click.option("--after", metavar="ID", help="Go on behind this id.")
@engine_options
def list_schedules(
    *,
    prefix: str | None,
    function_id: str | None,
    limit: int,
    after: str | None,
    engine: str | None,
    as_json: bool,
) -> None:
    """Show the schedules that were made at run time, by their ids."""
    fields = {"prefix": prefix, "function_id": function_id, "limit": limit, "after": after}
    with connect(engine) as connection:
        page = connection.look_up("cron::schedules", {name: value for name, value in fields.items() if value})
    if as_json:
        write(shown_json(page))
        return
    rows = []
    for row in page["schedules"]:
        every = f"every {row['every_ms']} ms" if row["every_ms"] else f"at {row['at']}"
        rows.append((row["id"], row["function_id"], row["expression"] or every, row["next"], row["running"]))
    write(table(COLUMNS, rows, cut="WHEN", drop=("RUNNING", "WHEN", "FUNCTION")))
    if page["after"]:
        write(shown(f"more: --after {page['after']}"))


@command.command("schedule")
@click.argument("id")
@click.argument("function_id")
@click.option("--expression", "-e", metavar="EXPR", help="5, 6 or 7 fields, or an @ form.")
@click.option("--at", metavar="TIME", help="Once, at a time like 2026-01-31T12:00:00+01:00.")
@click.option("--every-ms", type=click.IntRange(100), help="Every so many milliseconds.")
@click.option("--payload", metavar="JSON", help="What the function gets.")
@click.option("--timezone", "-z", "time_zone", metavar="NAME", help="A name like Europe/Berlin.")
@click.option("--catch-up", type=click.Choice(["none", "once"]), help="What becomes of ticks that were missed.")
@engine_options
def schedule(id: str, payload: str | None, engine: str | None, as_json: bool, **fields: Any) -> None:
    """Call FUNCTION_ID by a schedule. There is one of each ID: a second call changes it."""
    given = {"id": id, **{name: value for name, value in fields.items() if value is not None}}
    if payload is not None:
        given["payload"] = json_value(payload, "--payload")
    with connect(engine) as connection:
        result = connection.call("cron::schedule", given)
    write(shown_json(result) if as_json else shown(f"{id}: next {result['next']}"))


@command.command("remove")
@click.argument("id")
@engine_options
def remove(id: str, engine: str | None, as_json: bool) -> int:
    """Forget the schedule ID; a run that has begun goes on."""
    with connect(engine) as connection:
        result = connection.call("cron::unschedule", {"id": id})
    write(shown_json(result) if as_json else shown(f"{id}: {'removed' if result['removed'] else 'there is none'}"))
    return 0 if result["removed"] else 1
