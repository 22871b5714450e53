"""The worker's configuration: the public one's keys, checked. Pure.

Keys that only say how the public worker stores its files are accepted and have no effect: ours are under `.iii/`.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stdlib_workers.values import OptionError, check_names, in_memory, integer


@dataclass(frozen=True)
class Options:
    """The options of the worker."""

    in_memory: bool = False
    triggers_enabled: bool = True
    max_value_bytes: int | None = None


_KEYS = ("adapter", "triggers_enabled", "max_value_bytes", "save_interval_ms", "store_method")


def options_from(config: Mapping[str, Any]) -> Options:
    """Return the options in `[workers.state.config]`. OptionError for an unknown key or a value that does not fit."""
    check_names(config, _KEYS, "state")
    integer(config, "save_interval_ms", "state", 100, 3_600_000)
    enabled = config.get("triggers_enabled", True)
    if not isinstance(enabled, bool):
        raise OptionError(f"state: triggers_enabled must be true or false, got {enabled!r}")
    return Options(in_memory(config, "state"), enabled, integer(config, "max_value_bytes", "state", 1, 2**53))
