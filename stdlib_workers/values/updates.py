"""The update operations of `state::update` and `stream::update`, with the public contract's exact semantics. Pure.

Operations run in order on one value. An operation that does not fit is skipped and noted; the others run. A malformed
operation fails the whole call before any runs. A path is never split at dots: `"a.b"` is one key.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from stdlib_workers.values.payload import decode, encode, malformed

MAX_SEGMENTS = 32
MAX_SEGMENT_BYTES = 256
MAX_MERGE_KEYS = 1024
MAX_MERGE_DEPTH = 16
# Keys that change an object's prototype once a JavaScript worker reads the value.
POLLUTING = frozenset({"__proto__", "constructor", "prototype"})
LEAST_INTEGER, MOST_SIGNED, MOST_INTEGER = -(2**63), 2**63 - 1, 2**64 - 1
DOCUMENTATION = "docs/state.md#update-errors"

_NEEDS_VALUE = ("merge", "append")
_COUNTS = ("increment", "decrement")
_MISSING: Any = object()


@dataclass(frozen=True, slots=True)
class Update:
    """One operation: its type, its path as segments (none: the root), its value or number."""

    type: str
    path: tuple[str, ...]
    value: Any = None


class _Inapplicable(Exception):
    """The operation does not fit the value it meets."""

    def __init__(self, code: str, message: str) -> None:
        super().__init__(message)
        self.code = code


def parse_updates(ops: Any, function_id: str) -> list[Update]:
    """Return the operations of a payload. InvocationError `deserialization_error` for a malformed one."""
    if not isinstance(ops, list):
        raise malformed(function_id, f"ops must be an array, got {ops!r}")
    return [_parse(op, index, function_id) for index, op in enumerate(ops)]


def _parse(op: Any, index: int, function_id: str) -> Update:
    op_type = op.get("type") if isinstance(op, dict) else None
    if not isinstance(op_type, str) or op_type not in _APPLY:
        op_types = ", ".join(_APPLY)
        raise malformed(function_id, f"ops[{index}].type must be one of {op_types}, got {op!r:.60}")
    path = _parse_path(op, op_type)
    if path is None:
        wanted = "a string or an array of strings" if op_type in _NEEDS_VALUE else "a string"
        raise malformed(function_id, f"ops[{index}].path of {op_type} must be {wanted}, got {op.get('path')!r:.60}")
    if op_type in _COUNTS:
        by = op.get("by")
        if not isinstance(by, int) or isinstance(by, bool) or not LEAST_INTEGER <= by <= MOST_SIGNED:
            raise malformed(function_id, f"ops[{index}].by must be a 64-bit integer, got {by!r:.60}")
        return Update(op_type, path, by)
    if op_type in _NEEDS_VALUE and "value" not in op:
        raise malformed(function_id, f"ops[{index}].value of {op_type} is missing")
    return Update(op_type, path, op.get("value"))


def _parse_path(op: dict[str, Any], op_type: str) -> tuple[str, ...] | None:
    path = op.get("path")
    if isinstance(path, str):
        return (path,) if path else ()
    if op_type not in _NEEDS_VALUE:
        return None
    if path is None:
        return ()
    if isinstance(path, list) and all(isinstance(segment, str) for segment in path):
        return tuple(path)
    return None


def apply_updates(value: Any, updates: list[Update], *, is_missing: bool) -> tuple[Any, list[dict[str, Any]]]:
    """Return the value after all operations, and an error item for each that was skipped.

    `value` is changed in place. With `is_missing` nothing was stored: `value` is ignored.
    """
    root = {} if is_missing else value
    is_untouched = is_missing
    errors = []
    for index, update in enumerate(updates):
        try:
            _check(update)
            root = _APPLY[update.type](root, update, is_untouched)
            is_untouched = False
        except _Inapplicable as problem:
            error = {"op_index": index, "code": problem.code, "message": str(problem), "doc_url": DOCUMENTATION}
            errors.append(error)
    return root, errors


def _fail(update: Update, reason: str, message: str) -> _Inapplicable:
    where = f"at path {'/'.join(update.path)!r:.300}" if update.path else "at the root"
    return _Inapplicable(f"{update.type}.{reason}", f"{update.type} {where}: {message}")


def _check(update: Update) -> None:
    """Check the path, then a merge's value, before the operation runs."""
    if len(update.path) > MAX_SEGMENTS:
        raise _fail(update, "path.too_deep", f"the path has {len(update.path)} segments, the limit is {MAX_SEGMENTS}")
    for segment in update.path:
        if not segment:
            raise _fail(update, "path.empty_segment", "a segment is empty")
        if len(segment.encode()) > MAX_SEGMENT_BYTES:
            raise _fail(update, "path.segment_too_long", f"a segment is longer than {MAX_SEGMENT_BYTES} bytes")
        if segment in POLLUTING:
            raise _fail(update, "path.proto_polluted", f"{segment} is not allowed as a key")
    if update.type == "merge":
        _check_merge(update)


