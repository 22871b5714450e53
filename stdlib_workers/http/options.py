"""The worker's configuration: the `config` table of iii.toml, checked. Pure."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from stdlib_workers.http.origins import Cors

DEFAULT_PORT = 3111
_SIZE = re.compile(r"(\d+)\s*(B|KB|KiB|MB|MiB|GB|GiB)?\Z")
_TIME = re.compile(r"(\d+(?:\.\d+)?)\s*(ms|s|m)?\Z")
_SIZES = {"B": 1, "KB": 1000, "KiB": 1 << 10, "MB": 10**6, "MiB": 1 << 20, "GB": 10**9, "GiB": 1 << 30}
_TIMES = {"ms": 0.001, "s": 1.0, "m": 60.0}


@dataclass(frozen=True, slots=True)
class Middleware:
    """A function that is asked before every route's own; the lowest priority first."""

    function_id: str
    priority: int = 0


@dataclass(frozen=True, slots=True)
class Options:
    """What iii.toml says. Times in seconds, sizes in bytes; `port` None: the default one, or the next that is free.

    `channels`: every request has its two channels, as in the public worker; else only those of routes with `stream`.
    """

    host: str = "127.0.0.1"
    port: int | None = None
    timeout: float = 30.0
    concurrency: int = 1024
    max_body: int = 10 << 20
    hosts: tuple[str, ...] = ()
    cors: Cors | None = None
    middleware: tuple[str, ...] = ()
    static: tuple[tuple[str, str], ...] = ()
    openapi: bool = True
    access_log: bool = True
    channels: bool = False


# What the public engine calls this worker.
PUBLIC_NAME = "iii-http"


def parse_options(config: dict[str, Any], name: str = "http") -> Options:
    """Return the options of a config table. ValueError names the key, the value and what would be right.

    A worker under its public name does what the public one does: handlers of official SDKs stream without saying so.
    """
    unknown = sorted(config.keys() - _PARSERS.keys())
    if unknown:
        raise ValueError(f"config has no key {unknown[0]!r}; there are: {', '.join(_PARSERS)}")
    fields: dict[str, Any] = {"channels": name == PUBLIC_NAME}
    for key, value in config.items():
        field, parse = _PARSERS[key]
        fields[field] = parse(key, value)
    return Options(**fields)


def _text(key: str, value: Any) -> str:
    if not isinstance(value, str) or not value.strip():
        raise ValueError(f"{key} must be a text, not {value!r}")
    return value


def _texts(key: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError(f"{key} must be a list of texts, not {value!r}")
    return tuple(_text(key, item) for item in value)


def _boolean(key: str, value: Any) -> bool:
    if not isinstance(value, bool):
        raise ValueError(f"{key} must be true or false, not {value!r}")
    return value


def _number(key: str, value: Any, lowest: int, highest: int) -> int:
    if isinstance(value, bool) or not isinstance(value, int) or not lowest <= value <= highest:
        raise ValueError(f"{key} must be a number from {lowest} to {highest}, not {value!r}")
    return value


def _port(key: str, value: Any) -> int:
    return _number(key, value, 0, 65535)


def _concurrency(key: str, value: Any) -> int:
    # 0 means 1, as in the public contract.
    return max(1, _number(key, value, 0, 1_000_000))


def _seconds(key: str, value: Any) -> float:
    found = _TIME.match(str(value)) if not isinstance(value, bool) else None
    seconds = float(found[1]) * _TIMES[found[2] or "ms"] if found else 0.0
    if seconds <= 0:
        raise ValueError(f'{key} must be a time such as "30s", or milliseconds, not {value!r}')
    return seconds


def _size(key: str, value: Any) -> int:
    found = _SIZE.match(str(value)) if not isinstance(value, bool) else None
    if not found:
        raise ValueError(f'{key} must be a size such as "10MiB", or bytes, not {value!r}')
    return int(found[1]) * _SIZES[found[2] or "B"]


def _cors(key: str, value: Any) -> Cors:
    if not isinstance(value, dict) or value.keys() - {"allowed_origins", "allowed_methods"}:
        raise ValueError(f"{key} must be a table with allowed_origins and allowed_methods, not {value!r}")
    origins = _texts(f"{key}.allowed_origins", value.get("allowed_origins", []))
    methods = _texts(f"{key}.allowed_methods", value.get("allowed_methods", []))
    return Cors(frozenset(origins), tuple(method.upper() for method in methods if method != "*"))


def _middleware(key: str, value: Any) -> tuple[str, ...]:
    if not isinstance(value, list):
        raise ValueError(f"{key} must be a list of tables with function_id, not {value!r}")
    rows = [_middleware_row(f"{key}[{place}]", row) for place, row in enumerate(value)]
    return tuple(row.function_id for row in sorted(rows, key=lambda row: row.priority))


def _middleware_row(key: str, row: Any) -> Middleware:
    if not isinstance(row, dict) or row.keys() - {"function_id", "phase", "priority"}:
        raise ValueError(f"{key} must be a table with function_id, phase and priority, not {row!r}")
    if row.get("phase", "preHandler") != "preHandler":
        raise ValueError(f"{key}.phase must be preHandler, the only phase there is, not {row['phase']!r}")
    priority = _number(f"{key}.priority", row.get("priority", 0), -(2**31), 2**31)
    return Middleware(_text(f"{key}.function_id", row.get("function_id")), priority)


def _static(key: str, value: Any) -> tuple[tuple[str, str], ...]:
    if isinstance(value, str):
        return (("/", _text(key, value)),)
    if not isinstance(value, dict):
        raise ValueError(f'{key} must be a folder, or a table such as {{ "/assets" = "public" }}, not {value!r}')
    rows = [("/" + prefix.strip("/"), _text(f"{key}.{prefix}", folder)) for prefix, folder in value.items()]
    return tuple(sorted(rows, key=lambda row: -len(row[0])))


_PARSERS: dict[str, tuple[str, Any]] = {
    "port": ("port", _port),
    "host": ("host", _text),
    "default_timeout": ("timeout", _seconds),
    "concurrency_request_limit": ("concurrency", _concurrency),
    "max_body": ("max_body", _size),
    "hosts": ("hosts", _texts),
    "cors": ("cors", _cors),
    "middleware": ("middleware", _middleware),
    "static": ("static", _static),
    "openapi": ("openapi", _boolean),
    "access_log": ("access_log", _boolean),
    "channels": ("channels", _boolean),
}
