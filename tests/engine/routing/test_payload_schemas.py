"""What a schema does: which are refused, what a payload that does not fit is told, and that it is quick."""

from __future__ import annotations

import json
import subprocess
import sys
from typing import Any

import pytest
from hypothesis import assume, given
from hypothesis import strategies as st
from jsonschema import Draft202012Validator
from jsonschema.exceptions import best_match
from msgspec import Raw

from iii.engine.routing.payload_schemas import MAX_PATTERN, compile_result_schema, compile_schema
from iii.errors import InvocationError
from iii.protocol.messages import RegisterFunction


def compiled(schema: Any) -> Any:
    return compile_schema(RegisterFunction("f", request_format=Raw(json.dumps(schema).encode())))


def misfit(schema: Any, value: Any) -> Any:
    return compiled(schema)(Raw(json.dumps(value).encode()))


@pytest.mark.parametrize("schema", [None, True, {}])
def test_functions_without_a_schema_pay_nothing(schema: Any) -> None:
    assert compiled(schema) is None
    assert compile_schema(RegisterFunction("f")) is None


def test_results_of_a_function_that_says_so_are_not_checked() -> None:
    formats = ({"type": "string", "x-unchecked": value} for value in (True, False))
    unchecked, checked = (RegisterFunction("f", response_format=Raw(json.dumps(each).encode())) for each in formats)
    assert compile_result_schema(unchecked) is None
    assert compile_result_schema(checked) is not None


PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string"},
        "age": {"type": ["integer", "null"], "minimum": 0},
        "kind": {"enum": ["a", "b"]},
        "tags": {"type": "array", "items": {"type": "string"}},
    },
    "required": ["name"],
    "additionalProperties": False,
}


@pytest.mark.parametrize(
    ("value", "path", "message"),
    [
        ({"name": 5}, "name", "name must be a string, got 5"),
        ({"name": "x", "age": "old"}, "age", 'age must be an integer or null, got "old"'),
        ({"name": "x", "age": -1}, "age", "age must be at least 0, got -1"),
        ({"name": "x", "kind": "c"}, "kind", 'kind must be "a" or "b", got "c"'),
        ({"name": "x", "tags": ["y", 7]}, "tags[1]", "tags[1] must be a string, got 7"),
        ({}, "name", "name is missing"),
        (
            {"name": "x", "kid": "a"},
            "$",
            "the payload: additional properties are not allowed ('kid' was unexpected); did you mean `kind`?",
        ),
        (7, "$", "the payload must be an object, got 7"),
        (None, "$", "the payload must be an object, got null"),
    ],
)
def test_a_misfit_is_named_with_its_place(value: Any, path: str, message: str) -> None:
    found = misfit(PERSON, value)
    assert (found["path"], found["message"]) == (path, message)


def test_unknown_properties_and_patterns_are_told_too() -> None:
    found = misfit(PERSON, {"name": "x", "more": 1})
    assert "more" in found["message"]
    found = misfit({"type": "object", "properties": {"code": {"pattern": "^a+$"}}}, {"code": "b"})
    assert found["path"] == "code"
    assert "^a+$" in found["message"]


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (True, "the payload fits none of the allowed forms, got true"),
        ({"kind": "a"}, "size is missing"),  # near to one of them
        ({"kind": "a", "size": "large"}, 'size must be an integer, got "large"'),
        ({"kind": "a", "size": 1, "id": 1}, "the payload fits more than one of the allowed forms, got {"),
    ],
)
def test_of_alternatives_the_nearest_one_is_named(value: Any, message: str) -> None:
    sized = {"type": "object", "properties": {"size": {"type": "integer"}}, "required": ["size"]}
    known = {"type": "object", "properties": {"id": {"type": "object"}}, "required": ["id"]}
    forms = [sized, {**known, "properties": {}}] if "id" in str(value) else [sized, {"type": "string"}]
    assert misfit({"oneOf": forms}, value)["message"].startswith(message)


LEAVES = st.sampled_from(
    [
        {"type": "string"},
        {"type": "integer"},
        {"type": ["string", "null"]},
        {"type": "number", "minimum": 0},
        {"const": 4},
    ]
)


def _object(properties: dict[str, Any]) -> st.SearchStrategy[dict[str, Any]]:
    required = st.sets(st.sampled_from(sorted(properties))).map(sorted)
    return required.map(lambda names: {"type": "object", "properties": properties, "required": names})


SCHEMAS = st.recursive(
    LEAVES,
    lambda inner: st.one_of(
        inner.map(lambda items: {"type": "array", "items": items}),
        st.dictionaries(st.sampled_from("abc"), inner, min_size=1).flatmap(_object),
    ),
    max_leaves=6,
)
VALUES = st.recursive(
    st.sampled_from([None, True, "x", 4, -1, 2.5]),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from("abcd"), inner, max_size=3),
    max_leaves=8,
)


