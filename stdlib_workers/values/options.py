"""Options that several workers have: checks of values, and whether the data is kept in memory. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

from iii.config_schema import load_schema, mistakes


class OptionError(ValueError):
    """The configuration is wrong; the message says what and what to do."""


def check_config(worker: str, config: Any) -> None:
    """Raise OptionError, with all mistakes, for a config that does not fit the schema beside the worker's code."""
    schema = load_schema(Path(__file__).parents[1], worker)
    found = [
        f"{worker}: {mistake}"
        for mistake in mistakes(dict(config) if isinstance(config, Mapping) else config, schema or {})
    ]
    if found:
        raise OptionError("\n".join(found))


def check_names(config: Mapping[str, Any], names: tuple[str, ...], worker: str) -> None:
    """Raise OptionError for an option that does not exist."""
    for name in config:
        if name not in names:
            raise OptionError(f"{worker}: there is no option {name}; there are {', '.join(names)}")


def in_memory(config: Mapping[str, Any]) -> bool:
    """Tell whether the store shall leave no file: `store_method`, or the public form `adapter = {name, config}`."""
    adapter = config.get("adapter") or {}
    method = config.get("store_method") or (adapter.get("config") or {}).get("store_method")
    return "in_memory" in (method, adapter.get("name"))


def integer(config: Mapping[str, Any], name: str, worker: str, least: int, most: int) -> int | None:
    """Return an integer option from `least` to `most`, None when it is not set."""
    value = config.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise OptionError(f"{worker}: {name} must be an integer from {least} to {most}, got {value!r}")
    return value
