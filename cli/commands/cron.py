"""`iii cron next EXPR`: when an expression fires; needs no engine."""

from __future__ import annotations

from datetime import UTC, datetime

import click

from cli.client.errors import UsageError
from cli.commands.options import json_option
from cli.text.output import shown, shown_json, write


@click.group("cron")
def command() -> None:
    """Cron expressions."""


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
