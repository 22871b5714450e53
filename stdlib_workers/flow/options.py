"""The options of `[workers.flow.config]`."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from stdlib_workers.flow.transaction import Limits
from stdlib_workers.values import check_config, in_memory


@dataclass(frozen=True)
class Options:
    """`turns` run at once; a body that waits for a call longer than `park_ms` ends meanwhile."""

    in_memory: bool = False
    turns: int = 100
    park_ms: int = 1000
    limits: Limits = field(default_factory=Limits)


def options_from(config: Mapping[str, Any]) -> Options:
    """Return the options in `[workers.flow.config]`. OptionError for what does not fit its schema."""
    check_config("flow", config)
    plain = Limits()
    limits = Limits(
        config.get("max_value_bytes", plain.value_bytes),
        config.get("max_steps", plain.steps),
        config.get("max_run_bytes", plain.run_bytes),
        config.get("max_unread_events", plain.unread_events),
        config.get("cleanup_ms", plain.cleanup_ms),
        config.get("keep_completed_ms", plain.keep_completed_ms),
        config.get("keep_failed_ms", plain.keep_failed_ms),
    )
    return Options(in_memory(config), config.get("turns", 100), config.get("park_ms", 1000), limits)
