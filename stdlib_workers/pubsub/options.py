"""The worker's configuration, checked: there is one adapter, and it has no options."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from stdlib_workers.values import check_config


def check_options(config: Mapping[str, Any]) -> None:
    """Raise ValueError for anything but `adapter = {name = "local"}`."""
    check_config("pubsub", config)
