"""What a session on an RBAC listener may do: the rules of the listener, the answer of its auth function. Pure.

Deny wins, then grants of the session, then the few functions every SDK needs, then what the listener exposes. A
refusal never tells whether the thing exists. Called by `checkpoint.py` for every message of such a session; the same
decision therefore covers every way a call can be asked for: directly, through a queue, or by a trigger.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from msgspec import Raw, Struct, field

from iii.protocol.messages import DEFAULT_NAMESPACE

# What an SDK calls by itself, whoever uses it (public contract).
INFRASTRUCTURE = frozenset(
    {
        "engine::channels::create",
        "engine::workers::register",
        *(f"engine::log::{level}" for level in ("info", "warn", "error", "debug", "trace")),
        *(f"engine::baggage::{verb}" for verb in ("get", "set", "get_all")),
    }
)
_MATCH = re.compile(r'match\("(.*)"\)')


class Filter(Struct, frozen=True):
    """Functions that a listener exposes: by a pattern of their id, or by what their metadata says."""

    match: str | None = None
    metadata: Mapping[str, Any] = field(default_factory=dict)
    namespace: str = DEFAULT_NAMESPACE

    def admits(self, namespace: str, function_id: str, metadata: Mapping[str, Any]) -> bool:
        """Whether the function is among them."""
        if namespace != self.namespace:
            return False
        if self.match is not None:
            return fits(self.match, function_id)
        return bool(self.metadata) and all(
            key in metadata and _is_value(wanted, metadata[key]) for key, wanted in self.metadata.items()
        )


class Rules(Struct, frozen=True):
    """The `rbac` table of a listener; the ids name functions that are asked."""

    auth_function_id: str | None = None
    on_function_registration_function_id: str | None = None
    on_trigger_registration_function_id: str | None = None
    on_trigger_type_registration_function_id: str | None = None
    expose_functions: tuple[Filter, ...] = ()


class AuthResult(Struct):
    """What an auth function answers; every key is optional, and `null` means absent."""

    namespaces: dict[str, list[str]] | None = None
    allowed_functions: list[str] | None = None
    forbidden_functions: list[str] | None = None
    allowed_trigger_types: list[str] | None = None
    allow_trigger_type_registration: bool | None = None
    allow_function_registration: bool | None = None
    function_registration_prefix: str | None = None
    context: Raw = Raw(b"{}")


# Where no auth function is asked, only what the listener exposes limits a session.
UNASKED = AuthResult(allow_trigger_type_registration=True)


class Session(Struct, frozen=True):
    """One connection's rights. Without `rules` (a listener that only has a middleware) everything is allowed."""

    rules: Rules | None
    auth: AuthResult

    def may_invoke(self, namespace: str, function_id: str, metadata: Mapping[str, Any]) -> bool:
        """Whether the session may have this function run, in whatever way; `metadata` is empty if there is none."""
        if function_id in (self.auth.forbidden_functions or ()):
            return False
        if any(fits(grant, function_id) for grant in (self.auth.namespaces or {}).get(namespace, ())):
            return True
        if namespace == DEFAULT_NAMESPACE and (
            function_id in (self.auth.allowed_functions or ()) or function_id in INFRASTRUCTURE
        ):
            return True
        return self.rules is None or any(
            exposed.admits(namespace, function_id, metadata) for exposed in self.rules.expose_functions
        )

    def refusal(self, function_id: str) -> str:
        """Say why it may not: the same words whether the function exists or not."""
        is_forbidden = function_id in (self.auth.forbidden_functions or ())
        way_out = "remove from rbac.forbidden_functions" if is_forbidden else "add to rbac.expose_functions"
        return f"function '{function_id}' not allowed ({way_out})"

    def namespace_refusal(self, namespace: str) -> str | None:
        """Say why the session may not live in this namespace; None if it may."""
        permitted = self.auth.namespaces
        if not permitted or namespace in permitted:
            return None
        return f"namespace '{namespace}' not allowed for this session (permitted: {', '.join(sorted(permitted))})"

    def may_bind_to(self, trigger_type: str) -> bool:
        """Whether the session may bind functions to this trigger type."""
        return self.auth.allowed_trigger_types is None or trigger_type in self.auth.allowed_trigger_types

    @property
    def may_register_functions(self) -> bool:
        """Allowed unless the auth function says otherwise."""
        return self.auth.allow_function_registration is not False

    @property
    def may_register_trigger_types(self) -> bool:
        """Refused unless the auth function says otherwise."""
        return self.auth.allow_trigger_type_registration is True

    def registered_id(self, function_id: str) -> str:
        """Return the id under which the session's function is known to others."""
        prefix = self.auth.function_registration_prefix
        return f"{prefix}::{function_id}" if prefix else function_id

    def own_id(self, function_id: str) -> str:
        """Return the id under which the session itself knows its function."""
        prefix = self.auth.function_registration_prefix
        return function_id.removeprefix(f"{prefix}::") if prefix else function_id


def fits(pattern: str, text: str) -> bool:
    """Whether `text` matches a pattern, bare or written `match("...")`; `*` stands for any run of characters."""
    inner = _MATCH.fullmatch(pattern)
    parts = (inner[1] if inner else pattern).split("*")
    return re.fullmatch(".*".join(map(re.escape, parts)), text, re.DOTALL) is not None


def functions_named_in(fields: Mapping[str, Any]) -> list[str]:
    """Return the ids of functions that a configuration or a payload names, so that somebody runs them later.

    These are `function_id`, `condition_function_id`, `middleware_function_ids` and the like, also in a `config`.
    """
    found: list[str] = []
    for key, value in fields.items():
        if key == "config" and isinstance(value, Mapping):
            found += functions_named_in(value)
        elif key.endswith("function_id") and isinstance(value, str):
            found.append(value)
        elif key.endswith("function_ids") and isinstance(value, list):
            found += filter(lambda id: isinstance(id, str), value)
    return found


def _is_value(wanted: Any, value: Any) -> bool:
    if isinstance(wanted, str) and _MATCH.fullmatch(wanted):
        return isinstance(value, str) and fits(wanted, value)
    return type(wanted) is type(value) and bool(wanted == value)


def filter_of(written: Any) -> Filter:
    """Read one entry of `expose_functions`. Raises `ValueError` with what is wrong."""
    if isinstance(written, str):
        return Filter(match=written)
    if not isinstance(written, dict):
        raise ValueError("an entry is a pattern, or a table with `match` or `metadata`")
    unknown = sorted(written.keys() - {"match", "metadata", "namespace"})
    if unknown:
        raise ValueError(f"unknown key `{unknown[0]}`; an entry has `match` or `metadata`, and `namespace`")
    match, metadata, namespace = (
        written.get("match"),
        written.get("metadata"),
        written.get("namespace", DEFAULT_NAMESPACE),
    )
    if (match is None) == (metadata is None):
        raise ValueError("an entry has either `match` or `metadata`")
    if not isinstance(match, str | None) or not isinstance(metadata, dict | None) or not isinstance(namespace, str):
        raise ValueError("`match` and `namespace` are strings, `metadata` is a table")
    return Filter(match, metadata or {}, namespace)