def _check_merge(update: Update) -> None:
    value = update.value
    if not isinstance(value, dict):
        raise _fail(update, "value.not_an_object", "the value must be an object")
    if len(value) > MAX_MERGE_KEYS:
        raise _fail(update, "value.too_many_keys", f"the value has {len(value)} keys, the limit is {MAX_MERGE_KEYS}")
    if POLLUTING & value.keys():
        raise _fail(update, "value.proto_polluted", f"{min(POLLUTING & value.keys())} is not allowed as a key")
    if _is_deeper(value, MAX_MERGE_DEPTH):
        raise _fail(update, "value.too_deep", f"the value is nested deeper than {MAX_MERGE_DEPTH}")


def _is_deeper(value: Any, levels: int) -> bool:
    if not isinstance(value, dict | list):
        return False
    inner = value.values() if isinstance(value, dict) else value
    return levels == 0 or any(_is_deeper(item, levels - 1) for item in inner)


# The operations: (root, update, is_untouched) -> new root.


def _copied(value: Any) -> Any:
    # Through JSON: `deepcopy` gives up at values half as deep as the wire brings.
    return decode(encode(value))


def _set(root: Any, update: Update, _: bool) -> Any:
    if not update.path:
        return _copied(update.value)
    _object(root, update)[update.path[0]] = _copied(update.value)
    return root


def _merge(root: Any, update: Update, _: bool) -> Any:
    if not update.path and not isinstance(root, dict):
        # The contract's own exception: merging into something else does nothing and is no error.
        return root
    root = root if isinstance(root, dict) else {}
    target = root
    for segment in update.path:
        target = _step(target, segment)
    target.update(_copied(update.value))
    return root


def _step(parent: dict[str, Any], segment: str) -> dict[str, Any]:
    """Return the object at a segment, which replaces a value of any other type."""
    if not isinstance(parent.get(segment), dict):
        parent[segment] = {}
    child: dict[str, Any] = parent[segment]
    return child


def _count(root: Any, update: Update, is_untouched: bool) -> Any:
    by = update.value if update.type == "increment" else -update.value
    if not update.path:
        return by if is_untouched else _sum(root, by, update)
    target, key = _object(root, update), update.path[0]
    target[key] = _sum(target[key], by, update) if key in target else by
    return root


def _sum(number: Any, by: int, update: Update) -> int | float:
    is_number = isinstance(number, int | float) and not isinstance(number, bool)
    total = number + by if is_number else math.nan
    if isinstance(total, float) and math.isfinite(total):
        return total
    if isinstance(total, int) and LEAST_INTEGER <= total <= MOST_INTEGER:
        return total
    raise _fail(update, "not_number", "the value is not a number, or the result is out of range")


def _append(root: Any, update: Update, is_untouched: bool) -> Any:
    value = _copied(update.value)
    if not update.path:
        return _started(value) if is_untouched else _extended(root, value, update)
    parent = _object(root, update)
    for segment in update.path[:-1]:
        parent = _step(parent, segment)
    key = update.path[-1]
    if key in parent:
        parent[key] = _extended(parent[key], value, update)
    else:
        # Deeper down a missing leaf becomes an array even for a string.
        parent[key] = _started(value) if len(update.path) == 1 else [value]
    return root


def _started(value: Any) -> Any:
    return value if isinstance(value, str) else [value]


def _extended(old: Any, value: Any, update: Update) -> Any:
    if old is None:
        return _started(value)
    if isinstance(old, list):
        return [*old, value]
    if isinstance(old, str) and isinstance(value, str):
        return old + value
    raise _fail(update, "type_mismatch", f"cannot append {_type_of(value)} to {_type_of(old)}")


def _remove(root: Any, update: Update, _: bool) -> Any:
    if not update.path:
        return None
    _object(root, update).pop(update.path[0], None)
    return root


def _object(root: Any, update: Update) -> dict[str, Any]:
    if not isinstance(root, dict):
        raise _fail(update, "target_not_object", f"the value is {_type_of(root)}, not an object")
    return root


def _type_of(value: Any) -> str:
    if value is None:
        return "null"
    names = {bool: "a boolean", str: "a string", list: "an array", dict: "an object"}
    return names.get(type(value), "a number")


_APPLY: dict[str, Callable[[Any, Update, bool], Any]] = {
    "set": _set,
    "merge": _merge,
    "increment": _count,
    "decrement": _count,
    "append": _append,
    "remove": _remove,
}
