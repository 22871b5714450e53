"""The worker's configuration: the public one's keys, checked. Pure.

Keys that only say how the public worker stores its files are accepted and have no effect: ours are under `.iii/`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


class OptionError(ValueError):
    """The configuration is wrong; the message says what and what to do."""


@dataclass(frozen=True)
class Options:
    """What the worker needs to know."""

    in_memory: bool = False
    triggers_enabled: bool = True
    max_value_bytes: int | None = None


_KEYS = ("adapter", "triggers_enabled", "max_value_bytes", "save_interval_ms", "store_method")
_METHODS = {"in_memory": True, "file_based": False}


def options_from(config: Mapping[str, Any]) -> Options:
    """Return the options in `[workers.state.config]`. OptionError for an unknown key or a value that does not fit."""
    for name in config:
        if name not in _KEYS:
            raise OptionError(f"state: there is no option {name}; there are {', '.join(_KEYS)}")
    _integer(config, "save_interval_ms", 100, 3_600_000)
    enabled = config.get("triggers_enabled", True)
    if not isinstance(enabled, bool):
        raise OptionError(f"state: triggers_enabled must be true or false, got {enabled!r}")
    return Options(in_memory(config, "state"), enabled, _integer(config, "max_value_bytes", 1, 2**53))


def in_memory(config: Mapping[str, Any], worker: str) -> bool:
    """Tell whether the store shall leave no file: `store_method`, or the public form `adapter = {name, config}`."""
    adapter = config.get("adapter", {"name": "kv"})
    if not isinstance(adapter, dict) or adapter.get("name") not in ("kv", "in_memory"):
        raise OptionError(f"{worker}: the adapter must be kv or in_memory, got {adapter!r}")
    inner = adapter.get("config") or {}
    method = config.get("store_method", inner.get("store_method", "file_based"))
    if method not in _METHODS:
        raise OptionError(f"{worker}: store_method must be file_based or in_memory, got {method!r}")
    return _METHODS[method] or adapter["name"] == "in_memory"


def _integer(config: Mapping[str, Any], name: str, least: int, most: int) -> int | None:
    value = config.get(name)
    if value is None:
        return None
    if not isinstance(value, int) or isinstance(value, bool) or not least <= value <= most:
        raise OptionError(f"state: {name} must be an integer from {least} to {most}, got {value!r}")
    return value
