"""What a session on an RBAC listener may do: the rules of the listener, and its auth function's result. Pure.

A denial wins over everything, then follow the session's grants, the few functions that every SDK needs, and what the
listener exposes. The text of a denial never tells whether the function exists. The same decision covers every way to
have a function called: directly, through a queue, or by a trigger.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
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
# Characters of a pattern: ids have no more, so that a longer pattern is a mistake.
MAX_PATTERN = 256
# Trigger types that outside events reach: a session may bind to them unless its auth function says otherwise. All other
# types of the standard workers tell what happens in the project, and so do those of the engine.
_OUTSIDE = {"http", "cron", "websocket"}
_TELLING = {
    *("configuration", "durable:subscriber", "flow", "flow:ended", "log", "queue", "state"),
    *("stream", "stream:join", "stream:leave"),
    *("subscribe", "trace"),
}
# The engine's types that a session may bind to if its auth function names them; what they tell is cut to its rights.
_GRANTABLE = {"engine::functions-available", "engine::workers-available"}
# The beginnings of names that belong to the engine and to the standard workers, whether or not a project has them.
_RESERVED = (
    *(
        "action::",
        "bridge.",
        "bridge::",
        "configuration::",
        "console::",
        "cron::",
        "engine::",
        "flow::",
        "http::",
        "http_functions::",
        "iii::",
    ),
    *("mcp::", "observability::", "pubsub::", "queue::", "state::", "storage::", "stream::"),
)


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


# Without an auth function, nothing is granted beyond what the listener exposes.
WITHOUT_AUTH_FUNCTION = AuthResult()


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
        """Whether it may bind to a trigger type. One that tells what the project does has to be granted by name."""
        granted = self.auth.allowed_trigger_types
        if trigger_type.startswith("engine::") and trigger_type not in _GRANTABLE:
            return False  # the telemetry of all calls, for one
        if granted is not None:
            return trigger_type in granted
        return trigger_type not in _TELLING and not trigger_type.startswith("engine::")

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
    """Whether `text` matches a pattern, bare or entry `match("...")`; `*` stands for any run of characters.

    Takes linear time: each part between the first and the last is looked for once, from where the one before ends.
    """
    first, *parts = _inner(pattern).split("*")
    if not parts:
        return text == first
    last = parts.pop()
    end = len(text) - len(last)
    if len(first) > end or not (text.startswith(first) and text.endswith(last)):
        return False
    position = len(first)
    for part in parts:
        found = text.find(part, position, end)
        if found < 0:
            return False
        position = found + len(part)
    return True


def _inner(pattern: str) -> str:
    entry = _MATCH.fullmatch(pattern)
    return entry[1] if entry else pattern


def check_pattern(pattern: str) -> None:
    """Raise `ValueError` for a pattern that no id can match: too long, or with control characters."""
    inner = _inner(pattern)
    if len(inner) > MAX_PATTERN:
        raise ValueError(f"a pattern has at most {MAX_PATTERN} characters, this one {len(inner)}")
    if not inner.isprintable():
        raise ValueError(f"a pattern holds no control characters: {inner!r}")


def is_reserved(name: str) -> bool:
    """Whether a name of a function or trigger type belongs to the engine or to a standard worker."""
    return name.startswith(_RESERVED) or name == "publish" or name in _TELLING or name in _OUTSIDE


def function_ids_in(fields: Mapping[str, Any]) -> list[str]:
    """Return the ids of functions that a config or a payload names to be called later, see `with_function_ids`."""
    ids: list[str] = []

    def note(id: str) -> str:
        ids.append(id)
        return id

    with_function_ids(fields, note)
    return ids


def with_function_ids(fields: Mapping[str, Any], change: Callable[[str], str]) -> dict[str, Any]:
    """Return a config or payload with each id of a function that is to be called later changed.

    These are `function_id`, `condition_function_id`, `middleware_function_ids` and the like, also in a `config` or an
    `action`.
    """
    changed = dict(fields)
    for key, value in fields.items():
        if key in ("config", "action") and isinstance(value, Mapping):
            changed[key] = with_function_ids(value, change)
        elif key.endswith("function_id") and isinstance(value, str):
            changed[key] = change(value)
        elif key.endswith("function_ids") and isinstance(value, list):
            changed[key] = [change(id) if isinstance(id, str) else id for id in value]
    return changed


def _matches_value(wanted: Any, value: Any) -> bool:
    """Whether a metadata value is what the filter wants: a string may be a pattern, `1` is not `true`."""
    if isinstance(wanted, str) and _MATCH.fullmatch(wanted):
        return isinstance(value, str) and matches(wanted, value)
    return type(wanted) is type(value) and bool(wanted == value)


def filter_of(entry: Any) -> Filter:
    """Read one entry of `expose_functions`. Raises `ValueError` that names the mistake."""
    if isinstance(entry, str):
        check_pattern(entry)
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
    for pattern in [match, *(metadata or {}).values()]:
        if isinstance(pattern, str):
            check_pattern(pattern)
    return Filter(match, metadata or {}, namespace)
