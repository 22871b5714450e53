"""`k=v` -> JSON, with and without a schema; JSON texts and where they are wrong. Pure."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.client.errors import UsageError
from cli.text.json import decode, decode_line, encode
from cli.trigger.payload import build, convert, parse_json, types_of

JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=20,
)


@pytest.mark.parametrize(
    ("text", "schema", "value"),
    [
        ("3", None, 3),
        ("true", None, True),
        ("null", None, None),
        ("", None, ""),
        ("hi", None, "hi"),
        ('"3"', None, "3"),
        ("[1, 2]", None, [1, 2]),
        ("{bad", None, "{bad"),
        ("NaN", None, "NaN"),
        ("tru", None, "tru"),
        ("1 2", None, "1 2"),
        ("3", {"type": "string"}, "3"),
        ("true", {"type": "string"}, "true"),
        ('"3"', {"type": "string"}, "3"),
        ('"3"', {"type": "number"}, 3),
        ("3", {"type": ["string", "integer"]}, 3),
        ("two", {"type": "number"}, "two"),
        ('"two"', {"type": "number"}, "two"),
        ("1", {"type": "boolean"}, 1),
        ("null", {"anyOf": [{"type": "string"}, {"type": "null"}]}, None),
        ("7", {"anyOf": [{"type": "string"}, {"type": "null"}]}, "7"),
        ("7", True, 7),
    ],
)
def test_a_value_is_json_if_it_parses_and_what_the_schema_says_above_all(text: str, schema: Any, value: Any) -> None:
    converted = convert(text, schema)
    assert (converted, type(converted)) == (value, type(value))


def test_pairs_override_the_keys_of_the_base_and_leave_it_as_it_was() -> None:
    base = {"a": 1, "b": 2}
    assert build([("b", "3")], base) == {"a": 1, "b": 3}
    assert base == {"a": 1, "b": 2}


def test_a_base_alone_may_be_any_value() -> None:
    assert build([], [1]) == [1]


@pytest.mark.parametrize("base", [[], "text", None, 1])
def test_pairs_need_an_object(base: Any) -> None:
    with pytest.raises(UsageError, match="must be an object"):
        build([("a", "1")], base)


def test_a_schema_that_is_no_object_says_nothing() -> None:
    assert types_of(False, None) == set()
    assert build([("a", "1")], {}, True) == {"a": 1}


def test_a_caret_stands_under_what_is_wrong_in_a_long_text_of_many_lines() -> None:
    with pytest.raises(UsageError) as caught:
        parse_json('{\n "a": 1,\n "b": [' + '"x", ' * 30 + "?],\n}", "--json")
    above, caret = caught.value.hint.split("\n")
    assert above[caret.index("^")] == "?"
    assert len(above) < 80


@given(JSON)
def test_the_codec_agrees_with_the_json_module(value: Any) -> None:
    assert json.loads(encode(value)) == value
    assert decode_line(json.dumps(value)) == value
    assert decode(f" {json.dumps(value)}\n") == value


@pytest.mark.parametrize(
    "text", ["", " ", "tru", "1 2", "NaN", "-Infinity", '{"a": NaN}', "[1", '"a', "{'a': 1}", "\ufeff1"]
)
def test_what_is_no_json_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        decode(text)


@pytest.mark.parametrize("text", ["", "{", "[1", '"a', "x"])
def test_a_line_that_is_no_json_is_a_value_error(text: str) -> None:
    with pytest.raises(ValueError):
        decode_line(text)


@pytest.mark.parametrize("value", [float("nan"), float("inf"), object(), {1, 2}])
def test_what_json_cannot_hold_is_not_encoded(value: Any) -> None:
    with pytest.raises(ValueError):
        encode(value)


def test_a_type_is_found_behind_a_reference():
    schema = {
        "properties": {
            "size": {"$ref": "#/$defs/Size"},
            "next": {"anyOf": [{"$ref": "#/$defs/Node"}, {"type": "null"}]},
        },
        "$defs": {
            "Size": {"type": "string", "enum": ["1", "2"]},
            "Node": {"type": "object"},
            "Loop": {"anyOf": [{"$ref": "#/$defs/Loop"}, {"type": "null"}]},
        },
    }
    assert build([("size", "1"), ("next", "{}")], {}, schema) == {"size": "1", "next": {}}
    assert types_of(schema["properties"]["next"], schema) == {"object", "null"}
    assert types_of({"$ref": "#/$defs/Loop"}, schema) == {"null"}
