"""What a write may make of a value, judged before it is made; and JSON's equality."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iii import InvocationError
from stdlib_workers.state.functions import Options, State
from stdlib_workers.storage import KEY_VALUE_SCHEMA, SqliteKeyValue, Store
from stdlib_workers.values import check_change, json_equal

MIB = 1024 * 1024
LIMITS = [
    ({"text": "x" * (9 * MIB)}, {"text": "y" * (9 * MIB)}),
    (list(range(150_000)), [1] * 150_000),
    ({str(number): {} for number in range(60_000)}, {str(number): [] for number in range(60_000)}),
]


@pytest.fixture
def state() -> State:
    return State(SqliteKeyValue(Store(None, KEY_VALUE_SCHEMA)), Options())


@pytest.mark.parametrize(("old", "new"), LIMITS)
async def test_a_write_whose_answer_would_not_fit_is_not_made(state: State, old: Any, new: Any) -> None:
    place = {"scope": "s", "key": "k"}
    await state.set({**place, "value": old})
    for attempt in (
        state.set({**place, "value": new}),
        state.update({**place, "ops": [{"type": "set", "path": "", "value": new}]}),
        state.once({"scope": "r", "key": "r", "writes": [{**place, "value": new}]}),
    ):
        with pytest.raises(InvocationError, match="k in s was not written") as caught:
            await attempt
        assert caught.value.code == "payload_too_large"
        assert state.get(place) == old
    assert state.get({"scope": "r", "key": "r"}) is None
    assert await state.delete(place) == old
    assert (await state.set({**place, "value": new}))["old_value"] is None


async def test_a_value_never_grows_beyond_what_can_be_read(state: State) -> None:
    place = {"scope": "s", "key": "k"}
    growing = {**place, "ops": [{"type": "append", "path": "l", "value": "y" * MIB}]}
    for _ in range(8):
        await state.update(growing)
    with pytest.raises(InvocationError, match="was not written"):
        await state.update(growing)
    assert len(state.get(place)["l"]) == 8 * MIB


async def test_a_value_never_nests_deeper_than_what_can_be_read(state: State) -> None:
    place, deep = {"scope": "s", "key": "k"}, json.loads("[" * 40 + "]" * 40)
    path = [str(number) for number in range(30)]
    with pytest.raises(InvocationError, match="nested deeper"):
        await state.update({**place, "ops": [{"type": "append", "path": path, "value": deep}]})
    assert state.get(place) is None


def test_text_is_no_structure() -> None:
    text = json.dumps("[{" * 150_000 + ',"\\' * 100_000).encode()
    check_change("k", text, text)


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(-2, 2) | st.sampled_from([0.0, 1.0, 1.5, -0.0]) | st.text(max_size=2),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=1), inner, max_size=3),
    max_leaves=8,
)


def canonical(value: Any) -> Any:
    """The value with its types spelled out, numbers as one type."""
    if isinstance(value, dict):
        return {key: canonical(item) for key, item in value.items()}
    if isinstance(value, list):
        return list(map(canonical, value))
    if isinstance(value, bool) or not isinstance(value, int | float):
        return f"{type(value).__name__} {value}"
    return f"number {float(value) + 0.0}"


@given(VALUES, VALUES)
def test_values_are_equal_as_json_has_it(one: Any, other: Any) -> None:
    assert json_equal(one, other) == (canonical(one) == canonical(other))
    assert json_equal(one, json.loads(json.dumps(one)))


@pytest.mark.parametrize(
    ("stored", "expected", "fits"),
    [(1, True, False), (False, 0, False), ({"a": [1]}, {"a": [True]}, False), (1, 1.0, True), ([None], [None], True)],
)
async def test_compare_and_set_tells_true_from_one(state: State, stored: Any, expected: Any, fits: bool) -> None:
    place = {"scope": "s", "key": "k"}
    await state.set({**place, "value": stored})
    writing = state.set({**place, "value": "taken", "expected": expected})
    if fits:
        await writing
    else:
        with pytest.raises(InvocationError, match="CONFLICT"):
            await writing
    assert (state.get(place) == "taken") is fits
