"""Filters: what is refused, and that what is accepted means what the published SDK means by it."""

from __future__ import annotations

import json
import subprocess
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st
from msgspec import Raw

from iii.engine.observing.filters import Filter, InvalidFilter, TooManySteps
from iii.engine.observing.occurrence import OccurrenceDocument
from iii.protocol.codec import encode_value
from tests.support import official
from tests.support.harness import BOUND

DEEP_LITERAL: Any = 1
for _ in range(33):
    DEEP_LITERAL = [DEEP_LITERAL]


def nested(levels: int) -> Any:
    source: Any = {"input.x": {"$eq": 1}}
    for _ in range(levels):
        source = {"$not": source}
    return source


def matches(source: Any, **parts: Any) -> bool:
    document = OccurrenceDocument({name: Raw(encode_value(value)) for name, value in parts.items()})
    return Filter(source).matches(document)


REFUSED: list[Any] = [
    [],
    {"input.x": 5},
    {"input.x": {}},
    {"input.x": {"eq": 1}},
    {"input.x": {"$and": []}},
    {"input.x": {"$regex": "a"}},
    {"$eq": 1},
    {"$nor": []},
    {"$or": []},
    {"$or": {}},
    {"$and": [1]},
    {"$not": []},
    {"": {"$eq": 1}},
    {"input.": {"$eq": 1}},
    {"input..x": {"$eq": 1}},
    {"input.\\x": {"$eq": 1}},
    {"input.x\\": {"$eq": 1}},
    {"data.x": {"$eq": 1}},
    {"@.x": {"$eq": 1}},
    {"input.x": {"$any": 1}},
    {"input.x": {"$any": {"input.y": {"$eq": 1}}}},
    {"input.x": {"$in": 1}},
    {"input.x": {"$in": list(range(257))}},
    {"input.x": {"$gt": True}},
    {"input.x": {"$prefix": 1}},
    {"input.x": {"$exists": 1}},
    {"input.x": {"$eq": 2**53 + 1}},
    {"input.x": {"$eq": -(2**54)}},
    {"input.x": {"$eq": DEEP_LITERAL}},
    {"input." + ".".join("a" * 17): {"$eq": 1}},
    {"input.x": {"$eq": "x" * 8192}},
    {"$or": [{"input.x": {"$eq": 1}}] * 64},
    nested(8),
]
ACCEPTED: list[Any] = [
    {},
    {"$and": [{}]},
    {"$not": {}},
    {"input": {"$eq": None}},
    {"input.x": {"$in": list(range(256))}},
    {"input.x": {"$eq": 2**53}},
    {"input.x": {"$eq": DEEP_LITERAL[0]}},
    {"input." + ".".join("a" * 16): {"$eq": 1}},
    {"$or": [{"input.x": {"$eq": 1}}] * 63},
    {"input.a\\.b.c\\\\d": {"$eq": 1}},
    {"input.x": {"$any": {}}},
    {"input.x": {"$any": {"$any": {"$gt": 1}}}},
    nested(7),
]


@pytest.mark.parametrize("source", REFUSED, ids=lambda source: json.dumps(source)[:40])
def test_a_filter_that_breaks_the_language_is_refused(source: Any) -> None:
    with pytest.raises(InvalidFilter):
        Filter(source)


@pytest.mark.parametrize("source", ACCEPTED, ids=lambda source: json.dumps(source)[:40])
def test_at_its_limits_a_filter_is_accepted(source: Any) -> None:
    Filter(source)


def test_the_normal_form_is_one_list_of_clauses() -> None:
    assert Filter({}).normal_form == {}
    source = {"input.a": {"$gt": 1, "$lt": 5}, "$and": [{"input.b": {"$eq": 1}}, {"$or": [{"input.c": {"$eq": 2}}]}]}
    assert Filter(source).normal_form == {
        "$and": [{"input.a": {"$gt": 1, "$lt": 5}}, {"input.b": {"$eq": 1}}, {"$or": [{"input.c": {"$eq": 2}}]}]
    }


