"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from cli.client.errors import UsageError

Function = TypeVar("Function", bound=Callable[..., Any])


def engine_option(function: Function) -> Function:
    """Add `--engine ADDRESS`."""
    text = "Socket path or ws:// URL of the engine."
    return click.option("--engine", metavar="ADDRESS", help=text)(function)


def json_option(function: Function) -> Function:
    """Add `--json`, the command's argument `as_json`."""
    return click.option("--json", "as_json", is_flag=True, help="Print JSON, errors too.")(function)


def file_option(function: Function) -> Function:
    """Add `--file`, the project file: a path, or None for the nearest iii.toml upwards."""
    path = click.Path(path_type=Path)
    return click.option("-f", "--file", type=path, help="The project file.  [default: nearest iii.toml]")(function)


def profile_option(function: Function) -> Function:
    """Add `--profile NAME`."""
    return click.option("--profile", metavar="NAME", help="Apply [profiles.NAME].")(function)


def json_value(text: str, name: str) -> Any:
    """Return the value of a JSON text; `name` says in the UsageError where it was written."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise UsageError(f"{name} is not JSON: {error}") from None
