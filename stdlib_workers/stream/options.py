"""The worker's configuration, checked. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stdlib_workers.values import OptionError, check_names, in_memory, integer

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


_KEYS = ("host", "port", "auth_function", "adapter", "store_method", "history", "allowed_origins")


def options_from(config: Mapping[str, Any]) -> Options:
    """Return the options in `[workers.stream.config]`. OptionError for an unknown key or a value that does not fit."""
    check_names(config, _KEYS, "stream")
    host, auth = config.get("host", Options.host), config.get("auth_function")
    if not isinstance(host, str) or not isinstance(auth, str | None):
        raise OptionError(f"stream: host and auth_function must be strings, got {host!r} and {auth!r}")
    if host not in LOOPBACK and not auth:
        raise OptionError(f"stream: host {host} is open to others; set auth_function, or listen on 127.0.0.1")
    origins = config.get("allowed_origins")
    if not isinstance(origins, list | tuple | None) or not all(isinstance(origin, str) for origin in origins or ()):
        raise OptionError(f"stream: allowed_origins must be a list of scheme://host:port, got {origins!r}")
    return Options(
        host,
        integer(config, "port", "stream", 0, 65535),
        auth or None,
        in_memory(config, "stream"),
        integer(config, "history", "stream", 1, 1_000_000) or Options.history,
        None if origins is None else tuple(origins),
    )
