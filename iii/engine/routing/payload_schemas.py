"""Schemas of payloads: checked when a function is registered, enforced on each of its calls.

`jsonschema-rs` decides on each call (0.3 us for a flat schema); `jsonschema` words the error once a call has been
refused, unless the schema holds patterns: Python's regular expressions can run for minutes where Rust's cannot. A
schema may not refer to another document (`$ref`), nor hold a pattern that could stall a worker's own regex engine.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator, Mapping
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
# Characters of a wrong value that an error shows.
_SHOWN = 60
# Reasons considered why a payload does not fit; the error names the one nearest to the payload's root.
_CONSIDERED = 64


def compile_schema(declaration: RegisterFunction) -> Validator | None:
    """Return the check of a function's payloads; None without a schema, or with one that accepts anything.

    Raises `InvocationError` (`invalid_schema`, `unsafe_pattern`) that names the function and what is wrong.
    """
    return _compile(declaration.id, declaration.request_format, "request")


def compile_result_schema(declaration: RegisterFunction) -> Validator | None:
    """Return the check of a function's results; None also for a schema that cannot be used: it refuses no function."""
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
    has_patterns = _check(function_id, schema)
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
        return explain_safely(validator, schema, value) if has_patterns else explain(schema, value)

    return mismatch


def _check(function_id: str, schema: Any) -> bool:
    """Refuse what a schema may not hold; return whether it holds patterns."""
    has_patterns = False
    for node in _nodes(schema):
        reference = node.get("$ref")
        if isinstance(reference, str) and not reference.startswith("#"):
            text = f"$ref {reference!r} is not local; put it under $defs"
            raise InvocationError(ErrorCode.INVALID_SCHEMA, f"{function_id}: {text}")
        for pattern in (node.get("pattern"), *(node.get("patternProperties") or {})):
            if not isinstance(pattern, str):
                continue
            has_patterns = True
            if len(pattern) > MAX_PATTERN:
                text = f"a pattern has {len(pattern)} characters, {MAX_PATTERN} at most"
                raise InvocationError(ErrorCode.UNSAFE_PATTERN, f"{function_id}: {text}")
            if _NESTED_REPEAT.search(pattern) or _ALTERNATION_REPEAT.search(pattern):
                text = f"pattern {pattern!r} repeats a group that repeats or alternates; it could run for minutes"
                raise InvocationError(ErrorCode.UNSAFE_PATTERN, f"{function_id}: {text}")
    return has_patterns


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


def explain_safely(validator: Any, schema: Any, value: Any) -> dict[str, object]:
    """As `explain`, by the validator that refused the payload: it matches patterns in linear time."""
    errors = list(islice(validator.iter_errors(value), _CONSIDERED))
    error = min(errors, key=lambda error: len(error.instance_path))
    owner, expected = {}, schema
    try:
        for part in error.schema_path:
            owner, expected = expected, expected[part]
    except (KeyError, IndexError, TypeError):
        owner, expected = {}, None  # the path goes through a `$ref`
    keyword = str(error.schema_path[-1])
    return _words(keyword, expected, _dotted(error.instance_path), error.instance, error.message, owner)


def _dotted(path: Iterable[str | int]) -> str:
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path).lstrip(".")


def explain(schema: Any, value: Any) -> dict[str, object]:
    """Return `{"path", "expected", "got", "message"}` of the most telling reason why `value` does not fit."""
    # Imported here: it takes 150 ms, and only the first refused call needs it.
    from jsonschema import Draft202012Validator
    from jsonschema.exceptions import best_match

    error = best_match(Draft202012Validator(schema).iter_errors(value))
    if error is None:  # the two libraries disagree about this payload: only the whole schema can be named
        return {"message": "the payload does not fit the schema", "path": "$", "expected": schema, "got": value}
    path = _dotted(error.absolute_path)
    return _words(str(error.validator), error.validator_value, path, error.instance, error.message, error.schema)


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
