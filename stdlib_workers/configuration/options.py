"""The options of the worker, checked. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, NamedTuple

from stdlib_workers.values import OptionError, check_config, in_memory

# Where the public worker keeps its files, and where it kept them before.
PUBLIC_DIRECTORY, FORMER_DIRECTORY = "./config", "./data/configuration"


class Options(NamedTuple):
    """The options of the worker.

    `directory`: where the files are, None for none. `ttl_seconds`: how long a configuration outlives the last binding
    to it alone, 0 for ever. `url`, `token`: the engine that keeps everything instead of this worker, None for none.
    """

    in_memory: bool = False
    directory: str | None = None
    ttl_seconds: float = 0
    url: str | None = None
    token: str | None = None


def options_from(config: Mapping[str, Any], own_urls: tuple[str, ...] = ()) -> Options:
    """Return the options in `[workers.configuration.config]`. OptionError for what does not fit its schema.

    `own_urls` are addresses of the engine that runs this worker: it must not wait for itself.
    """
    check_config("configuration", config)
    adapter = config.get("adapter") or {}
    settings = adapter.get("config") or {}
    name, ttl = adapter.get("name"), config.get("ttl_seconds", 0)
    for key in ("directory",) if name == "bridge" else ("url", "token"):
        if key in settings:
            raise OptionError(f"configuration: adapter.config.{key} means nothing to the adapter {name}")
    if name != "bridge":
        directory = settings.get("directory", PUBLIC_DIRECTORY) if name == "fs" else None
        return Options(in_memory(config), config.get("directory") or directory, ttl)
    for key in ("directory", "store_method", "ttl_seconds"):
        if config.get(key):
            text = f"configuration: {key} belongs to the engine that the adapter bridge forwards to; set it there"
            raise OptionError(text)
    url = settings.get("url")
    if url is None:
        raise OptionError("configuration: the adapter bridge needs adapter.config.url, such as ws://10.0.0.5:49134")
    if url.rstrip("/") in own_urls:
        raise OptionError(f"configuration: {url} is this engine itself; name the other one")
    return Options(url=url, token=settings.get("token"))
