"""The worker's configuration, checked, and what it lets an MCP client see. Pure."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from fnmatch import fnmatchcase
from typing import Any

from stdlib_workers.values import check_config

DEFAULT_PORT = 3114
PATH = "/mcp"  # where HTTP is served


@dataclass(frozen=True)
class Options:
    """What iii.toml says: globs of functions and scopes, times in milliseconds, sizes in bytes. `key` None: our own."""

    tools: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    metadata: Mapping[str, Any] = field(default_factory=lambda: {"mcp": True})
    resources: tuple[str, ...] = ()
    state: tuple[str, ...] = ()
    introspection: bool = False
    key: str | None = None
    host: str = "127.0.0.1"
    port: int | None = None
    timeout_ms: int = 60_000
    max_result: int = 64 * 1024

    def is_chosen(self, function_id: str, metadata: Any) -> bool:
        """Tell whether the tables choose a function as a tool. Its own `mcp = false` always refuses."""
        facts = metadata if isinstance(metadata, Mapping) else {}
        if facts.get("mcp") is False or _fits(function_id, self.exclude):
            return False
        said = bool(self.metadata) and all(facts.get(name, ...) == value for name, value in self.metadata.items())
        return said or _fits(function_id, self.tools)

    def may_read(self, scope: str) -> bool:
        """Tell whether a scope of the state worker can be read."""
        return _fits(scope, self.state)


def options_from(config: Mapping[str, Any]) -> Options:
    """Return the options in `[workers.mcp.config]`. OptionError for an unknown key or a value that does not fit."""
    check_config("mcp", config)
    values: dict[str, Any] = {key: tuple(value) if isinstance(value, list) else value for key, value in config.items()}
    return Options(**values)


def _fits(name: str, globs: tuple[str, ...]) -> bool:
    return any(fnmatchcase(name, glob) for glob in globs)
