"""Values against the schema of their configuration. Pure.

The steps that a pattern of a schema may take are bounded, and a schema refers to nothing outside.
"""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import jsonschema_rs

from iii import InvocationError
from stdlib_workers.values import decode, encode

_SHOWN = 300  # characters of a reason
# Patterns may look ahead, as those of the standard workers do; one that needs more steps counts as not matching.
_PATTERNS = jsonschema_rs.FancyRegexOptions(backtrack_limit=100_000)


def check_schema(id: str, schema: Any) -> None:
    """Raise InvocationError `SCHEMA_INVALID` for what is no JSON Schema."""
    _validator(id, encode(schema))


def check_value(id: str, schema: Any, value: Any) -> None:
    """Raise InvocationError `SCHEMA_INVALID` for a value that does not fit, naming where and why."""
    error = next(_validator(id, encode(schema)).iter_errors(value), None)
    if error is not None:
        where = "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in error.instance_path)
        raise _invalid(id, f"{where.lstrip('.')}: {error.message}" if where else error.message)


@lru_cache(maxsize=64)
def _validator(id: str, schema: bytes) -> Any:
    decoded = decode(schema)
    if not isinstance(decoded, dict | bool):
        raise _invalid(id, "the schema must be an object")
    try:
        return jsonschema_rs.validator_for(decoded, pattern_options=_PATTERNS, retriever=_refuse)
    except (ValueError, TypeError, jsonschema_rs.ReferencingError, jsonschema_rs.ValidationError) as error:
        raise _invalid(id, f"the schema is no JSON Schema: {str(error).partition(chr(10))[0]}") from None


def _refuse(uri: str) -> Any:
    raise ValueError(f"$ref {uri!r} is not local; put it under $defs")


def _invalid(id: str, reason: str) -> InvocationError:
    shown = reason if len(reason) <= _SHOWN else f"{reason[:_SHOWN]}…"
    return InvocationError("SCHEMA_INVALID", f"{id}: {shown}")