def test_comparison_never_converts() -> None:
    assert not matches({"input": {"$eq": 1}}, input=True)
    assert matches({"input": {"$eq": 1}}, input=1.0)
    assert not matches({"input": {"$gt": 1}}, input="2")
    assert matches({"input.x": {"$ne": 1}, "output": {"$exists": False}}, input={})
    assert not matches({"input.01": {"$exists": True}}, input=[1, 2])
    assert matches({"input.1": {"$eq": 2}}, input=[1, 2])


def test_values_that_take_too_long_are_not_checked_to_the_end() -> None:
    with pytest.raises(TooManySteps):
        matches({"input": {"$any": {"$in": list(range(1, 257))}}}, input=[0] * 1000)
    with pytest.raises(TooManySteps):
        matches({"input": {"$exists": True}}, input="x" * (1024 * 1024 + 1))
    assert matches({"output": {"$exists": True}}, input="x" * (1024 * 1024 + 1), output=1)


# The same filters and documents, here and in the published SDK.

VALUES = st.recursive(
    st.sampled_from([None, True, False, 0, 1, -1, 2, 1.0, 1.5, "", "a", "ab", "b", "é", [], {}]),
    lambda inner: (
        st.lists(inner, max_size=3) | st.dictionaries(st.sampled_from(["x", "y", "0", "a.b"]), inner, max_size=3)
    ),
    max_leaves=5,
)
PATHS = st.sampled_from(
    [
        "input",
        "input.x",
        "input.x.y",
        "input.x.0",
        "input.1",
        "input.a\\.b",
        "output",
        "output.y",
        "caller.x",
        "bad.x",
        "",
    ]
)
ELEMENT_PATHS = st.sampled_from(["@", "@.x", "@.x.y", "@.0", "input.x"])


def filters(paths: st.SearchStrategy[str], *, depth: int) -> st.SearchStrategy[Any]:
    names = ["$eq", "$ne", "$gt", "$gte", "$lt", "$lte", "$exists", "$prefix", "$other"]
    operators = st.dictionaries(st.sampled_from(names), VALUES, max_size=2)
    operators |= st.fixed_dictionaries({"$in": st.lists(VALUES, max_size=3)})
    operators |= st.fixed_dictionaries({"$nin": st.lists(VALUES, max_size=3)})
    if depth:
        operators |= st.fixed_dictionaries({"$any": operators | filters(ELEMENT_PATHS, depth=depth - 1)})
    clauses = st.dictionaries(paths, operators, max_size=2)
    if depth:
        inner = filters(paths, depth=depth - 1)
        clauses |= st.fixed_dictionaries({"$or": st.lists(inner, max_size=2)})
        clauses |= st.fixed_dictionaries({"$and": st.lists(inner, max_size=2)})
        clauses |= st.fixed_dictionaries({"$not": inner})
    return clauses


THEIRS = """
import json, sys
from iii.filter import FilterError, compile_filter
for line in sys.stdin:
    source, document = json.loads(line)
    try:
        print(json.dumps(compile_filter(source).matches(document)))
    except FilterError:
        print('"refused"')
"""


def test_filters_mean_what_they_mean_in_the_published_sdk() -> None:
    cases: list[tuple[Any, Any]] = [(source, {"input": {"x": 1}}) for source in [*REFUSED, *ACCEPTED]]

    @settings(
        max_examples=1500,
        phases=[Phase.generate],
        suppress_health_check=list(HealthCheck),
        derandomize=True,
    )
    @given(filters(PATHS, depth=2), st.fixed_dictionaries({}, optional={"input": VALUES, "output": VALUES}))
    def collect(source: Any, document: Any) -> None:
        cases.append((source, document))

    collect()
    lines = "".join(json.dumps(case) + "\n" for case in cases)
    python = str(official.python_with("0.25.0"))
    done = subprocess.run(
        [python, "-c", THEIRS],
        cwd=official.HERE,
        input=lines,
        capture_output=True,
        text=True,
        timeout=BOUND,
        check=True,
    )
    theirs = [json.loads(line) for line in done.stdout.splitlines()]
    assert len(theirs) == len(cases)
    ours: list[Any] = []
    for source, document in cases:
        try:
            ours.append(matches(source, **document))
        except InvalidFilter:
            ours.append("refused")
    assert [(case, mine, other) for case, mine, other in zip(cases, ours, theirs, strict=True) if mine != other] == []
    assert {True, False, "refused"} <= set(theirs)
