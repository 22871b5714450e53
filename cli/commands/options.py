"""Options that several commands share. Called by the click commands."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

Function = TypeVar("Function", bound=Callable[..., Any])


def engine_option(function: Function) -> Function:
    """Add `--engine ADDRESS`."""
    text = "Socket path or ws:// URL of the engine."
    return click.option("--engine", metavar="ADDRESS", help=text)(function)


def json_option(function: Function) -> Function:
    """Add `--json`, given to the command as `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, errors too.")(function)


def file_option(function: Function) -> Function:
    """Add `--file`, the project file; given as a path, or None for the nearest one upwards."""
    kind = click.Path(path_type=Path)
    return click.option("-f", "--file", type=kind, help="The project file.  [default: nearest iii.toml]")(function)


def profile_option(function: Function) -> Function:
    """Add `--profile NAME`."""
    return click.option("--profile", metavar="NAME", help="Apply [profiles.NAME].")(function)
