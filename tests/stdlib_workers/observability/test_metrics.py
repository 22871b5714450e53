"""Metrics: aggregates, percentiles, histograms, rollups, and the JSON of the results."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iii import InvocationError
from stdlib_workers.observability.functions.metrics import MetricFunctions
from stdlib_workers.observability.ingest.batches import Batch, IngestFilter, batch_from_telemetry
from stdlib_workers.observability.records.aggregation import (
    LEVELS,
    SECOND,
    Histogram,
    Value,
    aggregate,
    aggregate_histograms,
    bucket_of,
    merge,
    percentile,
)
from stdlib_workers.observability.records.call_stats import BOUNDS, MAX_FUNCTIONS, OTHER, CallStats
from stdlib_workers.observability.records.metrics import MAX_SERIES, SERIES_TIMEOUT_NS, Growth, LatestSeries
from stdlib_workers.observability.store import metric_table
from stdlib_workers.observability.store.archive import Archive
from tests.support.observed import MS, NOW, Bench, archive, bench, keep, metric, metrics_request, span

MINUTE = 60 * SECOND


def functions(made: Bench, call_stats: CallStats | None = None) -> MetricFunctions:
    return MetricFunctions(made.archive, made.pipeline, call_stats or CallStats())


def report(kept: Archive, *metrics: dict[str, Any], now: int = NOW) -> None:
    keep(kept, frames=[["MTRC", json.dumps(metrics_request(*metrics))]], now=now)


def histogram(name: str, counts: list[int], at: int = 0) -> dict[str, Any]:
    point = {
        "timeUnixNano": str(NOW + at * MS),
        "count": str(sum(counts)),
        "sum": 10.0,
        "bucketCounts": [str(count) for count in counts],
        "explicitBounds": [1.0, 2.0],
        "min": 0.5,
        "max": 3.0,
    }
    return {"name": name, "histogram": {"aggregationTemporality": 1, "dataPoints": [point]}}


def test_the_percentile_is_the_contracts() -> None:
    ordered = [float(number) for number in range(1, 11)]
    assert [percentile(ordered, share) for share in (0.0, 0.5, 0.95, 0.99, 1.0)] == [1.0, 6.0, 10.0, 10.0, 10.0]
    assert percentile([], 0.5) == 0.0


@given(st.lists(st.floats(-1e6, 1e6), min_size=1, max_size=50), st.floats(0, 1))
def test_a_percentile_is_one_of_the_values_and_grows_with_its_share(values: list[float], share: float) -> None:
    ordered = sorted(values)
    found = percentile(ordered, share)
    assert found in ordered
    assert found >= percentile(ordered, share / 2)


@given(
    st.lists(st.tuples(st.sampled_from("ab"), st.integers(0, 10**12), st.integers(-100, 100)), max_size=40),
    st.integers(1, 10**11),
)
def test_aggregates_count_every_value_once_in_its_bucket(points: list[tuple[str, int, int]], interval: int) -> None:
    found = aggregate([Value(name, time, value) for name, time, value in points], interval)
    assert sum(bucket["count"] for bucket in found) == len(points)
    assert sum(bucket["sum"] for bucket in found) == sum(value for *_, value in points)
    for bucket in found:
        assert bucket["bucket_start_ns"] % interval == 0
        assert bucket["bucket_end_ns"] - bucket["bucket_start_ns"] == interval
        assert bucket["min"] <= bucket["avg"] <= bucket["max"]
        assert ("percentiles" in bucket) == (bucket["count"] >= 5)


counts = st.lists(st.integers(0, 9), min_size=3, max_size=3)


@given(st.lists(counts, min_size=1, max_size=8))
def test_histograms_with_the_same_bounds_add_up(parts: list[list[int]]) -> None:
    made = [Histogram("h", 5, sum(part), 1.0, 0.0, 2.0, tuple(part), (1.0, 2.0)) for part in parts]
    (found,) = aggregate_histograms(made, 10)
    assert found["bucket_counts"] == [sum(column) for column in zip(*parts, strict=True)]
    assert (found["total_count"], found["total_sum"]) == (sum(map(sum, parts)), float(len(parts)))


def test_histograms_with_other_bounds_stay_apart() -> None:
    made = [Histogram("h", 5, 1, 1.0, None, None, (1, 0), (bound,)) for bound in (1.0, 2.0)]
    assert [found["explicit_bounds"] for found in aggregate_histograms(made, 10)] == [[1.0], [2.0]]


def test_unknown_extremes_do_not_hide_known_ones() -> None:
    one, two = (Histogram("h", 5, 1, 1.0, least, None, (), ()) for least in (None, 3.0))
    assert (merge(one, two).min, merge(one, two).max) == (3.0, None)


def test_rollups_are_fed_at_all_three_levels_in_buckets_that_lie_inside(tmp_path: Path) -> None:
    start = bucket_of(NOW, LEVELS[2])
    path = tmp_path / "o.db"
    with archive(path) as kept:
        values = [Value("m", start + minute * MINUTE, minute) for minute in range(60)]
        kept.write(Batch(values=values[:30])).result()
    with archive(path) as kept:
        kept.write(Batch(values=values[30:])).result()

        def rollups(level: int, first: int, last: int) -> list[dict[str, Any]]:
            return kept.run(
                lambda connection: metric_table.rollups(connection, level, start + first, start + last, None)
            ).result()

        assert len(rollups(0, 0, 60 * MINUTE)) == 60
        assert len(rollups(0, 1, 60 * MINUTE - 1)) == 58
        assert [bucket["sum"] for bucket in rollups(1, 0, 60 * MINUTE)] == [5 * 5 * n + 10 for n in range(12)]
        assert rollups(2, 0, 60 * MINUTE) == [
            {
                "name": "m",
                "bucket_start_ns": start,
                "bucket_end_ns": start + 60 * MINUTE,
                "count": 60,
                "sum": 1770.0,
                "min": 0.0,
                "max": 59.0,
                "avg": 29.5,
            }
        ]


def test_rollups_are_kept_one_hour_six_hours_and_a_week() -> None:
    with archive() as kept:
        kept.write(Batch(values=[Value("m", NOW, 1)])).result()

        def levels() -> list[int]:
            query = "SELECT level FROM rollups ORDER BY level"
            return [row[0] for row in kept.run(lambda connection: connection.execute(query).fetchall()).result()]

        for hours, left in ((0.9, [0, 1, 2]), (2, [1, 2]), (8, [2]), (170, [])):
            kept.sweep(NOW + int(hours * 3600 * SECOND)).result()
            assert levels() == left


def test_the_answer_of_rollups() -> None:
    with bench() as made:
        start = bucket_of(NOW, MINUTE) - 5 * MINUTE
        at = (start - NOW) // MS
        report(made.archive, metric("m", 2, at=at), histogram("h", [1, 2, 3], at), histogram("h", [1, 0, 0], at))
        answer = made.run(functions(made).rollups({}))
        assert [bucket["name"] for bucket in answer["rollups"]] == ["m"]
        assert answer["histogram_rollups"] == [
            {
                "name": "h",
                "bucket_start_ns": start,
                "bucket_end_ns": start + MINUTE,
                "total_count": 7,
                "total_sum": 20.0,
                "min": 0.5,
                "max": 3.0,
                "bucket_counts": [2, 2, 3],
                "explicit_bounds": [1.0, 2.0],
            }
        ]
        assert answer["query"] == {
            "start_time": NOW // MS - 3_600_000,
            "end_time": NOW // MS,
            "level": 0,
            "metric_name": None,
        }
        assert (answer["level"], answer["source"], answer["timestamp"]) == (0, "stored", NOW // MS)
        assert made.run(functions(made).rollups({"metric_name": "h"}))["rollups"] == []
        assert made.run(functions(made).rollups({"metric_name": "m"}))["histogram_rollups"] == []
        five = {"level": 1, "start_time": start // MS - 300_000, "end_time": start // MS + 600_000}
        wider = made.run(functions(made).rollups(five))
        assert wider["query"] == {**five, "metric_name": None}
        (bucket,) = wider["rollups"]
        assert bucket["bucket_end_ns"] - bucket["bucket_start_ns"] == LEVELS[1]
        # The bucket holds the value, but ends behind the range.
        cut = {"level": 1, "end_time": bucket["bucket_end_ns"] // MS - 1}
        assert made.run(functions(made).rollups(cut))["rollups"] == []
        other = made.run(functions(made).rollups({"level": 7}))
        assert (other["rollups"], other["histogram_rollups"], "message" in other) == ([], [], True)


@pytest.mark.parametrize("field", ["start_time", "end_time"])
@pytest.mark.parametrize("name", ["list", "rollups"])
def test_a_time_that_nanoseconds_cannot_hold(field: str, name: str) -> None:
    with bench() as made, pytest.raises(InvocationError) as caught:
        made.run(getattr(functions(made), name)({field: 2**62}))
    assert caught.value.code == "time_value_overflow"


def test_the_answer_of_metrics() -> None:
    with bench() as made:
        report(made.archive, metric("m", 2, labels={"k": "v"}))
        report(made.archive, metric("late", 3), now=NOW + 10 * MS)
        keep(made.archive, span(1, start=0, end=10), span(2, start=0, end=30))
        answer = made.run(functions(made).list({}))
        assert answer["sdk_metrics"][0] == {
            "name": "m",
            "description": "number of m",
            "unit": "1",
            "metric_type": "counter",
            "data_points": [{"value": 2.0, "attributes": {"k": "v"}, "timestamp_unix_nano": NOW}],
            "service_name": "shop",
            "instrumentation_scope_name": None,
            "instrumentation_scope_version": None,
            "timestamp_unix_nano": NOW,
        }
        assert answer["engine_metrics"]["performance"] == {
            "avg_duration_ms": 20.0,
            "p50_duration_ms": 30.0,
            "p95_duration_ms": 30.0,
            "p99_duration_ms": 30.0,
            "min_duration_ms": 10.0,
            "max_duration_ms": 30.0,
        }
        assert "query" not in answer
        assert "aggregated_metrics" not in answer
        only = made.run(functions(made).list({"metric_name": "late"}))
        assert [one["name"] for one in only["sdk_metrics"]] == ["late"]
        assert only["query"]["metric_name"] == "late"


def test_without_anything_all_numbers_are_zero() -> None:
    with bench() as made:
        answer = made.run(functions(made).list(None))
    nothing = {"total": 0, "success": 0, "error": 0, "deferred": 0, "by_function": {}}
    assert answer["engine_metrics"] == {
        "invocations": nothing,
        "workers": {"spawns": 0, "deaths": 0, "active": 0},
        "performance": {f"{name}_duration_ms": 0.0 for name in ("avg", "p50", "p95", "p99", "min", "max")},
    }
    assert (answer["sdk_metrics"], answer["timestamp"]) == ([], NOW // MS)


def test_a_range_needs_both_ends_and_an_interval_needs_a_range() -> None:
    with bench() as made:
        report(made.archive, *[metric("m", value, at=value) for value in range(6)], histogram("h", [1, 0, 0]))
        report(made.archive, metric("late", 1), now=NOW + 10_000 * MS)
        ask = {"start_time": NOW // MS, "aggregate_interval": 3600}
        half = made.run(functions(made).list(ask))
        assert "aggregated_metrics" not in half
        assert len(half["sdk_metrics"]) == 8
        whole = made.run(functions(made).list({**ask, "end_time": NOW // MS + 5}))
        assert len(whole["sdk_metrics"]) == 7
        (found,) = whole["aggregated_metrics"]
        # A counter that was read as 0, 1, ... 5: it has grown by 5.
        assert (found["name"], found["count"], found["sum"]) == ("m", 6, 5.0)
        assert (found["last"], found["rate"]) == (5.0, 5 / 3600)
        assert found["percentiles"] == {"p50": 1.0, "p75": 1.0, "p90": 1.0, "p95": 1.0, "p99": 1.0}
        assert [one["name"] for one in whole["aggregated_histograms"]] == ["h"]


def test_calls_are_counted_from_spans_until_the_engine_counts_them() -> None:
    call_stats = CallStats()
    rows = batch_from_telemetry(
        {
            "spans": [
                span(1),
                span(2, status="error"),
                span(3, attributes={"function_id": "math::add", "iii.action": "void"}),
                span(4, attributes={"function_id": "engine::workers::list"}),
                span(5, name="execute math::add"),
                span(6, pending=True),
            ]
        },
        IngestFilter(),
        NOW,
    ).spans
    call_stats.add_spans(rows)
    calls = {"total": 3, "success": 1, "error": 1, "deferred": 1}
    assert call_stats.to_json()["invocations"] == {**calls, "by_function": {"math::add": 3}}
    assert sum(call_stats.durations["math::add"].counts) == 3
    call_stats.take_counts({"total": 10, "success": 9, "error": 1, "deferred": 0, "by_function": {"a::b": 10}})
    call_stats.add_spans(rows)
    assert call_stats.calls() == {"total": 10, "success": 9, "error": 1, "deferred": 0}
    assert call_stats.by_function == {"a::b": 10}
    call_stats.add_event("worker_connected", "a")
    call_stats.add_event("worker_disconnected", "a")
    call_stats.add_event("other", "b")
    call_stats.active = 4
    metrics = call_stats.metrics()
    assert [metrics[f"iii.workers.{name}"] for name in ("spawns", "deaths", "active")] == [1, 1, 4]
    assert (metrics["iii.invocations.total"], metrics.get("other")) == (10, None)


def test_durations_of_too_many_functions_go_together() -> None:
    call_stats = CallStats()
    spans = [span(n, attributes={"function_id": f"f::{n}"}) for n in range(1, MAX_FUNCTIONS + 10)]
    call_stats.add_spans(batch_from_telemetry({"spans": spans}, IngestFilter(), NOW).spans)
    assert sum(call_stats.durations[OTHER].counts) == 9
    assert len(call_stats.durations[OTHER].counts) == len(BOUNDS) + 1


def test_the_latest_value_of_a_series_and_its_end() -> None:
    latest = LatestSeries()
    for at, value in ((0, 1), (5, 2)):
        request = json.dumps(metrics_request(metric("m", value, labels={"k": "v"}, at=at)))
        latest.add(batch_from_telemetry({"otlp": [["MTRC", request]]}, IngestFilter(), NOW + at).metrics)
    (series,) = latest.at(NOW)
    assert (series.name, series.service, series.labels, series.point["value"]) == ("m", "shop", {"k": "v"}, 2.0)
    assert list(latest.at(NOW + 6 + SERIES_TIMEOUT_NS)) == []


def series_of(*requests: dict[str, Any]) -> list[Any]:
    latest = LatestSeries()
    for request in requests:
        batch = batch_from_telemetry({"otlp": [["MTRC", json.dumps(request)]]}, IngestFilter(), NOW)
        latest.add(batch.metrics)
    return [series.point.get("value", series.point.get("count")) for series in latest.at(NOW)]


def delta(one: dict[str, Any]) -> dict[str, Any]:
    next(iter(body for body in one.values() if isinstance(body, dict)))["aggregationTemporality"] = 1
    return one


def test_changes_add_up_and_sums_replace_each_other() -> None:
    assert series_of(*(metrics_request(delta(metric("m", value))) for value in (5, 3))) == [8]
    assert series_of(*(metrics_request(delta(metric("m", value, kind="updowncounter"))) for value in (5, -3))) == [2]
    assert series_of(*(metrics_request(metric("m", value)) for value in (5, 8))) == [8]
    assert series_of(*(metrics_request(histogram("h", counts)) for counts in ([1, 2, 3], [1, 0, 0]))) == [7]


def test_a_point_without_a_value_ends_its_series() -> None:
    ended = {"name": "m", "gauge": {"dataPoints": [{"flags": 1}]}}
    assert series_of(metrics_request(metric("m", 5, kind="gauge")), metrics_request(ended)) == []


def test_every_process_and_scope_has_series_of_its_own() -> None:
    requests = []
    for instance, scope in (("one", "a"), ("two", "a"), ("two", "b")):
        request = metrics_request(metric("m", 5))
        request["resourceMetrics"][0]["resource"]["attributes"].append(
            {"key": "service.instance.id", "value": {"stringValue": instance}}
        )
        request["resourceMetrics"][0]["scopeMetrics"][0]["scope"] = {"name": scope}
        requests.append(request)
    assert series_of(*requests, *requests) == [5, 5, 5]


def growth_of(
    *readings: tuple[float, int], is_delta: bool = False, since: int = 100
) -> list[tuple[float, float | None]]:
    """Return growth and last value of a counter; `readings`: its value and when it began."""
    growth, found = Growth(since), []
    for value, start in readings:
        one = metric("m", value)
        one["sum"]["dataPoints"][0]["startTimeUnixNano"] = start
        request = json.dumps(metrics_request(delta(one) if is_delta else one))
        rows = batch_from_telemetry({"otlp": [["MTRC", request]]}, IngestFilter(), NOW).metrics
        found += [(value.value, value.last) for row in rows for value in growth.of(row)[0]]
    return found


def test_what_a_counter_has_grown_by() -> None:
    # It was there before us: what it had counted is no growth of now.
    assert growth_of((50, 7), (53, 7), (53, 7)) == [(0, 50), (3, 53), (0, 53)]
    # It began after us.
    assert growth_of((5, 200), (6, 200)) == [(5, 5), (1, 6)]
    # It began anew: its process was restarted.
    assert growth_of((5, 200), (2, 200), (9, 300)) == [(5, 5), (2, 2), (9, 9)]
    assert growth_of((5, 7), (3, 7), is_delta=True) == [(5, 5), (3, 8)]


def test_the_growth_of_histograms() -> None:
    growth, found = Growth(0), []
    for counts in ([1, 2, 3], [1, 2, 4], [1, 2, 4], [1, 0, 0]):
        one = histogram("h", counts)
        one["histogram"]["aggregationTemporality"] = 2
        request = json.dumps(metrics_request(one))
        rows = batch_from_telemetry({"otlp": [["MTRC", request]]}, IngestFilter(), NOW).metrics
        found += [part.counts for row in rows for part in growth.of(row)[1]]
    assert found == [(0, 0, 1), (1, 0, 0)]


def test_a_counters_rollup_has_its_growth_its_rate_and_its_last_value() -> None:
    with bench() as made:
        start = bucket_of(NOW, MINUTE) - 5 * MINUTE
        for at, value in ((0, 100), (10, 130), (50, 160)):
            report(made.archive, metric("m", value, at=(start - NOW) // MS + at * 1000))
        (bucket,) = made.run(functions(made).rollups({"metric_name": "m"}))["rollups"]
    assert (bucket["count"], bucket["sum"], bucket["rate"], bucket["last"]) == (3, 60.0, 1.0, 160.0)


def test_the_oldest_series_go_when_there_are_too_many() -> None:
    latest = LatestSeries()
    metrics = [metric("m", 1, labels={"k": str(number)}) for number in range(MAX_SERIES + 2)]
    request = json.dumps(metrics_request(*metrics))
    latest.add(batch_from_telemetry({"otlp": [["MTRC", request]]}, IngestFilter(), NOW).metrics)
    labels = [series.labels["k"] for series in latest.at(NOW)]
    assert (len(labels), labels[0]) == (MAX_SERIES, "2")


def test_workers_that_were_there_before_are_counted_once() -> None:
    call_stats = CallStats()
    call_stats.add_event("worker_connected", "early")
    call_stats.add_event("worker_disconnected", "gone before it was seen")
    call_stats.add_present(["early", "there", "late"])
    call_stats.add_event("worker_connected", "late")
    call_stats.add_present(["another list is no news"])
    call_stats.add_event("worker_disconnected", "there")
    assert (call_stats.spawns, call_stats.deaths) == (4, 2)
