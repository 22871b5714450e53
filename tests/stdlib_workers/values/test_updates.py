"""Update operations against the public contract, row by row: results, skipped operations, malformed ones."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iii import InvocationError
from stdlib_workers.values import apply_updates, parse_updates
from stdlib_workers.values.updates import LEAST_INTEGER, MOST_INTEGER, MOST_SIGNED, POLLUTING

MISSING: Any = object()


def run(value: Any, *ops: dict[str, Any]) -> tuple[Any, list[str]]:
    updates = parse_updates(list(ops), "state::update")
    new, errors = apply_updates(None if value is MISSING else value, updates, is_missing=value is MISSING)
    assert all(error.keys() == {"op_index", "code", "message", "doc_url"} for error in errors)
    assert all(error["message"] and error["doc_url"] for error in errors)
    return new, [f"{error['op_index']} {error['code']}" for error in errors]


def op(kind: str, path: Any = MISSING, **fields: Any) -> dict[str, Any]:
    return {"type": kind, **({} if path is MISSING else {"path": path}), **fields}


def nested(depth: int) -> Any:
    value: Any = 1
    for _ in range(depth):
        value = {"a": value}
    return value


@pytest.mark.parametrize(
    ("value", "operation", "expected"),
    [
        ({"a": 1}, op("set", "", value=[1]), [1]),
        ({"a": 1}, op("set", ""), None),
        ({"a": 1}, op("set", "a.b", value=2), {"a": 1, "a.b": 2}),
        (MISSING, op("set", "a", value=None), {"a": None}),
        ({"a": 1}, op("merge", value={"b": 2}), {"a": 1, "b": 2}),
        ({"a": {"x": 1}}, op("merge", value={"a": {"y": 2}}), {"a": {"y": 2}}),
        ([1], op("merge", value={"b": 2}), [1]),
        (None, op("merge", None, value={"b": 2}), None),
        ("text", op("merge", ["a", "b"], value={"c": 1}), {"a": {"b": {"c": 1}}}),
        ({"a": [1]}, op("merge", ["a", "b"], value={"c": 1}), {"a": {"b": {"c": 1}}}),
        ({"a": {"b": 1}}, op("merge", ["a"], value={"b": {}}), {"a": {"b": {}}}),
        ({"a": None}, op("merge", "a", value={"c": 1}), {"a": {"c": 1}}),
        (MISSING, op("merge", "a.b", value={"c": 1}), {"a.b": {"c": 1}}),
        ({"a": {"b": {"x": 1}}}, op("merge", ["a", "b"], value={"c": 1}), {"a": {"b": {"x": 1, "c": 1}}}),
        ({"a": 1}, op("merge", [], value={"b": 2}), {"a": 1, "b": 2}),
        (MISSING, op("increment", "", by=3), 3),
        (MISSING, op("decrement", "", by=3), -3),
        (MISSING, op("increment", "n", by=3), {"n": 3}),
        (MISSING, op("decrement", "n", by=LEAST_INTEGER), {"n": 2**63}),
        ({"n": 1.5}, op("increment", "n", by=1), {"n": 2.5}),
        ({"n": MOST_SIGNED}, op("increment", "n", by=1), {"n": MOST_SIGNED + 1}),
        (7, op("decrement", "", by=9), -2),
        (MOST_INTEGER, op("decrement", "", by=1), MOST_INTEGER - 1),
        (1.5, op("decrement", "", by=2), -0.5),
        (MISSING, op("append", "", value="x"), "x"),
        (MISSING, op("append", value=1), [1]),
        (None, op("append", value="x"), "x"),
        ([1], op("append", value=[2]), [1, [2]]),
        ([1], op("append", value="x"), [1, "x"]),
        (None, op("append", value=[1]), [[1]]),
        ("a", op("append", value="b"), "ab"),
        ({"t": "a"}, op("append", ["t"], value="b"), {"t": "ab"}),
        ({"a": {"b": None}}, op("append", ["a", "b"], value="x"), {"a": {"b": "x"}}),
        ({"a": {"b": [1]}}, op("append", ["a", "b"], value=2), {"a": {"b": [1, 2]}}),
        ({"a": [1]}, op("append", ["a", "b"], value=2), {"a": {"b": [2]}}),
        (MISSING, op("append", ["a", "b", "c"], value=[1]), {"a": {"b": {"c": [[1]]}}}),
        (MISSING, op("append", "t", value="x"), {"t": "x"}),
        (MISSING, op("append", ["log", "lines"], value="x"), {"log": {"lines": ["x"]}}),
        ({"log": 5}, op("append", ["log", "lines"], value="x"), {"log": {"lines": ["x"]}}),
        ({"t": None}, op("append", "t", value="x"), {"t": "x"}),
        ({"a": 1}, op("remove", ""), None),
        ({"a": 1}, op("remove", "a"), {}),
        ({"a": 1}, op("remove", "zz"), {"a": 1}),
    ],
)
def test_an_operation_that_fits(value: Any, operation: dict[str, Any], expected: Any) -> None:
    assert run(value, operation) == (expected, [])


@pytest.mark.parametrize(
    ("value", "operation", "code"),
    [
        ([1], op("set", "a", value=1), "set.target_not_object"),
        ("x", op("increment", "a", by=1), "increment.target_not_object"),
        (None, op("decrement", "a", by=1), "decrement.target_not_object"),
        (3, op("append", "a", value=1), "append.target_not_object"),
        (3, op("append", ["a", "b"], value=1), "append.target_not_object"),
        ([], op("remove", "a"), "remove.target_not_object"),
        ({"n": "1"}, op("increment", "n", by=1), "increment.not_number"),
        ({"n": True}, op("increment", "n", by=1), "increment.not_number"),
        ({"n": None}, op("decrement", "n", by=1), "decrement.not_number"),
        ({"n": MOST_INTEGER}, op("increment", "n", by=1), "increment.not_number"),
        ({"n": LEAST_INTEGER}, op("decrement", "n", by=1), "decrement.not_number"),
        ({}, op("increment", "", by=1), "increment.not_number"),
        ({"a": {}}, op("append", "a", value=1), "append.type_mismatch"),
        ("text", op("append", value=1), "append.type_mismatch"),
        ({}, op("merge", value=[1]), "merge.value.not_an_object"),
        ({}, op("merge", value=dict.fromkeys(map(str, range(1025)))), "merge.value.too_many_keys"),
        ({}, op("merge", value={"constructor": 1}), "merge.value.proto_polluted"),
        ({}, op("merge", ["a", ""], value={}), "merge.path.empty_segment"),
        ({}, op("merge", ["a"] * 33, value={}), "merge.path.too_deep"),
        ({}, op("append", ["é" * 129], value=1), "append.path.segment_too_long"),
        ({}, op("append", [""], value=1), "append.path.empty_segment"),
        (True, op("increment", "", by=1), "increment.not_number"),
        ("1", op("decrement", "", by=1), "decrement.not_number"),
        # Paths are looked at before values, their length before their segments, the first segment first.
        ({}, op("merge", [*["a"] * 32, ""], value=1), "merge.path.too_deep"),
        ({}, op("merge", ["a" * 257, "", "__proto__"], value=1), "merge.path.segment_too_long"),
        ({}, op("merge", ["a", "__proto__"], value=1), "merge.path.proto_polluted"),
        ({}, op("merge", value={"__proto__": 1} | dict.fromkeys(map(str, range(1024)))), "merge.value.too_many_keys"),
        ({}, op("merge", value={"prototype": nested(17)}), "merge.value.proto_polluted"),
        (1, op("set", "__proto__", value=1), "set.path.proto_polluted"),
        *[({}, op(kind, key, value={}, by=1), f"{kind}.path.proto_polluted") for kind in
          ("set", "merge", "increment", "decrement", "append", "remove") for key in sorted(POLLUTING)],
    ],
)  # fmt: skip
def test_an_operation_that_does_not_fit_is_skipped_and_listed(value: Any, operation: dict[str, Any], code: str) -> None:
    before = repr(value)
    new, errors = run(value, operation)
    assert errors == [f"0 {code}"]
    assert repr(new) == before


@pytest.mark.parametrize(("depth", "errors"), [(16, []), (17, ["0 merge.value.too_deep"])])
def test_a_merge_may_be_nested_sixteen_deep(depth: int, errors: list[str]) -> None:
    assert run({}, op("merge", value=nested(depth)))[1] == errors


def test_the_limits_themselves_are_allowed() -> None:
    value = dict.fromkeys(map(str, range(1024)))
    assert run({}, op("merge", value=value), op("append", ["a"] * 32, value=1))[1] == []


@pytest.mark.parametrize("value", [{"__proto__": 1}, [{"prototype": 1}], dict.fromkeys(map(str, range(1025)))])
def test_what_is_set_or_appended_is_not_inspected(value: Any) -> None:
    assert run({}, op("set", "a", value=value), op("append", "b", value=value)) == ({"a": value, "b": [value]}, [])


def test_a_merge_looks_for_polluting_keys_at_its_top_only() -> None:
    assert run({}, op("merge", value={"a": {"__proto__": 1}})) == ({"a": {"__proto__": 1}}, [])


def test_a_value_may_be_as_deep_as_a_message() -> None:
    value = nested(600)
    assert run({}, op("set", "a", value=value), op("append", "b", value=value))[1] == []


@pytest.mark.parametrize(("length", "errors"), [(256, []), (257, ["0 set.path.segment_too_long"])])
def test_a_segment_may_have_256_bytes(length: int, errors: list[str]) -> None:
    assert run({}, op("set", "k" * length, value=1))[1] == errors


def test_later_operations_run_after_one_that_was_skipped() -> None:
    new, errors = run({"n": "x"}, op("increment", "n", by=1), op("set", "m", value=2), op("remove", "__proto__"))
    assert new == {"n": "x", "m": 2}
    assert errors == ["0 increment.not_number", "2 remove.path.proto_polluted"]


def test_the_message_names_the_path() -> None:
    updates = parse_updates([op("increment", "visits", by=1)], "state::update")
    _, errors = apply_updates({"visits": "x"}, updates, is_missing=False)
    assert "visits" in errors[0]["message"]


def test_a_missing_value_stays_fresh_until_an_operation_succeeds() -> None:
    assert run(MISSING, op("set", "__proto__", value=1), op("increment", "", by=2)) == (
        2,
        ["0 set.path.proto_polluted"],
    )
    assert run(MISSING, op("set", "a", value=1), op("append", "", value="x"))[1] == ["1 append.type_mismatch"]


def test_when_every_operation_fails_a_missing_value_becomes_an_empty_object() -> None:
    assert run(MISSING, op("remove", "__proto__")) == ({}, ["0 remove.path.proto_polluted"])


@pytest.mark.parametrize(
    "ops",
    [
        None,
        {"type": "set"},
        [1],
        [{}],
        [op("replace", "a")],
        [{"type": ["set"], "path": "a"}],
        [{"type": None, "path": "a"}],
        [op("set", value=1)],
        [op("set", None, value=1)],
        [op("set", ["a"], value=1)],
        [op("increment", "a")],
        [op("increment", "a", by=1.0)],
        [op("increment", "a", by=True)],
        [op("increment", "a", by=2**63)],
        [op("decrement", ["a"], by=1)],
        [op("merge", "a")],
        [op("append", ["a", 1], value=1)],
        [op("append", 5, value=1)],
        [op("remove")],
    ],
)
def test_a_malformed_operation_fails_the_call(ops: Any) -> None:
    with pytest.raises(InvocationError) as caught:
        parse_updates(ops, "state::update")
    assert caught.value.code == "deserialization_error"
    assert "state::update" in caught.value.message


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=8,
)
OPS = st.fixed_dictionaries(
    {"type": st.sampled_from(["set", "merge", "append", "remove"]), "path": st.text(max_size=3), "value": JSON}
)


@given(value=JSON, ops=st.lists(OPS, max_size=4))
def test_the_operations_themselves_are_never_changed(value: Any, ops: list[dict[str, Any]]) -> None:
    before = repr(ops)
    updates = parse_updates(ops, "state::update")
    apply_updates(value, updates, is_missing=False)
    assert repr(ops) == before
