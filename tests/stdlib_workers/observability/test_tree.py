"""The tree of a trace: roots, silent fan-out, collapsed spans, rings, depth."""

from __future__ import annotations

from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from iii.redaction import BatchRedactor
from stdlib_workers.observability.records.spans import SpanRow, attributes_of, function_in, function_of, span_row_from
from stdlib_workers.observability.records.trace_tree import MAX_DEPTH, Collapse, tree_from
from tests.support.observed import span, span_id


def rows(*spans: dict[str, Any]) -> list[SpanRow]:
    made = [span_row_from(one, BatchRedactor()) for one in spans]
    return [row for row in made if row is not None]


def drawn(roots: list[dict[str, Any]]) -> Any:
    """A tree as nested numbers: {1: {2: {}}}."""
    return {int(root["span_id"], 16): drawn(root["children"]) for root in roots}


def test_children_stand_below_their_parents_in_the_order_of_their_start() -> None:
    found = tree_from(rows(span(3, 1, start=9), span(2, 1, start=5), span(1, start=0), span(4, 99, start=1)))
    assert drawn(found) == {1: {2: {}, 3: {}}, 4: {}}
    assert [list(level) for level in (drawn(found), drawn(found)[1])] == [[1, 4], [2, 3]]


def test_fan_out_that_reached_nobody_is_left_out_to_the_end() -> None:
    silent = {"name": "state_triggers"}
    found = tree_from(
        rows(
            span(1),
            span(2, 1, **silent),
            span(3, 2, name="stream_triggers"),
            span(4, 1, **silent),
            span(5, 4),
            span(6, 1),
        )
    )
    assert drawn(found) == {1: {4: {5: {}}, 6: {}}}


def test_collapsed_spans_hand_their_children_up() -> None:
    rules = (Collapse("middle*"), Collapse("other", "web"))
    found = tree_from(
        rows(
            span(1, name="middle.top"),
            span(2, 1, name="middle.more"),
            span(3, 2),
            span(4, 3, name="other", service_name="web"),
            span(5, 4),
            span(6, 3, name="other"),
        ),
        rules,
    )
    assert drawn(found) == {3: {5: {}, 6: {}}}


def test_a_ring_of_parents_is_opened_and_nothing_lost() -> None:
    found = tree_from(rows(span(1, 3), span(2, 1), span(3, 2), span(4, 2)))
    assert drawn(found) == {2: {3: {1: {}}, 4: {}}}


def test_what_lies_too_deep_follows_on_the_last_level() -> None:
    deep = tree_from(rows(*[span(number, number - 1 or None) for number in range(1, 200)]))
    depth, level = 0, deep
    while level:
        level, depth = level[0]["children"], depth + 1
    assert depth == MAX_DEPTH + 1
    last = deep
    for _ in range(MAX_DEPTH):
        last = last[0]["children"]
    assert len(last) == 199 - MAX_DEPTH
    assert last[1]["parent_span_id"] == last[0]["span_id"]


def size(roots: list[dict[str, Any]]) -> int:
    return sum(1 + size(root["children"]) for root in roots)


@given(st.dictionaries(st.integers(1, 12), st.one_of(st.none(), st.integers(1, 15)), max_size=12))
def test_every_span_is_there_once_and_below_its_parent_where_that_is_no_ring(parents: dict[int, int | None]) -> None:
    found = tree_from(rows(*[span(id, parent) for id, parent in parents.items()]))
    assert size(found) == len(parents)

    def check(nodes: list[dict[str, Any]], above: str | None) -> None:
        for node in nodes:
            if above is not None:
                assert node["parent_span_id"] == above
            check(node["children"], node["span_id"])

    check(found, None)
    for root in found:
        parent = root["parent_span_id"]
        is_ring = parent is not None and parent in {span_id(id) for id in parents}
        assert parent is None or is_ring or int(parent, 16) not in parents


@given(st.dictionaries(st.sampled_from(["iii.function.id", "function_id", "iii.invocation.id", "a"]), st.text()))
def test_the_function_of_a_span_is_found_without_reading_its_attributes(attributes: dict[str, str]) -> None:
    for row in rows(span(attributes=attributes)):
        assert function_in(row) == function_of(attributes_of(row))
