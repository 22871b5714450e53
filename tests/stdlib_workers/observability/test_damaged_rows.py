"""Rows of the archive that the disk has changed: told from what was stored, never served as it, in nobody's way."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import msgspec
import pytest

from stdlib_workers.observability.config.alert_rules import AlertState
from stdlib_workers.observability.config.options import Limits, Options
from stdlib_workers.observability.functions.logs import LogFunctions
from stdlib_workers.observability.functions.metrics import MetricFunctions
from stdlib_workers.observability.functions.traces import TraceFunctions
from stdlib_workers.observability.ingest.batches import Batch
from stdlib_workers.observability.records.aggregation import Value
from stdlib_workers.observability.records.call_stats import CallStats
from stdlib_workers.observability.store import history, metric_table
from stdlib_workers.observability.store.archive import Archive
from stdlib_workers.observability.store.figures import figure
from stdlib_workers.observability.store.sound_rows import DAMAGED
from tests.support.observed import NOW, archive, bench, keep, log, metric, metrics_request, span, trace_id

NO_TEXT = "CAST(x'62ff' AS TEXT)"


def damage(kept: Archive, statement: str, *values: Any) -> None:
    """Change rows as a disk does, without their checksums."""
    assert kept.run(lambda connection: connection.execute(statement, values).rowcount).result() > 0


@pytest.mark.parametrize(
    ("column", "value"),
    [("name", "'call bank::pay'"), ("status", "'error'"), ("finish", "finish + 1"), ("attributes", '\'[["a","2"]]\'')]
    + [(column, NO_TEXT) for column in ("name", "attributes", "detail", "service")],
)
def test_a_damaged_span_keeps_its_place_and_tells_nothing(column: str, value: str) -> None:
    with bench() as made:
        keep(made.archive, span(1, attributes={"a": "1"}), span(2, parent=1), span(3, trace=2))
        damage(made.archive, f"UPDATE spans SET {column} = {value} WHERE id = 1")
        functions = TraceFunctions(made.archive, made.pipeline, 1, ())
        answer = made.run(functions.list({"search_all_spans": True}))["spans"]
        assert sorted((one["name"], one["attributes"] == []) for one in answer) == [
            (DAMAGED, True),
            ("call math::add", False),
            ("call math::add", False),
        ]
        [root] = made.run(functions.tree({"trace_id": trace_id(1)}))["roots"]
        assert (root["name"], root["children"][0]["name"]) == (DAMAGED, "call math::add")
        keep(made.archive, span(1, attributes={"a": "3"}))
        assert DAMAGED not in {one["name"] for one in made.run(functions.list({}))["spans"]}


@pytest.mark.parametrize(("column", "value"), [("body", "'hj'"), ("severity", "17"), ("detail", NO_TEXT)])
def test_a_damaged_log_record_tells_only_when_it_was(column: str, value: str) -> None:
    with bench() as made:
        keep(made.archive, logs=[log("hi", attributes={"a": 1}), log("ho", at=1)])
        damage(made.archive, f"UPDATE logs SET {column} = {value} WHERE id = 1")
        answer = made.run(LogFunctions(made.archive, made.pipeline, Options()).list({}))["logs"]
    assert [(one["body"], one["attributes"]) for one in answer] == [("ho", {}), (DAMAGED, {})]


def test_damaged_metrics_and_rollups_are_left_out_and_named(capsys: pytest.CaptureFixture[str]) -> None:
    with bench() as made:
        request = metrics_request(metric("orders", 1, "gauge"), metric("visits", 2, "gauge"))
        frames = [["MTRC", msgspec.json.encode(request).decode()]]
        keep(made.archive, frames=frames)
        damage(made.archive, "UPDATE metrics SET record = replace(record, '1', '2') WHERE name = 'orders'")
        damage(made.archive, "UPDATE rollups SET sum = sum + 1 WHERE name = 'orders'")
        answer = made.run(MetricFunctions(made.archive, made.pipeline, CallStats()).list({}))
        assert [one["name"] for one in answer["sdk_metrics"]] == ["visits"]
        assert "metrics: 1 damaged on the disk" in capsys.readouterr().err

        def sums(connection: Any) -> dict[str, float]:
            rows = metric_table.rollups(connection, 0, 0, 2 * NOW, None)
            return {row["name"]: row["sum"] for row in rows}

        assert made.archive.run(sums).result() == {"visits": 2}
        made.archive.write(Batch(values=[Value("orders", NOW, 5.0), Value("visits", NOW, -0.0)])).result()
        assert made.archive.run(sums).result() == {"orders": 5, "visits": 2}


def test_a_number_that_sqlite_writes_in_another_way_is_no_damage() -> None:
    with archive() as kept:
        for value in (-0.0, 1, 2.5, 1e300):
            kept.write(Batch(values=[Value(str(value), NOW, value, value)])).result()
        rows = kept.run(lambda connection: metric_table.rollups(connection, 0, 0, 2 * NOW, None)).result()
    assert [row["sum"] for row in rows] == [0.0, 1.0, 1e300, 2.5]


def test_a_damaged_state_of_an_alert_and_a_damaged_figure_do_not_stop_the_start(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "o.db"
    with archive(path) as kept:
        kept.keep_alert_states({"a": AlertState(), "b": AlertState()}).result()
        kept.add_dropped(3).result()
        damage(kept, f"UPDATE alerts SET state = {NO_TEXT} WHERE name = 'a'")
        damage(kept, "UPDATE figures SET value = 4 WHERE name = 'dropped'")
    with archive(path) as kept:
        assert (set(kept.stored_alerts), kept.stored_dropped) == ({"b"}, 0)
    told = capsys.readouterr().err
    assert "the states of alerts: 1 damaged" in told
    assert "the figure dropped: 1 damaged" in told


def test_damage_does_not_thin_what_is_history_already() -> None:
    with archive(limits=Limits(recent_spans=100)) as kept:
        keep(kept, *[span(number, trace=number, start=number * 1000) for number in range(1, 800)])
        before = kept.run(lambda connection: connection.execute("SELECT count(*) FROM spans").fetchone()[0]).result()
        damage(kept, "UPDATE figures SET value = 1 WHERE name = 'spans_history_end'")
        damage(kept, f"UPDATE spans SET trace = {NO_TEXT} WHERE id = 750")
        keep(kept, *[span(number, trace=number, start=800_000) for number in range(800, 1200)])
        left = kept.run(lambda connection: connection.execute("SELECT count(*) FROM spans").fetchone()[0]).result()
        assert kept.run(lambda connection: figure(connection, history.SPANS.thinned)).result() == 0
    assert left == before + 400
