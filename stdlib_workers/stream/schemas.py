"""What each `stream::*` function takes, as JSON Schema: for the engine's check and for `--help`."""

from __future__ import annotations

from typing import Any

_NAME = {"type": "string"}


def _object(*required: str, **more: Any) -> dict[str, Any]:
    properties = {**dict.fromkeys(required, _NAME), **more}
    return {"type": "object", "properties": properties, "required": list(required)}


_GROUP = ("stream_name", "group_id")
_ITEM = (*_GROUP, "item_id")
_OPS = {"type": "array", "description": "Operations {type, path, value | by}, applied in order."}

REQUESTS = {
    "set": _object(*_ITEM, data={"description": "Any JSON value."}),
    "get": _object(*_ITEM),
    "delete": _object(*_ITEM),
    "update": _object(*_ITEM, ops=_OPS),
    "list": _object(*_GROUP),
    "list_groups": _object("stream_name"),
    "list_all": {"type": "object"},
    "send": _object(*_GROUP, "type", data={"description": "Any JSON value."}, id={"type": ["string", "null"]}),
}
# What a failure of the storage is called, by function.
CODES = {name: f"STREAM_{name.upper()}_ERROR" for name in REQUESTS} | {"list": "STREAM_GET_GROUP_ERROR"}
STREAM = {
    "type": "object",
    "properties": {**dict.fromkeys((*_ITEM, "condition_function_id"), _NAME)},
    "required": ["stream_name"],
}
MEMBERSHIP = {"type": "object", "properties": {"condition_function_id": _NAME}}
EVENT = {
    "type": "object",
    "properties": {
        "type": {"const": "stream"},
        "timestamp": {"type": "integer", "description": "Milliseconds since 1970."},
        "streamName": _NAME,
        "groupId": _NAME,
        "id": {"type": ["string", "null"]},
        "event": {"type": "object", "properties": {"type": _NAME, "data": {}}},
    },
}
PRESENCE = {
    "type": "object",
    "properties": {
        **dict.fromkeys(("subscription_id", "stream_name", "group_id"), _NAME),
        "id": {"type": ["string", "null"]},
        "context": {},
    },
}
