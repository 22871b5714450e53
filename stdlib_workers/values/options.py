"""Options that several workers have: checks of values, and whether the data is kept in memory. Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


class OptionError(ValueError):
    """The configuration is wrong; the message says what and what to do."""


_METHODS = {"in_memory": True, "file_based": False}
# The settings of the public adapters. All but the first say how their files are kept, and have no effect here.
_SETTINGS = ("store_method", "file_path", "save_interval_ms", "channel_size")


def check_names(config: Mapping[str, Any], names: tuple[str, ...], worker: str) -> None:
    """Raise OptionError for an option that does not exist."""
    for name in config:
        if name not in names:
            raise OptionError(f"{worker}: there is no option {name}; there are {', '.join(names)}")


def in_memory(
    config: Mapping[str, Any], worker: str, adapters: Sequence[str] = ("kv", "in_memory"), more: Sequence[str] = ()
) -> bool:
    """Tell whether the store shall leave no file: `store_method`, or the public form `adapter = {name, config}`.

    `adapters` are the names that mean this project's store, `more` the further settings of this worker's adapter.
    """
    adapter = config.get("adapter", {"name": adapters[0]})
    if not isinstance(adapter, dict) or adapter.get("name") not in adapters:
        raise OptionError(f"{worker}: the adapter must be {' or '.join(adapters)}, got {adapter!r}")
    check_names(adapter, ("name", "config"), f"{worker}: adapter")
    settings = adapter.get("config") or {}
    if not isinstance(settings, dict):
        raise OptionError(f"{worker}: config of the adapter must be a table, got {settings!r}")
    check_names(settings, (*_SETTINGS, *more), f"{worker}: adapter.config")
    method = config.get("store_method", settings.get("store_method", "file_based"))
    if not isinstance(method, str) or method not in _METHODS:
        raise OptionError(f"{worker}: store_method must be file_based or in_memory, got {method!r}")
    return _METHODS[method] or adapter["name"] == "in_memory"


def integer(config: Mapping[str, Any], name: str, worker: str, least: int, most: int) -> int | None:
    """Return an integer option from `least` to `most`, None when it is not set."""
    value = config.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise OptionError(f"{worker}: {name} must be an integer from {least} to {most}, got {value!r}")
    return value
