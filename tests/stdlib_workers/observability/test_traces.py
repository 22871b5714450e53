"""Spans in the archive: every filter of `engine::traces::list`, roots as spans come and go, groups, bounds."""

from __future__ import annotations

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iii import InvocationError
from stdlib_workers.observability.config.options import Limits
from stdlib_workers.observability.functions.traces import TraceFunctions
from stdlib_workers.observability.records.spans import SpanRow
from stdlib_workers.observability.records.trace_tree import Collapse
from stdlib_workers.observability.store import span_table
from stdlib_workers.observability.store.archive import Archive, used_bytes
from stdlib_workers.observability.store.trace_query import TraceQuery, trace_query_from
from tests.support.observed import MS, NOW, Bench, archive, bench, keep, log, metrics_request, span, span_id, trace_id


def found(kept: Archive, payload: Any = None, now: int = NOW) -> list[str]:
    """The span ids a query finds, in order."""
    query = trace_query_from(payload)
    rows, _ = kept.run(lambda connection: span_table.find(connection, query, now)).result()
    return [row.span for row in rows]


def numbers(kept: Archive, **payload: Any) -> list[int]:
    return [int(id, 16) for id in found(kept, payload)]


def functions(made: Bench, collapse: Sequence[Collapse] = ()) -> TraceFunctions:
    return TraceFunctions(made.archive, made.pipeline, 1024, collapse)


def test_the_shape_of_a_span_and_of_the_answer() -> None:
    with bench() as made:
        keep(
            made.archive,
            span(
                1,
                attributes={"n": 5, "deep": {"a": [1]}, "flag": True, "iii.tag.env": "test"},
                events=[{"name": "e", "timestamp_unix_nano": 3, "attributes": {"k": 1}}],
                links=[{"trace_id": "a", "span_id": "b", "trace_state": None, "attributes": {}}],
                status="error",
                status_description="no",
                flags=1,
                instrumentation_scope_name="iii",
            ),
        )
        answer = made.run(functions(made).list({}))
    (row,) = answer.pop("spans")
    assert row == {
        "trace_id": trace_id(1),
        "span_id": span_id(1),
        "parent_span_id": None,
        "name": "call math::add",
        "start_time_unix_nano": NOW + MS,
        "end_time_unix_nano": NOW + 2 * MS,
        "status": "error",
        "status_description": "no",
        "attributes": [["n", "5"], ["deep", '{"a":[1]}'], ["flag", "true"], ["iii.tag.env", "test"]],
        "service_name": "math",
        "events": [{"name": "e", "timestamp_unix_nano": 3, "attributes": [["k", "1"]]}],
        "links": [{"trace_id": "a", "span_id": "b", "trace_state": None, "attributes": []}],
        "flags": 1,
        "instrumentation_scope_name": "iii",
        "trace_tags": {"iii.tag.env": "test"},
    }
    storage = answer.pop("storage")
    assert answer == {"total": 1, "offset": 0, "limit": 100}
    assert storage.pop("physical_bytes") > 0
    assert storage == {
        "archive": "healthy",
        "completeness": "complete",
        "known_dropped_spans": 0,
        "thinned_spans": 0,
        "max_disk_bytes": 1024,
        "last_error": None,
    }


def test_a_running_span_says_so_and_absent_fields_stay_absent() -> None:
    with bench() as made:
        scope = {"instrumentation_scope_name": "lib", "instrumentation_scope_version": "1.2"}
        keep(made.archive, span(1, pending=True, status="unset", trace_state="a=b", **scope), span(2, trace=2))
        running, ended = made.run(functions(made).list({}))["spans"]
    assert (running["pending"], running["end_time_unix_nano"], running["status"]) == (True, 0, "unset")
    assert {name: running[name] for name in ("trace_state", *scope)} == {"trace_state": "a=b", **scope}
    absent = {"pending", "status_description", "flags", "trace_state", "trace_tags", *scope}
    assert not absent & ended.keys()


