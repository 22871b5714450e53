"""Schemas of payloads: checked when a function is registered, enforced on each of its calls.

`jsonschema-rs` decides on each call (0.3 us for a flat schema), and lists what is wrong once a call has been refused. A
schema may not refer to another document (`$ref`), nor hold a pattern that could stall a worker's own regex engine.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
from functools import partial
from heapq import nsmallest
from itertools import islice
from typing import Any

import jsonschema_rs
import orjson
from msgspec import Raw

from iii.engine.routing.misspelled_keys import REFUSE_MISSPELLED, misspelled_key
from iii.engine.routing.registry import Validator
from iii.errors import ErrorCode, InvocationError
from iii.protocol.codec import decode_value
from iii.protocol.messages import RegisterFunction, is_empty

# A schema of nothing but these accepts anything.
_ANNOTATIONS = {"$schema", "title", "description", "examples", "default"}
# Longer patterns are never written by hand.
MAX_PATTERN = 512
# A repeated group that itself repeats without bound, or alternates: exponential backtracking in most regex engines.
_NESTED_REPEAT = re.compile(r"\((?:[^()\\]|\\.)*[+*}](?:[^()\\]|\\.)*\)[+*{]|\{\d{4,}")
_ALTERNATION_REPEAT = re.compile(r"\((?:[^()\\]|\\.)*\|(?:[^()\\]|\\.)*\)[+*]")
# Of a response format: it says what a caller gets in the end, and not every call that is answered answers with that.
UNCHECKED = "x-unchecked"
# Characters of a wrong value that an error shows.
_SHOWN = 60
# Reasons considered why a payload does not fit.
_CONSIDERED = 64


def compile_schema(declaration: RegisterFunction) -> Validator | None:
    """Return the check of a function's payloads; None without a schema, or with one that accepts anything.

    Raises `InvocationError` (`invalid_schema`, `unsafe_pattern`) that names the function and what is wrong.
    """
    return _compile(declaration.id, declaration.request_format, "request")


def compile_result_schema(declaration: RegisterFunction) -> Validator | None:
    """Return the check of a function's results; None also for a schema that cannot be used: it refuses no function."""
    if not is_empty(declaration.response_format):
        schema = decode_value(declaration.response_format)
        if isinstance(schema, dict) and schema.get(UNCHECKED) is True:
            return None
    try:
        return _compile(declaration.id, declaration.response_format, "response")
    except InvocationError:
        return None


def _compile(function_id: str, raw_schema: Raw, what: str) -> Validator | None:
    if is_empty(raw_schema):
        return None
    schema = decode_value(raw_schema)
    if schema is True or (isinstance(schema, dict) and schema.keys() <= _ANNOTATIONS):
        return None
    _check(function_id, schema)
    try:
        # Rust's own regex engine: linear time, so that no pattern that slipped through can stall the engine.
        validator = jsonschema_rs.validator_for(schema, pattern_options=jsonschema_rs.RegexOptions())
    except (ValueError, TypeError, jsonschema_rs.ValidationError) as error:
        text = str(error).split("\n", 1)[0]
        raise InvocationError(ErrorCode.INVALID_SCHEMA, f"{function_id}: {what} format: {text}") from None
    is_valid = validator.is_valid
    refuses_misspelled = isinstance(schema, dict) and schema.get(REFUSE_MISSPELLED) is True

    def mismatch(payload: Raw) -> dict[str, object] | None:
        try:
            value = orjson.loads(memoryview(payload)) if len(payload) else None
        except orjson.JSONDecodeError as error:
            return {"message": str(error), "path": "$", "expected": "JSON", "got": "something else"}
        if refuses_misspelled and (misspelling := misspelled_key(schema, value)) is not None:
            return misspelling
        if is_valid(value):
            return None
        return explain(validator, schema, value)

    return mismatch


def _check(function_id: str, schema: Any) -> None:
    """Refuse what a schema may not hold."""
    for node in _nodes(schema):
        reference = node.get("$ref")
        if isinstance(reference, str) and not reference.startswith("#"):
            text = f"$ref {reference!r} is not local; put it under $defs"
            raise InvocationError(ErrorCode.INVALID_SCHEMA, f"{function_id}: {text}")
        for pattern in (node.get("pattern"), *(node.get("patternProperties") or {})):
            if not isinstance(pattern, str):
                continue
            if len(pattern) > MAX_PATTERN:
                text = f"a pattern has {len(pattern)} characters, {MAX_PATTERN} at most"
                raise InvocationError(ErrorCode.UNSAFE_PATTERN, f"{function_id}: {text}")
            if _NESTED_REPEAT.search(pattern) or _ALTERNATION_REPEAT.search(pattern):
                text = f"pattern {pattern!r} repeats a group that repeats or alternates; it could run for minutes"
                raise InvocationError(ErrorCode.UNSAFE_PATTERN, f"{function_id}: {text}")


def _nodes(schema: Any) -> Iterator[Mapping[str, Any]]:
    """Yield every object within a schema."""
    pending = [schema]
    while pending:
        node = pending.pop()
        if isinstance(node, dict):
            yield node
            pending += node.values()
        elif isinstance(node, list):
            pending += node


