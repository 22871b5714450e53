"""The worker's configuration, checked: there is one adapter, and it has no options. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


def check_options(config: Mapping[str, Any]) -> None:
    """Raise ValueError for anything but `adapter = {name = "local"}`."""
    for name in config:
        if name != "adapter":
            raise ValueError(f"pubsub: there is no option {name}; there is adapter")
    adapter = config.get("adapter", {"name": "local"})
    if not isinstance(adapter, dict) or adapter.get("name") != "local" or adapter.get("config"):
        raise ValueError(f"pubsub: the adapter must be local, without a config, got {adapter!r}")
