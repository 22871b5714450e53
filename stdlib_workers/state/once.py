"""Exactly-once effects: what `state::once` writes, and how it finds that the job has been recorded before. Pure.

The record of a job and the writes that are the job's effect are one transaction, the record first. So a job that is
delivered again finds either both or neither.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from iii import InvocationError
from stdlib_workers.state.events import value_of
from stdlib_workers.storage import Decide, Entry
from stdlib_workers.values import Payload, apply_updates, encode, malformed, parse_updates

FUNCTION = "state::once"
OPS_DO_NOT_FIT = "OPS_DO_NOT_FIT"
_EFFECTS = ("value", "ops", "delete")

# Raises InvocationError for a value that is too large.
CheckSize = Callable[[bytes], None]


class Recorded(Exception):
    """The job is recorded already with this result: nothing is written."""

    def __init__(self, result: Any) -> None:
        super().__init__("recorded already")
        self.result = result


def writes_from(payload: Any, check_size: CheckSize) -> list[tuple[str, str, Decide]]:
    """Return the record and the writes of a request, for one transaction.

    InvocationError `deserialization_error` for a malformed request. Deciding raises `Recorded`, or InvocationError
    `OPS_DO_NOT_FIT` when an operation does not fit: half an effect is none.
    """
    fields = Payload(FUNCTION, payload)
    writes = fields.get("writes") or []
    if not isinstance(writes, list):
        raise malformed(FUNCTION, "writes must be an array")
    record = encode(fields.get("result"))
    check_size(record)

    def decide(entry: Entry | None) -> bytes:
        if entry is not None:
            raise Recorded(value_of(entry))
        return record

    return [
        (fields.string("scope"), fields.string("key"), decide),
        *(_write_from(Payload(FUNCTION, write), check_size) for write in writes),
    ]


def _write_from(fields: Payload, check_size: CheckSize) -> tuple[str, str, Decide]:
    effects = [effect for effect in _EFFECTS if effect in fields]
    if len(effects) != 1:
        raise malformed(FUNCTION, f"a write needs one of {', '.join(_EFFECTS)}, got {', '.join(effects) or 'none'}")
    scope, key = fields.string("scope"), fields.string("key")
    if effects == ["delete"]:
        return scope, key, lambda _: None
    if effects == ["value"]:
        value = encode(fields.value("value"))
        check_size(value)
        return scope, key, lambda _: value
    updates = parse_updates(fields.value("ops"), FUNCTION)

    def decide(entry: Entry | None) -> bytes:
        result, errors = apply_updates(value_of(entry), updates, is_missing=entry is None)
        if errors:
            text = "an operation does not fit; nothing was written"
            raise InvocationError(OPS_DO_NOT_FIT, text, details={"errors": errors})
        updated = encode(result)
        check_size(updated)
        return updated

    return scope, key, decide
