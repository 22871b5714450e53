"""`iii logs [NAME...]`: what the workers have written. A printer over `log_reader`."""

from __future__ import annotations

import json
import os
import re
import sys
import time
from collections.abc import Iterator, Sequence
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import click

from cli.client.errors import UsageError
from cli.commands import completion
from cli.commands.options import json_option
from cli.commands.project_file import project_file
from cli.observe.log_reader import LEVELS, Row, Tails
from cli.text.output import write_clean
from iii.durations import PATTERN, parse_duration

# Seconds between two looks at the files, which cannot report that they have grown. People notice no shorter delay.
POLL_INTERVAL = 0.1


@click.command("logs")
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=completion.worker_names)
@click.option("-f", "--follow", is_flag=True, help="Go on with what comes.")
@click.option("--since", metavar="WHEN", help='Only what is newer: "10m", "2h", or a time like 2026-01-31T12:00.')
@click.option("--level", type=click.Choice(LEVELS), help="Only what is at least this grave.")
@click.option("--trace", metavar="ID", default="", help="Only what a Logger said in this trace.")
@click.option("--file", type=click.Path(path_type=Path), help="The project file.  [default: nearest iii.toml]")
@json_option
def command(names: tuple[str, ...], follow: bool, file: Path | None, as_json: bool, **options: Any) -> None:
    """Show the logs of the workers (or only NAMEs), oldest line first. Needs no running engine."""
    tails = Tails(project_file(file).absolute().parent / ".iii" / "logs", names)
    for name in () if follow else names:
        if name not in tails.known:  # a typo would look like silence
            hint = f"there are logs of: {', '.join(tails.known)}" if tails.known else "nothing has been logged yet"
            raise UsageError(f"there is no log of a worker `{name}`", hint)
    first = start_of(options["since"], datetime.now(UTC))
    least = LEVELS.index(options["level"] or LEVELS[0])
    try:
        while True:
            rows = (row for row in tails.rows() if row["time"] >= first and LEVELS.index(row["level"]) >= least)
            trace = options["trace"]
            wanted = (row for row in rows if trace in row["text"] or trace in str(row.get("details")))
            print_rows(wanted, names or tails.known, as_json=as_json)
            if not follow:
                return
            time.sleep(POLL_INTERVAL)  # no event to wait for: following works without an engine, too
    finally:
        tails.close()


def start_of(since: str | None, now: datetime) -> str:
    """Return the time from which on lines count, as the log writes it. Raises UsageError."""
    if since is None:
        return ""
    try:
        is_duration = re.fullmatch(PATTERN, since)
        start = now - timedelta(seconds=parse_duration(since)) if is_duration else datetime.fromisoformat(since)
        return start.astimezone(UTC).isoformat(timespec="milliseconds")
    except (ValueError, OverflowError):
        raise UsageError(f"--since {since}: that is no time", 'write "10m", "2h" or 2026-01-31T12:00') from None


def print_rows(rows: Iterator[Row], names: Sequence[str], *, as_json: bool) -> None:
    """Write rows as `iii dev` shows them: short times and colors in a terminal, plain text in a pipe."""
    from iii.engine.supervision.reports import LogLine  # keeps `--help` light
    from iii.engine.supervision.run import Run
    from iii.engine.terminal.display import style_of
    from iii.engine.terminal.screen import Screen

    screen = Screen(style_of("auto", os.environ, json_output=False), names, str)
    for row in rows:
        if as_json:
            lines = [json.dumps(row, separators=(",", ":"))]
        else:
            run = Run(str(row["worker"]), int(row.get("instance") or 0), int(row.get("generation") or 0))
            time_of_day, details = datetime.fromisoformat(row["time"]).timestamp(), row.get("details")
            below = tuple(map(str, details)) if isinstance(details, list) else ()
            line = LogLine(run, time_of_day, str(row["text"]), details=below)
            lines = screen.lines(line, line.time)
        for line_text in lines:
            write_clean(line_text)  # the screen has made it harmless; its colors stay
    sys.stdout.flush()
