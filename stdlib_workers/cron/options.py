"""The worker's configuration: whether its store is a file. Pure.

The public worker's adapter also says how a lock is kept; here a tick is claimed in the store, so that has no effect.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stdlib_workers.values import check_names, in_memory

_ADAPTERS = ("kv", "local", "in_memory")
_LOCK = ("lock_ttl_ms", "lock_index")


def store_in_memory(config: Mapping[str, Any]) -> bool:
    """Tell whether the store shall end with the process. OptionError for an unknown key or adapter."""
    check_names(config, ("adapter", "store_method"), "cron")
    return in_memory(config, "cron", _ADAPTERS, _LOCK)
