"""The worker's configuration, checked, and what the bridge is called on the other engine. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from types import SimpleNamespace
from typing import Any

from iii import InitOptions
from stdlib_workers.values import OptionError, check_config

DEFAULT_TIMEOUT_MS = 30_000
MAX_TIMEOUT_MS = 86_400_000
# Under this name the other engine lists the bridge (public contract).
DEFAULT_NAME = "iii-bridge-client"
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
    check_config("bridge", config)
    url = config["url"]
    if url.rstrip("/") in own_urls:
        raise OptionError(f"bridge: {url} is this engine itself; name the other one")
    options = Options(
        url,
        config.get("token"),
        config.get("name") or DEFAULT_NAME,
        config.get("namespace"),
        tuple(map(_bridged, config.get("expose", ()))),
        tuple(map(_bridged, config.get("forward", ()))),
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


def _bridged(entry: Mapping[str, Any]) -> BridgedFunction:
    local = entry["local_function"]
    # Without an id of its own on the other engine, an exposed function has the same id there.
    return BridgedFunction(local, entry.get("remote_function") or local, entry.get("timeout_ms") or DEFAULT_TIMEOUT_MS)
