"""`iii dev` and `iii start`: hand the project to the engine and wait for its exit code. Called by `commands`."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import click

from cli.options import file_option, json_option, profile_option, project_file

_COLORS = click.Choice(["auto", "always", "never"])


def _run(file: Path | None, names: tuple[str, ...], *, watch: bool, **options: Any) -> int:
    from iii.engine.config_schema import write_schema  # noqa: PLC0415 - only when an engine is started
    from iii.engine.start import run  # noqa: PLC0415 - as above

    found = project_file(file)
    if found.is_file() and os.access(found.parent, os.W_OK):
        write_schema(found.absolute().parent / ".iii")
    return run(found, names=names, watch=watch, **options)


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@file_option
@profile_option
@click.option("--color", type=_COLORS, default="auto", help="Colored output.  [default: auto]")
@click.option("--debug", metavar="NAME", help="Let a debugger attach to this worker; no deadlines, no reload.")
@json_option
def dev(file: Path | None, names: tuple[str, ...], as_json: bool, **options: Any) -> int:
    """Start the project's workers (or only NAMEs) and reload what changes. Ctrl-C stops them."""
    return _run(file, names, watch=True, json_output=as_json, **options)


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...")
@file_option
@profile_option
@click.option("--color", type=_COLORS, default="auto", help="Colored output.  [default: auto]")
@json_option
def start(file: Path | None, names: tuple[str, ...], as_json: bool, **options: Any) -> int:
    """Start the project's workers (or only NAMEs) without watching files, for servers."""
    return _run(file, names, watch=False, json_output=as_json, **options)
