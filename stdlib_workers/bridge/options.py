"""The worker's configuration, checked. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

from stdlib_workers.values import OptionError, check_names

DEFAULT_TIMEOUT_MS = 30_000
# Under this name the other engine lists the bridge (public contract).
DEFAULT_NAME = "iii-bridge-client"
_MAX_TIMEOUT_MS = 86_400_000


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
        tuple(_exposed_function(entry) for entry in _entries(config, "expose")),
        tuple(_forwarded_function(entry) for entry in _entries(config, "forward")),
    )
    _check_ids(options)
    return options


def _entries(config: Mapping[str, Any], name: str) -> list[Any]:
    entries = config.get(name, [])
    if not isinstance(entries, list | tuple):
        raise OptionError(f"bridge: {name} must be a list of tables, got {entries!r}")
    return list(entries)


def _exposed_function(entry: Any) -> BridgedFunction:
    _check_entry(entry, ("local_function", "remote_function"), "bridge: expose")
    local = _id(entry, "local_function", "bridge: expose")
    return BridgedFunction(local, _text(entry, "remote_function", "bridge: expose") or local)


def _forwarded_function(entry: Any) -> BridgedFunction:
    _check_entry(entry, ("local_function", "remote_function", "timeout_ms"), "bridge: forward")
    timeout = entry.get("timeout_ms", DEFAULT_TIMEOUT_MS)
    if type(timeout) is not int or not 1 <= timeout <= _MAX_TIMEOUT_MS:
        raise OptionError(
            f"bridge: forward: timeout_ms must be an integer from 1 to {_MAX_TIMEOUT_MS}, got {timeout!r}"
        )
    local, remote = (_id(entry, name, "bridge: forward") for name in ("local_function", "remote_function"))
    return BridgedFunction(local, remote, timeout)


def _check_entry(entry: Any, names: tuple[str, ...], where: str) -> None:
    if not isinstance(entry, Mapping):
        raise OptionError(f"{where}: an entry is a table with {', '.join(names)}, got {entry!r}")
    check_names(entry, names, where)


def _check_ids(options: Options) -> None:
    """Raise OptionError for two functions with one id, and for a forwarded function that is exposed again."""
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


def _id(entry: Mapping[str, Any], name: str, where: str) -> str:
    value = _text(entry, name, where)
    if value is None:
        raise OptionError(f"{where}: {name} is missing")
    return value


def _text(config: Mapping[str, Any], name: str, where: str) -> str | None:
    value = config.get(name)
    if value is not None and not (isinstance(value, str) and value.strip()):
        raise OptionError(f"{where}: {name} must be a string that is not empty, got {value!r}")
    return value
