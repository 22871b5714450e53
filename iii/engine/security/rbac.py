"""What a session on an RBAC listener may do: the rules of the listener, and its auth function's result. Pure.

A denial wins over everything, then follow the session's grants, the few functions that every SDK needs, and what the
listener exposes. The text of a denial never tells whether the function exists. The same decision covers every way to
have a function called: directly, through a queue, or by a trigger.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from msgspec import Raw, Struct, field

from iii.protocol.messages import DEFAULT_NAMESPACE

# Functions that every SDK calls by itself (public contract).
INFRASTRUCTURE = {
    *("engine::channels::create", "engine::workers::register"),
    *(f"engine::log::{level}" for level in ("info", "warn", "error", "debug", "trace")),
    *(f"engine::baggage::{verb}" for verb in ("get", "set", "get_all")),
}
_MATCH = re.compile(r'match\("(.*)"\)')


class Filter(Struct, frozen=True):
    """Functions that a listener exposes: by a pattern of their ids, or by their metadata."""

    match: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    namespace: str = DEFAULT_NAMESPACE

    def admits(self, namespace: str, function_id: str, metadata: Mapping[str, Any]) -> bool:
        if namespace != self.namespace:
            return False
        if self.match is not None:
            return matches(self.match, function_id)
        return bool(self.metadata) and all(
            key in metadata and _matches_value(wanted, metadata[key]) for key, wanted in self.metadata.items()
        )


class Rules(Struct, frozen=True):
    """The `rbac` table of a listener; the ids name the functions that decide."""

    auth_function_id: str | None = None
    on_function_registration_function_id: str | None = None
    on_trigger_registration_function_id: str | None = None
    on_trigger_type_registration_function_id: str | None = None
    expose_functions: tuple[Filter, ...] = ()


class AuthResult(Struct):
    """The result of an auth function; every key is optional, and `null` means absent."""

    namespaces: dict[str, list[str]] | None = None
    allowed_functions: list[str] | None = None
    forbidden_functions: list[str] | None = None
    allowed_trigger_types: list[str] | None = None
    allow_trigger_type_registration: bool | None = None
    allow_function_registration: bool | None = None
    function_registration_prefix: str | None = None
    context: Raw = Raw(b"{}")


# Without an auth function, only the listener's exposed functions limit a session.
WITHOUT_AUTH_FUNCTION = AuthResult(allow_trigger_type_registration=True)


class Permissions(Struct, frozen=True):
    """The permissions of one session. Without `rules` (a listener with only a middleware) every call is allowed."""

    rules: Rules | None
    auth: AuthResult

    def may_invoke(self, namespace: str, function_id: str, metadata: Mapping[str, Any]) -> bool:
        """Whether the session may have this function called, directly or not; `metadata` may be empty."""
        if function_id in (self.auth.forbidden_functions or ()):
            return False
        if any(matches(grant, function_id) for grant in (self.auth.namespaces or {}).get(namespace, ())):
            return True
        if namespace == DEFAULT_NAMESPACE and (
            function_id in (self.auth.allowed_functions or ()) or function_id in INFRASTRUCTURE
        ):
            return True
        return self.rules is None or any(
            exposed.admits(namespace, function_id, metadata) for exposed in self.rules.expose_functions
        )

    def denial(self, function_id: str) -> str:
        """Return the text of a denial, the same whether the function exists or not."""
        is_forbidden = function_id in (self.auth.forbidden_functions or ())
        way_out = "remove from rbac.forbidden_functions" if is_forbidden else "add to rbac.expose_functions"
        return f"function '{function_id}' not allowed ({way_out})"

    def namespace_denial(self, namespace: str) -> str | None:
        """Return why the session may not register in this namespace; None if it may."""
        permitted = self.auth.namespaces
        if not permitted or namespace in permitted:
            return None
        return f"namespace '{namespace}' not allowed for this session (permitted: {', '.join(sorted(permitted))})"

    def may_bind_to(self, trigger_type: str) -> bool:
        return self.auth.allowed_trigger_types is None or trigger_type in self.auth.allowed_trigger_types

    @property
    def may_register_functions(self) -> bool:
        """Whether it may register functions: yes, unless the auth function denies it."""
        return self.auth.allow_function_registration is not False

    @property
    def may_register_trigger_types(self) -> bool:
        """Whether it may register trigger types: no, unless the auth function allows it."""
        return self.auth.allow_trigger_type_registration is True

    def registered_id(self, function_id: str) -> str:
        """Return the id under which other peers call the session's function."""
        prefix = self.auth.function_registration_prefix
        return f"{prefix}::{function_id}" if prefix else function_id

    def own_id(self, function_id: str) -> str:
        """Return the id under which the session registered its function."""
        prefix = self.auth.function_registration_prefix
        return function_id.removeprefix(f"{prefix}::") if prefix else function_id


def matches(pattern: str, text: str) -> bool:
    """Whether `text` matches a pattern, bare or entry `match("...")`; `*` stands for any run of characters."""
    inner = _MATCH.fullmatch(pattern)
    parts = (inner[1] if inner else pattern).split("*")
    return re.fullmatch(".*".join(map(re.escape, parts)), text, re.DOTALL) is not None


def function_ids_in(fields: Mapping[str, Any]) -> list[str]:
    """Return the ids of functions that a config or a payload names to be called later.

    These are `function_id`, `condition_function_id`, `middleware_function_ids` and the like, also in a `config`.
    """
    ids: list[str] = []
    for key, value in fields.items():
        if key == "config" and isinstance(value, Mapping):
            ids += function_ids_in(value)
        elif key.endswith("function_id") and isinstance(value, str):
            ids.append(value)
        elif key.endswith("function_ids") and isinstance(value, list):
            ids += filter(lambda id: isinstance(id, str), value)
    return ids


def _matches_value(wanted: Any, value: Any) -> bool:
    """Whether a metadata value is what the filter wants: a string may be a pattern, `1` is not `true`."""
    if isinstance(wanted, str) and _MATCH.fullmatch(wanted):
        return isinstance(value, str) and matches(wanted, value)
    return type(wanted) is type(value) and bool(wanted == value)


def filter_of(entry: Any) -> Filter:
    """Read one entry of `expose_functions`. Raises `ValueError` that names the mistake."""
    if isinstance(entry, str):
        return Filter(match=entry)
    if not isinstance(entry, dict):
        raise ValueError("an entry is a pattern, or a table with `match` or `metadata`")
    if unknown := sorted(entry.keys() - {"match", "metadata", "namespace"}):
        raise ValueError(f"unknown key `{unknown[0]}`; an entry has `match` or `metadata`, and `namespace`")
    match, metadata = entry.get("match"), entry.get("metadata")
    namespace = entry.get("namespace", DEFAULT_NAMESPACE)
    if (match is None) == (metadata is None):
        raise ValueError("an entry has either `match` or `metadata`")
    if not isinstance(match, str | None) or not isinstance(metadata, dict | None) or not isinstance(namespace, str):
        raise ValueError("`match` and `namespace` are strings, `metadata` is a table")
    return Filter(match, metadata or {}, namespace)
