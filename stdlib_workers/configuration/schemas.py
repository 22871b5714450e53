"""What each `configuration::*` function takes and returns, as JSON Schema: for the engine's check and for `--help`."""

from __future__ import annotations

from typing import Any

from stdlib_workers.configuration.entries import ID
from stdlib_workers.configuration.events import EVENT_TYPES

_ID = {"type": "string", "description": "Which configuration: 1 to 64 of a-z, 0-9, `_` and `-`."}
_VIEW = {
    "id": {"type": "string", "pattern": f"^{ID.pattern}$"},
    "name": {"type": "string", "description": "What people call it."},
    "description": {"type": "string", "description": "What it is for."},
    "schema": {"description": "The JSON Schema of its values; null when only a file has told of it."},
}
_METADATA = {"metadata": {"description": "Whatever its owner wants to keep with it."}}


def _object(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {**required, **optional}, "required": list(required)}


_SHOWN = _object(_VIEW, **_METADATA)

REQUESTS = {
    "register": _object(
        {**_VIEW, "id": _ID, "schema": {"description": "The JSON Schema of its values."}},
        initial_value={"description": "Replaces the value; without it, or with null, a stored value stays."},
        **_METADATA,
    ),
    "set": _object(
        {"id": _ID, "value": {"description": "Replaces the whole value; may hold ${VAR} and ${VAR:default}."}}
    ),
    "get": _object(
        {"id": _ID},
        raw={"type": ["boolean", "null"], "description": "Leave ${VAR} as it is.", "default": False},
    ),
    "list": {"type": "object"},
    "schema": _object({"id": _ID}),
}
RESPONSES = {
    "register": _object({**_VIEW, "value": {"description": "The value, with ${VAR} as it is."}}, **_METADATA),
    "set": _object({"old_value": {}, "new_value": {}}),
    "get": _object({"id": {"type": "string"}, "value": {}}),
    "list": _object({"configurations": {"type": "array", "items": _SHOWN}}),
    "schema": _SHOWN,
}
TRIGGER = {
    "type": "object",
    "properties": {
        "configuration_id": {"type": "string", "description": "Only this one; any by default."},
        "event_types": {
            "type": "array",
            "items": {"enum": list(EVENT_TYPES)},
            "description": "Only these; all by default.",
        },
        "condition_function_id": {"type": "string", "description": "Is asked first; only false blocks."},
    },
}
EVENT = _object(
    {
        "type": {"const": "configuration"},
        "event_type": {"enum": list(EVENT_TYPES)},
        **_VIEW,
        "old_value": {"description": "The value before, with its variables; null when there was none."},
        "new_value": {"description": "The value now, with its variables; null after a deletion."},
    },
    **_METADATA,
)
