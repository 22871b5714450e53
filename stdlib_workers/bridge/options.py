"""The worker's configuration, checked, and what the bridge is called on the other engine. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from iii import InitOptions
from stdlib_workers.values import OptionError, check_names, integer

DEFAULT_TIMEOUT_MS = 30_000
# Under this name the other engine lists the bridge (public contract).
DEFAULT_NAME = "iii-bridge-client"
MAX_TIMEOUT_MS = 86_400_000
# Reconnect soon, since both engines belong to the same developers; with jitter, since several bridges may wait.
RECONNECTION = SimpleNamespace(initial_delay_ms=200, max_delay_ms=5000, jitter_factor=0.3)


@dataclass(frozen=True)
class BridgedFunction:
    """One function that both engines have: its id here, its id there, and the timeout of its calls."""

    local: str
    remote: str
    timeout_ms: int = DEFAULT_TIMEOUT_MS


@dataclass(frozen=True)
class Options:
    """Address of the other engine, identity of the bridge there, and the functions that each engine gets.

    `token`: the access token of the other engine (`iii token` there). `namespace`: where the bridge registers and calls
    functions there, None for its default. `expose`: functions of this project; `forward`: functions of the other.
    """

    url: str
    token: str | None = None
    name: str = DEFAULT_NAME
    namespace: str | None = None
    expose: tuple[BridgedFunction, ...] = ()
    forward: tuple[BridgedFunction, ...] = ()


def options_from(config: Mapping[str, Any], own_urls: tuple[str, ...] = ()) -> Options:
    """Return the options in `[workers.bridge.config]`. OptionError for an unknown key or a value that does not fit.

    `own_urls` are addresses of the engine that runs the bridge: a bridge to itself would call itself without end.
    """
    check_names(config, ("url", "token", "name", "namespace", "expose", "forward"), "bridge")
    url = _text(config, "url", "bridge")
    if url is None or not url.startswith(("ws://", "wss://")):
        raise OptionError(f"bridge: url must be the other engine's ws://host:port, got {url!r}")
    if url.rstrip("/") in own_urls:
        raise OptionError(f"bridge: {url} is this engine itself; name the other one")
    options = Options(
        url,
        _text(config, "token", "bridge"),
        _text(config, "name", "bridge") or DEFAULT_NAME,
        _text(config, "namespace", "bridge"),
        _functions(config, "expose", ("local_function",), ("remote_function",)),
        _functions(config, "forward", ("local_function", "remote_function"), ("timeout_ms",)),
    )
    exposed = [bridged.remote for bridged in options.expose]
    forwarded = [bridged.local for bridged in options.forward]
    for ids, what in ((exposed, "exposed as"), (forwarded, "forwarded as")):
        duplicate = next((id for id in ids if ids.count(id) > 1), None)
        if duplicate is not None:
            raise OptionError(f"bridge: two functions are {what} {duplicate}")
    exposed_again = next((bridged.local for bridged in options.expose if bridged.local in forwarded), None)
    if exposed_again is not None:
        raise OptionError(
            f"bridge: {exposed_again} comes from the other engine; exposing it there again would make a circle"
        )
    return options


def worker_options(options: Options) -> InitOptions:
    """Return the options with which the bridge registers on the other engine."""
    return InitOptions(
        worker_name=options.name,
        worker_description="Joins another engine to this one",
        # Not None: that would mean the namespace of this worker on its own engine.
        namespace=options.namespace or "default",
        headers={"Authorization": f"Bearer {options.token}"} if options.token else None,
        reconnection_config=RECONNECTION,
    )


def _functions(
    config: Mapping[str, Any], name: str, required: tuple[str, ...], optional: tuple[str, ...]
) -> tuple[BridgedFunction, ...]:
    """Return the functions of the list `name`, whose entries have these keys."""
    entries, where, keys = config.get(name, []), f"bridge: {name}", (*required, *optional)
    if not isinstance(entries, list | tuple):
        raise OptionError(f"{where} must be a list of tables, got {entries!r}")
    functions = []
    for entry in entries:
        if not isinstance(entry, Mapping):
            raise OptionError(f"{where}: an entry is a table with {', '.join(keys)}, got {entry!r}")
        check_names(entry, keys, where)
        timeout = integer(entry, "timeout_ms", where, 1, MAX_TIMEOUT_MS) or DEFAULT_TIMEOUT_MS
        ids: list[str] = []
        for key in ("local_function", "remote_function"):
            id = _text(entry, key, where)
            if id is None and key in required:
                raise OptionError(f"{where}: {key} is missing")
            # Without an id of its own on the other engine, an exposed function has the same id there.
            ids.append(id or ids[0])
        functions.append(BridgedFunction(ids[0], ids[1], timeout))
    return tuple(functions)


def _text(config: Mapping[str, Any], name: str, where: str) -> str | None:
    value = config.get(name)
    if value is not None and not (isinstance(value, str) and value.strip()):
        raise OptionError(f"{where}: {name} must be a string that is not empty, got {value!r}")
    return value
