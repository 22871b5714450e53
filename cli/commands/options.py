"""Options that several commands share, and how their values are read."""

from __future__ import annotations

import functools
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from cli.client.connection import DEFAULT_PORT, address_from
from cli.client.errors import UsageError

_engine_option = click.option("--engine", metavar="ADDRESS", help="Socket path or ws:// URL of the engine.")
_address_option = click.option("--address", metavar="HOST", help="Host of the engine's listener, not --engine.")
_port_option = click.option("--port", metavar="N", help=f"Port of the engine's listener.  [default: {DEFAULT_PORT}]")
json_option = click.option("--json", "as_json", is_flag=True, help="Print JSON, errors too.")
profile_option = click.option("--profile", metavar="NAME", help="Apply [profiles.NAME].")
# A path, or None for the nearest iii.toml upwards.
file_option = click.option(
    "-f", "--file", type=click.Path(path_type=Path), help="The project file.  [default: nearest iii.toml]"
)


def engine_option(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add `--engine`, or in its place `--address` and `--port`; the function gets the address as `engine`."""

    @functools.wraps(function)
    def with_address(*arguments: Any, engine: str | None, address: str | None, port: str | None, **values: Any) -> Any:
        return function(*arguments, engine=address_from(engine, address, port), **values)

    return _engine_option(_address_option(_port_option(with_address)))


def engine_options(function: Callable[..., Any]) -> Callable[..., Any]:
    """Add the options of the engine and `--json`, which every command has that asks an engine for something."""
    return engine_option(json_option(function))


def json_value(text: str, name: str) -> Any:
    """Return the value of a JSON text; `name` says in the UsageError where it was written."""
    try:
        return json.loads(text)
    except ValueError as error:
        raise UsageError(f"{name} is not JSON: {error}") from None