@pytest.fixture(scope="module")
def kept() -> Any:
    """One archive for all filters: trace 1 with a child, traces 2 to 5 of one span, one internal."""
    with archive() as made:
        keep(
            made,
            span(1, trace=1, start=0, end=10, name="call Shop::Buy", service_name="Shop", attributes={"a": "1"}),
            span(11, parent=1, trace=1, start=2, end=4, name="call pay", attributes={"card": "visa", "a": "2"}),
            span(2, trace=2, start=5, end=6, status="error", attributes={"a": "1", "b": "x"}),
            span(3, trace=3, start=20, end=50, service_name="Ähre", attributes={"a": '["1","2"]'}),
            span(4, trace=4, start=30, pending=True, end=0),
            span(5, trace=5, start=40, end=41, attributes={"function_id": "engine::workers::list"}),
            span(6, parent=99, trace=6, start=60, end=62, attributes={"iii.function.kind": "internal"}),
        )
        yield made


@pytest.mark.parametrize(
    ("payload", "rows"),
    [
        (None, [1, 2, 3, 4]),
        ({"include_internal": True}, [1, 2, 3, 4, 5, 6]),
        ({"search_all_spans": True}, [1, 11, 2, 3, 4]),
        ({"trace_id": trace_id(1)}, [1, 11]),
        ({"trace_id": trace_id(1), "trace_ids": [trace_id(2)]}, [1, 11]),
        ({"trace_ids": [trace_id(3), trace_id(2), "unknown"]}, [2, 3]),
        ({"trace_ids": []}, []),
        ({"trace_id": "unknown"}, []),
        ({"service_name": "SHO"}, [1]),
        ({"service_name": "äH"}, [3]),
        ({"name": "shop::b"}, [1]),
        ({"name": "call PAY"}, []),
        ({"name": "call PAY", "search_all_spans": True}, [1, 11]),
        ({"name": "%"}, []),
        ({"status": "ERR"}, [2]),
        ({"status": ""}, [1, 2, 3, 4]),
        ({"attributes": [["a", "1"]]}, [1, 2]),
        ({"attributes": [["a", "1"], ["b", "x"]]}, [2]),
        ({"attributes": [["a", "2"]]}, []),
        ({"attributes": [["a", "2"]], "search_all_spans": True}, [1, 11]),
        ({"attributes": [["a", "1"], ["card", "visa"]], "search_all_spans": True}, [1, 11]),
        ({"attributes": [["1", "2"]]}, []),
        ({"exclude_attributes": [["a", "1"]]}, [3, 4]),
        ({"exclude_attributes": [["b", "x"], ["a", '["1","2"]']]}, [1, 4]),
        ({"exclude_attributes": [["card", "visa"]], "search_all_spans": True}, [1, 2, 3, 4]),
        ({"min_duration_ms": 10}, [1, 3, 4]),
        ({"max_duration_ms": 9.999}, [2]),
        ({"min_duration_ms": 1, "max_duration_ms": 10}, [1, 2]),
        ({"sort_by": "duration", "sort_order": "desc"}, [4, 3, 1, 2]),
        ({"sort_by": "duration_ms"}, [2, 1, 3, 4]),
        ({"sort_by": "service_name", "search_all_spans": True}, [1, 11, 2, 4, 3]),
        ({"sort_by": "name", "search_all_spans": True}, [1, 2, 3, 4, 11]),
        ({"sort_by": "name", "search_all_spans": True, "sort_order": "desc"}, [11, 4, 3, 2, 1]),
        ({"sort_by": "nonsense", "sort_order": "down"}, [4, 3, 2, 1]),
        ({"offset": 1, "limit": 2}, [2, 3]),
        ({"limit": 0}, []),
        ({"offset": 99}, []),
        ({"start_time": NOW // MS + 11}, [3, 4]),
        ({"end_time": NOW // MS + 5}, [1, 2]),
        ({"start_time": NOW // MS + 7, "end_time": NOW // MS + 25}, [1, 3]),
        ({"start_time": 2**62}, []),
    ],
)
def test_filters(kept: Archive, payload: Any, rows: list[int]) -> None:
    # Span 4 still runs, 100 ms after NOW.
    query = trace_query_from(payload)
    answer, total = kept.run(lambda connection: span_table.find(connection, query, NOW + 100 * MS)).result()
    assert [int(row.span, 16) for row in answer] == rows
    if not payload or not {"offset", "limit"} & set(payload):
        assert total == len(rows)


def test_the_total_is_that_before_paging(kept: Archive) -> None:
    query = trace_query_from({"limit": 1, "offset": 3})
    rows, total = kept.run(lambda connection: span_table.find(connection, query, NOW)).result()
    assert (len(rows), total) == (1, 4)


@pytest.mark.parametrize(
    "payload",
    [
        {"limit": "10"},
        {"limit": -1},
        {"attributes": [["a"]]},
        {"attributes": {"a": "b"}},
        {"min_duration_ms": "5"},
        {"include_internal": 1},
        {"trace_ids": "a"},
        {"name": 5},
        "text",
    ],
)
def test_fields_that_do_not_fit(payload: Any) -> None:
    with pytest.raises(InvocationError) as caught:
        trace_query_from(payload)
    assert caught.value.code == "deserialization_error"


def test_a_running_span_is_replaced_in_place_and_never_comes_back() -> None:
    with archive() as kept:
        keep(kept, span(1, pending=True))
        keep(kept, span(1, end=9, status="error"))
        keep(kept, span(1, pending=True))
        (row,) = kept.run(lambda connection: span_table.trace(connection, trace_id(1))).result()
    assert (row.finish, row.status) == (NOW + 9 * MS, "error")


def model_of_roots(rows: dict[tuple[str, str], SpanRow]) -> set[tuple[str, str]]:
    return {key for key, row in rows.items() if row.parent is None or (row.trace, row.parent) not in rows}


steps = st.lists(
    st.one_of(
        st.lists(
            st.tuples(st.integers(1, 3), st.integers(1, 5), st.one_of(st.none(), st.integers(1, 6)), st.integers(0, 9)),
            max_size=6,
        ),
        st.integers(1, 4),
    ),
    max_size=8,
)


@settings(max_examples=60)
@given(steps)
def test_roots_are_the_spans_whose_parent_is_not_stored_whatever_came_and_went(history: list[Any]) -> None:
    rows: dict[tuple[str, str], SpanRow] = {}
    with archive() as kept:
        for step in history:
            if isinstance(step, int):
                kept.run(lambda connection, count=step: span_table.forget_oldest(connection, count)).result()
                rows = dict(list(rows.items())[step:])
                continue
            spans = [span(id, parent, trace, start=start) for trace, id, parent, start in step]
            keep(kept, *spans)
            for one in sorted(spans, key=lambda one: one["start_time_unix_nano"]):
                key = (one["trace_id"], one["span_id"])
                parent = one["parent_span_id"] if one["parent_span_id"] != one["span_id"] else None
                rows[key] = SpanRow(*key, parent, *("",) * 3, 0, 0, 0, "", "")
        answer, total = kept.run(lambda connection: span_table.find(connection, TraceQuery(limit=999), 0)).result()
    assert {(row.trace, row.span) for row in answer} == model_of_roots(rows)
    assert total == len(answer)


def test_all_survives_a_restart(tmp_path: Path) -> None:
    path = tmp_path / "o.db"
    with archive(path) as kept:
        keep(kept, span(1), span(2, parent=1), logs=[log("kept")])
        kept.add_dropped(3).result()
    with bench(path) as made:
        answer = made.run(functions(made).list({"search_all_spans": True}))
    assert answer["total"] == 2
    assert (answer["storage"]["completeness"], answer["storage"]["known_dropped_spans"]) == ("partial", 3)


def test_bounds_of_count_age_and_bytes() -> None:
    limits = Limits(spans=3, span_seconds=10, pending_seconds=1, logs=2, log_seconds=10, bytes=300_000)
    with archive(limits=limits) as kept:
        keep(kept, *[span(number, trace=number) for number in range(1, 6)], logs=[log(str(n), at=n) for n in range(5)])
        kept.sweep(NOW).result()
        assert numbers(kept) == [3, 4, 5]
        kept.sweep(NOW + 10_004 * MS).result()
        assert numbers(kept) == [4, 5]
        keep(kept, span(9, trace=9, pending=True))
        kept.sweep(NOW + 2_000 * MS).result()
        assert numbers(kept) == [4, 5]
        for number in range(100):
            keep(kept, *[span(100 * number + one, trace=7, attributes={"a": "x" * 2000}) for one in range(20)])
        assert kept.run(used_bytes).result() < 2 * limits.bytes
        assert found(kept, {"search_all_spans": True, "limit": 9999})[-1] == span_id(100 * 99 + 19)


def test_tags_of_the_whole_trace_are_merged_the_later_span_winning() -> None:
    with bench() as made:
        keep(
            made.archive,
            span(1, attributes={"iii.tag.a": "old", "iii.session.id": "s", "iii.session.name": "n"}),
            span(2, parent=1, start=5, attributes={"iii.tag.a": "new", "iii.message.id": "m", "other": "x"}),
            span(3, trace=2),
        )
        rows = made.run(functions(made).list({}))["spans"]
    session = {"iii.session.id": "s", "iii.session.name": "n"}
    assert rows[0]["trace_tags"] == {"iii.tag.a": "new", **session, "iii.message.id": "m"}
    assert "trace_tags" not in rows[1]


def test_groups_by_the_value_of_an_attribute() -> None:
    with bench() as made:
        keep(
            made.archive,
            span(1, trace=2, start=0, end=4, attributes={"user": "ann", "name": "Ann"}),
            span(2, trace=1, start=6, end=9, status="error", attributes={"user": "ann"}),
            span(3, trace=3, start=7, end=8, attributes={"user": "bob"}),
            span(4, trace=4, attributes={"username": "carl"}),
            span(5, trace=5, attributes={"user": "eve", "function_id": "engine::x"}),
        )
        made_functions = functions(made)
        ask = {"attribute": "user", "label_attribute": "name"}
        groups = made.run(made_functions.group_by(ask))["groups"]
        assert groups == [
            {
                "value": "bob",
                "label": None,
                "trace_ids": [trace_id(3)],
                "span_count": 1,
                "first_seen_ms": NOW // MS + 7,
                "last_seen_ms": NOW // MS + 8,
                "duration_ms": 1.0,
                "error_count": 0,
            },
            {
                "value": "ann",
                "label": "Ann",
                "trace_ids": [trace_id(1), trace_id(2)],
                "span_count": 2,
                "first_seen_ms": NOW // MS,
                "last_seen_ms": NOW // MS + 9,
                "duration_ms": 9.0,
                "error_count": 1,
            },
        ]
        since = made.run(made_functions.group_by({**ask, "since_ms": NOW // MS + 7}))["groups"]
        assert [group["value"] for group in since] == ["bob"]
        internal = made.run(made_functions.group_by({**ask, "include_internal": True, "limit": 2}))["groups"]
        assert [group["value"] for group in internal] == ["bob", "eve"]
        with pytest.raises(InvocationError, match="attribute is missing"):
            made.run(made_functions.group_by({}))


def test_a_hundred_groups_unless_more_are_asked_for_and_the_label_is_optional() -> None:
    with bench() as made:
        keep(made.archive, *[span(n, trace=n, attributes={"user": str(n), "name": "x"}) for n in range(1, 105)])
        answer = made.run(functions(made).group_by({"attribute": "user"}))
        assert len(answer["groups"]) == 100
        assert answer["groups"][0]["label"] is None
        assert answer["storage"]["archive"] == "healthy"
        assert len(made.run(functions(made).group_by({"attribute": "user", "limit": 104}))["groups"]) == 104


def test_clear_forgets_and_says_so() -> None:
    with bench() as made:
        keep(made.archive, span(1))
        assert made.run(functions(made).clear({})) == {"success": True}
        assert made.run(functions(made).list({}))["total"] == 0


def test_a_clear_that_fails_has_a_code_of_its_own() -> None:
    with bench() as made:
        made.archive.close()
        with pytest.raises(InvocationError) as caught:
            made.run(functions(made).clear({}))
        assert caught.value.code == "trace_storage_clear_failed"


def test_the_tree_of_a_trace() -> None:
    with bench() as made:
        keep(made.archive, span(1), span(2, parent=1), span(3, parent=2), span(4, trace=2))
        answer = made.run(functions(made).tree({"trace_id": trace_id(1)}))
        (root,) = answer["roots"]
        assert root["span_id"] == span_id(1)
        assert root["children"][0]["children"][0]["span_id"] == span_id(3)
        assert answer["storage"]["completeness"] == "complete"
        collapsing = functions(made, [Collapse("call math::*")])
        assert made.run(collapsing.tree({"trace_id": trace_id(1)}))["roots"] == []
        assert made.run(functions(made).tree({"trace_id": "unknown"}))["roots"] == []
        with pytest.raises(InvocationError) as caught:
            made.run(functions(made).tree({}))
        assert caught.value.code == "deserialization_error"


def test_a_batch_that_could_not_be_stored_is_counted_and_told_to_nobody() -> None:
    from stdlib_workers.observability.ingest.batches import IngestFilter, batch_from_telemetry

    told: list[Any] = []
    with bench() as made:
        made.pipeline.subscribers.append(told.append)
        made.archive.close()
        made.run(made.pipeline.ingest(batch_from_telemetry({"spans": [span(1), span(2)]}, IngestFilter(), NOW)))
        assert made.pipeline.dropped == 2
        assert made.pipeline.last_error is not None
    assert told == []


def test_a_sweep_goes_on_in_portions_until_nothing_is_over(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("stdlib_workers.observability.store.archive.MAX_FORGOTTEN", 2)
    with archive(limits=Limits(spans=1, span_seconds=10)) as kept:
        keep(kept, *[span(number, trace=number) for number in range(1, 7)])
        assert [kept.sweep(NOW).result() for _ in range(4)] == [True, True, False, False]
        assert numbers(kept) == [6]


@pytest.mark.parametrize(
    "wrong",
    [{"trace_id": "x" * 65}, {"span_id": ""}, {"trace_id": None}, {"span_id": 5}],
)
def test_a_span_without_ids_is_left_out(wrong: dict[str, Any]) -> None:
    with archive() as kept:
        keep(kept, {**span(1), **wrong}, span(2))
        assert numbers(kept) == [2]


def test_fields_of_the_wrong_kind_become_what_can_be_kept() -> None:
    odd = {
        **span(1),
        "parent_span_id": span_id(1),
        "start_time_unix_nano": "nonsense",
        "end_time_unix_nano": 2**80,
        "status": "great",
        "attributes": 5,
        "service_name": None,
        "name": None,
        "events": [5],
    }
    with archive() as kept:
        keep(kept, odd, span(2, attributes=[["a", 1], ["b"]]) | {"parent_span_id": [2**70]})
        rows = kept.run(lambda connection: span_table.trace(connection, trace_id(1))).result()
    first, second = rows
    assert (first.parent, first.start, first.finish, first.status) == (None, 0, 2**63 - 1, "unset")
    assert (first.attributes, first.service, first.name, first.detail) == ("[]", "unknown", "", '{"events":[]}')
    assert (second.attributes, second.parent) == ('[["a","1"]]', None)


def test_a_number_that_cannot_be_kept_costs_its_batch_only() -> None:
    points = [{"count": str(2**63 - 1), "sum": 1.0, "timeUnixNano": str(NOW)}]
    huge = {"name": "h", "histogram": {"aggregationTemporality": 1, "dataPoints": points}}
    frame = ["MTRC", json.dumps(metrics_request(huge))]
    with archive() as kept:
        keep(kept, frames=[frame])
        with pytest.raises(InvocationError) as caught:
            keep(kept, frames=[frame])
        assert caught.value.code == "invalid_payload"
        keep(kept, span(1))
        assert numbers(kept) == [1]


def test_an_answer_stops_before_it_is_too_large_for_the_wire() -> None:
    with bench() as made:
        keep(made.archive, *[span(n, trace=n, attributes={"a": "x" * 1_000_000}) for n in range(1, 10)])
        answer = made.run(functions(made).list({}))
    assert (len(answer["spans"]), answer["total"]) == (5, 9)