def explain(validator: Any, schema: Any, value: Any) -> dict[str, object]:
    """Return `{"path", "expected", "got", "message"}` of the most telling reason why `value` does not fit.

    That is the one nearest to the payload's root; of alternatives (`anyOf`, `oneOf`) the reason of the one that the
    value comes nearest to, unless it is as far from all of them.
    """
    errors = sorted(islice(validator.iter_errors(value), _CONSIDERED), key=partial(_place, schema))
    error = max(errors, key=partial(_relevance, schema))
    while alternatives := _alternatives(error):
        nearest, *others = nsmallest(2, alternatives, key=partial(_relevance, schema))
        if others and _relevance(schema, nearest) == _relevance(schema, others[0]):
            break
        error = nearest
    *_, owner, expected = _along(schema, error.schema_path)
    keyword = str(error.schema_path[-1]) if error.schema_path else ""
    *_, got = _along(value, error.instance_path)  # `error.instance` has its keys in another order
    return _words(keyword, expected, _dotted(error.instance_path), got, error.message, owner)


def _alternatives(error: Any) -> list[Any]:
    """Return why a value fits none of the alternatives; nothing when it fits too many."""
    fits_many = isinstance(error.kind, jsonschema_rs.ValidationErrorKind.OneOfMultipleValid)
    return [] if fits_many else [nested for branch in getattr(error.kind, "context", ()) for nested in branch]


def _relevance(schema: Any, error: Any) -> tuple[Any, ...]:
    """Order reasons: the larger one says more about a payload, and the smaller one more about an alternative."""
    path = error.instance_path
    *_, owner, _ = _along(schema, error.schema_path)
    has_right_type = isinstance(owner, dict) and "type" in owner and _has_type(error.instance, owner["type"])
    names = [(isinstance(part, str), part) for part in path]
    return -len(path), names, not hasattr(error.kind, "context"), not has_right_type


def _place(schema: Any, error: Any) -> int:
    """Return where the keyword of a reason stands in its schema: of two that say as much, the first one is told."""
    *_, owner, _ = _along(schema, error.schema_path)
    keyword = error.schema_path[-1] if error.schema_path else ""
    return list(owner).index(keyword) if isinstance(owner, dict) and keyword in owner else 0


def _along(value: Any, path: Iterable[str | int]) -> Iterator[Any]:
    """Yield the parts of a JSON value that a path leads through, the last one last; None before the whole."""
    yield None
    yield value
    for part in path:
        try:
            value = value[part]
        except (KeyError, IndexError, TypeError):
            value = None
        yield value


def _has_type(value: Any, types: Any) -> bool:
    return any(
        jsonschema_rs.is_valid({"type": type}, value) for type in (types if isinstance(types, list) else [types])
    )


def _dotted(path: Iterable[str | int]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")


def _hint(schema: Any, value: Any) -> str:
    """Return which key a closed object's unknown one may have meant."""
    misspelling = misspelled_key(schema, value)
    return f"; did you mean `{misspelling['expected']}`?" if misspelling else ""


def _words(keyword: str, expected: Any, path: str, got: Any, fallback: str, owner: Any) -> dict[str, object]:
    """Say what is wrong; `owner` is the schema that has the keyword."""
    name = path or "the payload"
    shown = _shown(got)
    if keyword == "type":
        types = expected if isinstance(expected, list) else [expected]
        message = f"{name} must be {' or '.join(_with_article(type) for type in types)}, got {shown}"
    elif keyword == "required":
        missing = next((key for key in expected if isinstance(got, dict) and key not in got), "?")
        path = f"{path}.{missing}".lstrip(".")
        message, expected, got = f"{path} is missing", _wanted(owner, missing), None
    elif keyword == "additionalProperties":
        message = f"{name}: {_cut(fallback[:1].lower() + fallback[1:], 2 * _SHOWN)}{_hint(owner, got)}"
    elif keyword in ("enum", "const"):
        choices = expected if keyword == "enum" else [expected]
        message = f"{name} must be {' or '.join(_shown(choice) for choice in choices)}, got {shown}"
    elif keyword in ("anyOf", "oneOf"):
        fits_many = "more than one" in fallback
        message = f"{name} fits {'more than one' if fits_many else 'none'} of the allowed forms, got {shown}"
    elif keyword in _COMPARISONS:
        message = f"{name} must be {_COMPARISONS[keyword]} {expected}, got {shown}"
    else:
        message = f"{name}: {_cut(fallback)}"
    return {"message": message, "path": path or "$", "expected": expected, "got": got}


def _wanted(owner: Any, key: str) -> str:
    """Return in words what an object's schema wants under a key."""
    properties = owner.get("properties") if isinstance(owner, dict) else None
    schema = properties.get(key) if isinstance(properties, dict) else None
    if isinstance(schema, dict) and isinstance(schema.get("enum"), list):
        return _cut(" or ".join(map(_shown, schema["enum"])))
    type = schema.get("type") if isinstance(schema, dict) else None
    return _with_article(type) if isinstance(type, str) and type else "a value"


_COMPARISONS = {
    "minimum": "at least",
    "maximum": "at most",
    "exclusiveMinimum": "more than",
    "exclusiveMaximum": "less than",
}


def _with_article(type: str) -> str:
    if type == "null":
        return "null"
    return f"an {type}" if type[0] in "aeiou" else f"a {type}"


def _shown(value: Any) -> str:
    return _cut(json.dumps(value, ensure_ascii=False, default=str))


def _cut(text: str, size: int = _SHOWN) -> str:
    return text if len(text) <= size else text[:size] + "…"
