"""`iii dev` and `iii start`: hand the project to the engine and wait for its exit code."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import click

from cli.commands.options import file_option, json_option, profile_option
from cli.commands.project_file import run_project

_COLORS = click.Choice(["auto", "always", "never"])


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@file_option
@profile_option
@click.option("--color", type=_COLORS, default="auto", help="Colored output.  [default: auto]")
@click.option("--debug", metavar="NAME", help="Let a debugger attach to this worker; no deadlines, no reload.")
@json_option
def dev(file: Path | None, names: tuple[str, ...], as_json: bool, **options: Any) -> int:
    """Start the project's workers (or only NAMEs) and reload what changes. Ctrl-C stops them."""
    return run_project(file, names, watch=True, json_output=as_json, **options)


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@file_option
@profile_option
@click.option("--color", type=_COLORS, default="auto", help="Colored output.  [default: auto]")
@json_option
def start(file: Path | None, names: tuple[str, ...], as_json: bool, **options: Any) -> int:
    """Start the project's workers (or only NAMEs) without watching files, for servers."""
    return run_project(file, names, watch=False, json_output=as_json, **options)
