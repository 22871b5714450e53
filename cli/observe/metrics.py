"""`iii metrics [NAME]`: the metrics of the engine and of the workers' SDKs, printed from `engine::metrics::list`."""

from __future__ import annotations

from typing import Any

import click

from cli.client.connection import connect
from cli.commands.options import engine_options
from cli.observe.traces import ask
from cli.text.output import shown, shown_json, write
from cli.text.table import table

COLUMNS = ("METRIC", "SERVICE", "TYPE", "VALUE", "UNIT", "ATTRIBUTES")
# Functions that get a line; `--json` has all.
MOST_CALLED = 20


@click.command("metrics")
@click.argument("name", required=False)
@engine_options
def command(name: str | None, engine: str | None, as_json: bool) -> None:
    """Show calls, workers and durations, and the latest value of every metric of an SDK (or only of NAME)."""
    with connect(engine) as connection:
        listed = ask(connection, "engine::metrics::list", {"metric_name": name} if name else {})
    if as_json:
        write(shown_json(listed))
        return
    if name is None:
        _show_engine(listed["engine_metrics"])
    if listed["sdk_metrics"]:
        write(table(COLUMNS, rows_from(listed["sdk_metrics"])))
    elif name is not None:
        write(shown(f"no metric {name} was reported lately"))


def _show_engine(figures: dict[str, Any]) -> None:
    calls, workers, took = figures["invocations"], figures["workers"], figures["performance"]
    counts = f"{calls['success']} ok, {calls['error']} failed, {calls['deferred']} not waited for"
    write(f"calls    {calls['total']}: {counts}")
    write(
        f"took     p50 {took['p50_duration_ms']:.1f} ms, p95 {took['p95_duration_ms']:.1f} ms, "
        f"p99 {took['p99_duration_ms']:.1f} ms, at most {took['max_duration_ms']:.1f} ms"
    )
    write(f"workers  {workers['active']}: {workers['spawns']} came, {workers['deaths']} went")
    most = sorted(calls["by_function"].items(), key=lambda item: (-item[1], item[0]))[:MOST_CALLED]
    if most:
        write("")
        write(table(("FUNCTION", "CALLS"), most))
        write("")


def rows_from(metrics: list[dict[str, Any]]) -> list[tuple[object, ...]]:
    """Return a row for the latest point of each series. Pure."""
    latest: dict[tuple[str, str, str], tuple[object, ...]] = {}
    for metric in metrics:
        for point in metric["data_points"]:
            labels = " ".join(f"{name}={value}" for name, value in sorted(point["attributes"].items()))
            name, service = metric["name"], metric["service_name"]
            value = point.get("value", "ended")  # a point without a value says that the series has ended
            if "count" in point:
                mean = (point["sum"] or 0) / point["count"] if point["count"] else 0
                value = f"{point['count']} of {mean:.4g} on average"
            latest[name, service, labels] = (name, service, metric["metric_type"], value, metric.get("unit"), labels)
    return [latest[key] for key in sorted(latest)]
