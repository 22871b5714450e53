"""The worker's configuration: where the ledger lies. Pure.

The public worker's adapter also says how a lock is kept; here a tick is taken in the ledger, so that has no effect.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stdlib_workers.values import check_names, in_memory

_ADAPTERS = ("kv", "local", "in_memory")
_LOCK = ("lock_ttl_ms", "lock_index")


def ledger_in_memory(config: Mapping[str, Any]) -> bool:
    """Tell whether the ledger shall end with the process. OptionError for an unknown key or adapter."""
    check_names(config, ("adapter", "store_method"), "cron")
    return in_memory(config, "cron", _ADAPTERS, _LOCK)
