"""The worker's configuration, checked. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stdlib_workers.values import check_config

DEFAULT_PORT = 3113


@dataclass(frozen=True)
class Options:
    """What iii.toml says. `port` None: the default one, or the next that is free."""

    host: str = "127.0.0.1"
    port: int | None = None
    read_only: bool = False


def options_from(config: Mapping[str, Any]) -> Options:
    """Return the options in `[workers.console.config]`. OptionError for an unknown key or a value that does not fit."""
    check_config("console", config)
    return Options(**config)
