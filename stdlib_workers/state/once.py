"""Exactly-once effects: what `state::once` writes, and how it finds that it has been there before. Pure.

The record of a job and the writes that are the job's effect are one transaction, the record first. So a job that is
delivered again finds either both or neither.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from iii import InvocationError
from stdlib_workers.state.events import value_of
from stdlib_workers.storage import Entry
from stdlib_workers.storage.keyvalue import Decide
from stdlib_workers.values import Payload, apply_updates, encode, malformed, parse_updates

FUNCTION = "state::once"
MISFIT = "OPS_DO_NOT_FIT"
_KINDS = ("value", "ops", "delete")


class Recorded(Exception):
    """The record is there already: nothing is written, and this was the result."""

    def __init__(self, result: Any) -> None:
        super().__init__("recorded already")
        self.result = result


def writes_from(payload: Any, check: Callable[[bytes], None]) -> list[tuple[str, str, Decide]]:
    """Return the record and the writes of a request, for one transaction. `check` refuses what is too large.

    InvocationError `deserialization_error` for a malformed request. Deciding raises `Recorded`, or InvocationError
    `OPS_DO_NOT_FIT` when an operation does not fit: half an effect is none.
    """
    fields = Payload(FUNCTION, payload)
    writes = fields.get("writes") or []
    if not isinstance(writes, list):
        raise malformed(FUNCTION, "writes must be an array")
    record = _checked(encode(fields.get("result")), check)

    def decide(entry: Entry | None) -> bytes:
        if entry is not None:
            raise Recorded(value_of(entry))
        return record

    return [(fields.string("scope"), fields.string("key"), decide), *(_write(write, check) for write in writes)]


def _write(write: Any, check: Callable[[bytes], None]) -> tuple[str, str, Decide]:
    fields = Payload(FUNCTION, write)
    given = [kind for kind in _KINDS if kind in fields]
    if len(given) != 1:
        raise malformed(FUNCTION, f"a write needs one of {', '.join(_KINDS)}, got {', '.join(given) or 'none'}")
    return fields.string("scope"), fields.string("key"), _decision(given[0], fields, check)


def _decision(kind: str, fields: Payload, check: Callable[[bytes], None]) -> Decide:
    if kind == "delete":
        return lambda _: None
    if kind == "value":
        value = _checked(encode(fields.value("value")), check)
        return lambda _: value
    updates = parse_updates(fields.value("ops"), FUNCTION)

    def decide(entry: Entry | None) -> bytes:
        result, errors = apply_updates(value_of(entry), updates, is_missing=entry is None)
        if errors:
            raise InvocationError(MISFIT, "an operation does not fit; nothing was written", details={"errors": errors})
        return _checked(encode(result), check)

    return decide


def _checked(value: bytes, check: Callable[[bytes], None]) -> bytes:
    check(value)
    return value
