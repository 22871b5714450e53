"""The worker's configuration: the `config` table of iii.toml, checked by `config.schema.json`, as values."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from stdlib_workers.values import check_config

DEFAULT_PORT = 3111
# What the public engine calls this worker.
PUBLIC_NAME = "iii-http"
_QUANTITY = re.compile(r"(\d+(?:\.\d+)?)\s*([A-Za-z]*)\Z")
_UNITS = {
    **{"B": 1, "KB": 1000, "KiB": 1 << 10, "MB": 10**6, "MiB": 1 << 20, "GB": 10**9, "GiB": 1 << 30},
    **{"ms": 0.001, "s": 1.0, "m": 60.0},
}


@dataclass(frozen=True, slots=True)
class Options:
    """What iii.toml says. Times in seconds, sizes in bytes; `port` None: the default one, or the next that is free.

    Pages of `origins` may ask (`*`: of every one), by `methods` if there are any.
    `middleware` are functions that are asked before every route's own. `channels`: every request has its two channels,
    as in the public worker; else only those of routes with `stream`.
    """

    host: str = "127.0.0.1"
    port: int | None = None
    timeout: float = 30.0
    concurrency: int = 1024
    max_body: int = 10 << 20
    hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    methods: tuple[str, ...] = ()
    middleware: tuple[str, ...] = ()
    static: tuple[tuple[str, str], ...] = ()
    openapi: bool = True
    access_log: bool = True
    channels: bool = False


def parse_options(config: dict[str, Any], name: str = "http") -> Options:
    """Return the options of a config table. ValueError names the key, the value and what would be right.

    A worker under its public name does what the public one does: handlers of official SDKs stream without saying so.
    """
    check_config("http", config)
    values: dict[str, Any] = {"channels": name == PUBLIC_NAME, **config}
    if "default_timeout" in config:
        values["timeout"] = _amount(values.pop("default_timeout"), 0.001)
    if "concurrency_request_limit" in config:  # 0 means 1, as in the public contract
        values["concurrency"] = max(1, values.pop("concurrency_request_limit"))
    if "max_body" in config:
        values["max_body"] = int(_amount(config["max_body"], 1))
    if (cors := values.pop("cors", None)) is not None:
        values["origins"] = tuple(cors.get("allowed_origins") or "*")
        values["methods"] = tuple(each.upper() for each in cors.get("allowed_methods", ()) if each != "*")
    values["hosts"] = tuple(config.get("hosts", ()))
    rows = sorted(config.get("middleware", ()), key=lambda row: int(row.get("priority", 0)))
    values["middleware"] = tuple(row["function_id"] for row in rows)
    folders = {"/": static} if isinstance(static := config.get("static", {}), str) else static
    prefixes = sorted(folders, key=len, reverse=True)
    values["static"] = tuple(("/" + prefix.strip("/"), folders[prefix]) for prefix in prefixes)
    return Options(**values)


def _amount(value: Any, unit: float) -> float:
    """Return a number of `unit`, or a text with a unit of its own."""
    found = _QUANTITY.match(str(value))
    assert found, value  # the schema has let it pass
    return float(found[1]) * (_UNITS[found[2]] if found[2] else unit)
