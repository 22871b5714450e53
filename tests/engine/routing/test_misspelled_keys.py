"""Keys that are nearly those of a schema."""

from __future__ import annotations

from typing import Any

import pytest
from msgspec import Raw

from iii.engine.routing.misspelled_keys import misspelled_key
from iii.engine.routing.payload_schemas import compile_schema
from iii.protocol.codec import encode_value
from iii.protocol.messages import RegisterFunction

SCHEMA: dict[str, Any] = {"properties": {"key": {}, "scope": {}, "trace_id": {}}, "x-refuse-misspelled": True}


@pytest.mark.parametrize(
    ("key", "meant"),
    [("scop", "scope"), ("kye", "key"), ("KEY", "key"), ("traceId", "trace_id"), ("trace-id", "trace_id")],
)
def test_a_key_that_is_nearly_one_is_named_with_that_one(key: str, meant: str) -> None:
    mismatch = misspelled_key(SCHEMA, {key: 1})
    assert mismatch == {
        "message": f"unknown key `{key}`; did you mean `{meant}`?",
        "path": key,
        "expected": meant,
        "got": key,
    }


@pytest.mark.parametrize(
    "payload",
    [
        {"key": 1, "scope": 2},
        {"other": 1},
        {"_key": 1},  # written by the engine, or by nobody's hand
        {"kye": 1, "key": 2},  # the key that it is like is there
        {"trace_id" * 10: 1},
        ["scop"],
        "scop",
        None,
    ],
)
def test_anything_else_is_admitted(payload: Any) -> None:
    assert misspelled_key(SCHEMA, payload) is None


def test_few_of_many_unknown_keys_are_looked_at() -> None:
    assert misspelled_key(SCHEMA, {**{f"zz{number}": 1 for number in range(100)}, "scop": 1}) is None


def test_only_a_schema_that_says_so_refuses_them() -> None:
    for refuses in (True, False):
        schema = {**SCHEMA, "x-refuse-misspelled": refuses}
        validator = compile_schema(RegisterFunction("f", request_format=Raw(encode_value(schema))))
        assert validator is not None
        assert (validator(Raw(b'{"scop": 1}')) is not None) is refuses
        assert validator(Raw(b'{"scope": 1}')) is None


def test_a_schema_that_only_describes_is_not_checked() -> None:
    schema = {"description": "Anything.", "examples": [1]}
    assert compile_schema(RegisterFunction("f", request_format=Raw(encode_value(schema)))) is None
