"""What each `state::*` function takes, as JSON Schema: for the engine's check and for `--help`."""

from __future__ import annotations

from typing import Any

from iii.arguments import CONFIG_PROPERTIES

_SCOPE = {"scope": {"type": "string", "description": "Group of keys."}}
_PLACE = {**_SCOPE, "key": {"type": "string"}}
_OPS = {"type": "array", "description": "Operations {type, path, value | by}, applied in order."}


def _object(required: dict[str, Any], **optional: Any) -> dict[str, Any]:
    return {"type": "object", "properties": {**required, **optional}, "required": list(required)}


REQUESTS = {
    "set": _object(
        _PLACE,
        value={"description": "Any JSON value (alias: data)."},
        expected={"description": "Write only if the value is this one; null also means none."},
        if_version={"type": "integer", "description": "Write only over this version; 0: the key must not exist."},
    ),
    "get": _object(_PLACE),
    "get_entry": _object(_PLACE),
    "delete": _object(_PLACE),
    "update": _object({**_PLACE, "ops": _OPS}),
    "once": _object(
        {**_SCOPE, "key": {"type": "string", "description": "What is done once; a job's id."}},
        result={"description": "Any JSON value: what is answered whenever it is asked again."},
        writes={"type": "array", "description": "The effect: {scope, key} with value, ops, or delete."},
    ),
    "list": _object(_SCOPE),
    "list_keys": _object(_SCOPE),
    "list_groups": {"type": "object"},
    "list_entries": _object(
        _SCOPE,
        cursor={"type": ["string", "null"], "description": "next_cursor of the page before."},
        limit={"type": ["integer", "null"], "description": "Most entries of a page, 1 to 1000."},
        max_bytes={"type": ["integer", "null"], "description": "Most bytes of a page, 256 to 8000000."},
    ),
}
# The code of a failure of the storage, by function, as in the contract.
CODES = {
    "set": "SET_ERROR",
    "get": "GET_ERROR",
    "get_entry": "GET_ERROR",
    "delete": "DELETE_ERROR",
    "update": "UPDATE_ERROR",
    "once": "UPDATE_ERROR",
    "list": "LIST_ERROR",
    "list_keys": "LIST_ERROR",
    "list_groups": "LIST_GROUPS_ERROR",
    "list_entries": "LIST_ERROR",
}
TRIGGER = {
    "type": "object",
    "properties": {
        **{key: {"type": "string"} for key in ("scope", "key", "condition_function_id")},
        **CONFIG_PROPERTIES,
    },
}
EVENT = {
    "type": "object",
    "properties": {
        "type": {"const": "state"},
        "event_type": {"enum": ["state:created", "state:updated", "state:deleted"]},
        "scope": {"type": "string"},
        "key": {"type": "string"},
        "old_value": {},
        "new_value": {},
    },
}
