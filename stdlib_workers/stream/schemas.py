"""The declarations of functions and trigger types as JSON Schema, for the engine's check and for `--help`."""

from __future__ import annotations

from typing import Any

from iii import TriggerTypeInput
from iii.arguments import CONFIG_PROPERTIES

_NAME = {"type": "string"}


def _object(*required: str, **properties: Any) -> dict[str, Any]:
    properties = {**dict.fromkeys(required, _NAME), **properties}
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
# Error codes for failures of the storage, by function.
CODES = {name: f"STREAM_{name.upper()}_ERROR" for name in REQUESTS} | {"list": "STREAM_GET_GROUP_ERROR"}
_SESSION_CONFIG = {"type": "object", "properties": {"condition_function_id": _NAME, **CONFIG_PROPERTIES}}
_SUBSCRIPTION = {
    "type": "object",
    "properties": {
        **dict.fromkeys(("subscription_id", "stream_name", "group_id"), _NAME),
        "id": {"type": ["string", "null"]},
        "context": {},
    },
}
STREAM_TRIGGER: TriggerTypeInput = {
    "id": "stream",
    "description": "An item was created, updated or deleted, or something was sent to a group.",
    "trigger_request_format": {
        "type": "object",
        "properties": {**dict.fromkeys((*_ITEM, "condition_function_id"), _NAME), **CONFIG_PROPERTIES},
        "required": ["stream_name"],
    },
    "call_request_format": {
        "type": "object",
        "properties": {
            "type": {"const": "stream"},
            "timestamp": {"type": "integer", "description": "Milliseconds since 1970."},
            "streamName": _NAME,
            "groupId": _NAME,
            "id": {"type": ["string", "null"]},
            "event": {"type": "object", "properties": {"type": _NAME, "data": {}}},
        },
    },
}
JOIN_TRIGGER: TriggerTypeInput = {
    "id": "stream:join",
    "description": "A socket wants to subscribe; return {unauthorized: true} to deny.",
    "trigger_request_format": _SESSION_CONFIG,
    "call_request_format": _SUBSCRIPTION,
}
LEAVE_TRIGGER: TriggerTypeInput = {
    "id": "stream:leave",
    "description": "A socket has unsubscribed or is gone.",
    "trigger_request_format": _SESSION_CONFIG,
    "call_request_format": _SUBSCRIPTION,
}