@given(SCHEMAS, VALUES)
def test_the_place_is_the_one_that_another_implementation_finds_most_telling(schema: Any, value: Any) -> None:
    found = misfit(schema, value)
    assume(found)
    error = best_match(Draft202012Validator(schema).iter_errors(value))
    assert error is not None
    missing = (
        [key for key in error.validator_value if key not in error.instance][:1] if error.validator == "required" else []
    )
    parts = [f"[{part}]" if isinstance(part, int) else f".{part}" for part in [*error.absolute_path, *missing]]
    assert found["path"] == ("".join(parts).lstrip(".") or "$")


def test_what_fits_is_accepted() -> None:
    assert misfit(PERSON, {"name": "x", "age": None, "kind": "a", "tags": []}) is None


def test_references_inside_are_followed_and_outside_refused() -> None:
    schema = {"$ref": "#/$defs/N", "$defs": {"N": {"type": "integer", "minimum": 3}}}
    assert misfit(schema, 3) is None
    assert misfit(schema, 1)["message"] == "the payload must be at least 3, got 1"
    for reference in ("https://evil.example/schema.json", "file:///etc/passwd", "other.json#/a"):
        with pytest.raises(InvocationError, match="is not local") as caught:
            compiled({"properties": {"a": {"$ref": reference}}})
        assert caught.value.code == "invalid_schema"


@pytest.mark.parametrize("schema", [{"type": "nonsense"}, {"required": "a"}, {"pattern": "("}, {"pattern": "(?=a)"}, 5])
def test_what_is_no_schema_is_refused(schema: Any) -> None:
    with pytest.raises(InvocationError) as caught:
        compiled(schema)
    assert caught.value.code == "invalid_schema"


DANGEROUS = ["(a+)+$", "(a|a?)*$", "(a*)*b", "(x+x+)+y", "(.*)*", "a{5000}", "a{1,9999}{1,9999}"]


@pytest.mark.parametrize("pattern", DANGEROUS)
@pytest.mark.parametrize("place", ["pattern", "patternProperties", "nested"])
def test_patterns_that_could_run_for_minutes_are_refused(pattern: str, place: str) -> None:
    schema: Any = {"pattern": pattern}
    if place == "patternProperties":
        schema = {"patternProperties": {pattern: {"type": "string"}}}
    elif place == "nested":
        schema = {"items": {"anyOf": [{"type": "null"}, {"propertyNames": {"pattern": pattern}}]}}
    with pytest.raises(InvocationError) as caught:
        compiled(schema)
    assert caught.value.code in ("unsafe_pattern", "invalid_schema")


@pytest.mark.parametrize(("size", "fits"), [(MAX_PATTERN - 1, True), (MAX_PATTERN, True), (MAX_PATTERN + 1, False)])
def test_the_length_of_a_pattern_is_bounded(size: int, fits: bool) -> None:
    if fits:
        assert misfit({"pattern": "a" * size}, "b")["path"] == "$"
    else:
        with pytest.raises(InvocationError, match=f"{size} characters"):
            compiled({"pattern": "a" * size})


# Accepted, and catastrophic in an engine that backtracks: minutes for a few dozen characters.
SNEAKY = """
import json, sys
sys.path.insert(0, sys.argv[1])
from msgspec import Raw
from iii.engine.routing.payload_schemas import compile_schema
from iii.protocol.messages import RegisterFunction
email = r"([a-zA-Z0-9])(([\\-.]|[_]+)?([a-zA-Z0-9]+))*(@){1}[a-z0-9]+[.]{1}(([a-z]{2,3}))$"
for pattern in (email, "((a+)b?)+$", "^(([a-z])+.)+[A-Z]([a-z])+$", "^a*a*a*a*a*b$"):
    for schema in ({"pattern": pattern}, {"additionalProperties": False, "patternProperties": {pattern: True}}):
        check = compile_schema(RegisterFunction("f", request_format=Raw(json.dumps(schema).encode())))
        text = "a" * 60_000 + "!"
        found = check(Raw(json.dumps(text if "pattern" in schema else {text: 1}).encode()))
        assert found is None or len(str(found["message"])) < 200
print("done")
"""


def test_a_payload_that_would_make_a_pattern_backtrack_is_judged_and_worded_at_once() -> None:
    root = str(__import__("pathlib").Path(__file__).resolve().parents[3])
    # In a process of its own: a regular expression that runs away cannot be stopped in this one.
    done = subprocess.run([sys.executable, "-c", SNEAKY, root], capture_output=True, text=True, timeout=40, check=False)
    assert done.stdout == "done\n", done.stderr
