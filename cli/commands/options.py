"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import click

from cli.client.errors import UsageError

Function = TypeVar("Function", bound=Callable[..., Any])

engine_option = click.option("--engine", metavar="ADDRESS", help="Socket path or ws:// URL of the engine.")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, errors too.")
profile_option = click.option("--profile", metavar="NAME", help="Apply [profiles.NAME].")
# A path, or None for the nearest iii.toml upwards.
file_option = click.option(
    "-f", "--file", type=click.Path(path_type=Path), help="The project file.  [default: nearest iii.toml]"
)


def engine_options(function: Function) -> Function:
    """Add `--engine` and `--json`, which every command has that asks an engine for something."""
    return engine_option(json_option(function))


def json_value(text: str, name: str) -> Any:
    """Return the value of a JSON text; `name` says in the UsageError where it was written."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise UsageError(f"{name} is not JSON: {error}") from None
