"""The worker's configuration, checked. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stdlib_workers.values import OptionError, check_config, in_memory

DEFAULT_PORT = 3112
LOOPBACK = ("127.0.0.1", "localhost", "::1")


@dataclass(frozen=True)
class Options:
    """Where to listen, which clients to let in, how much to keep.

    `port` None: DEFAULT_PORT or the next one that is free; 0: any free port.
    `history`: events kept of each group for subscribers that come back. `origins`: pages that may connect; None: those
    that the project's http worker serves.
    """

    host: str = "127.0.0.1"
    port: int | None = None
    auth_function: str | None = None
    in_memory: bool = False
    history: int = 1000
    origins: tuple[str, ...] | None = None


def options_from(config: Mapping[str, Any]) -> Options:
    """Return the options in `[workers.stream.config]`. OptionError for what does not fit its schema, or is not safe."""
    check_config("stream", config)
    host, auth = config.get("host", Options.host), config.get("auth_function") or None
    if host not in LOOPBACK and auth is None:
        raise OptionError(f"stream: host {host} is open to others; set auth_function, or listen on 127.0.0.1")
    origins = config.get("allowed_origins")
    return Options(
        host,
        config.get("port"),
        auth,
        in_memory(config),
        config.get("history", Options.history),
        None if origins is None else tuple(origins),
    )
