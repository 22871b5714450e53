"""Counts of the engine's calls by function, how long they took, and workers that connected and left. Pure.

The engine's telemetry brings counts of all calls; without them, every recorded span of a call counts as one. Durations
always come from recorded spans: a sample is enough for their distribution.
"""

from __future__ import annotations

from bisect import bisect_left
from collections import Counter
from collections.abc import Iterable, Mapping
from typing import Any

from stdlib_workers.observability.records.spans import SECOND, SpanRow, attributes_of, function_in

# Seconds; from a call inside the machine to one that waits for a person.
BOUNDS = (0.0005, 0.001, 0.0025, 0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1.0, 2.5, 5.0, 10.0, 30.0)
# Functions with durations of their own: a project that makes ids into function names must not fill the memory.
MAX_FUNCTIONS = 1000
OTHER = "(other)"


class Durations:
    """A histogram of seconds."""

    __slots__ = ("counts", "sum")

    def __init__(self) -> None:
        self.counts = [0] * (len(BOUNDS) + 1)
        self.sum = 0.0

    def add(self, seconds: float) -> None:
        self.counts[bisect_left(BOUNDS, seconds)] += 1
        self.sum += seconds


class CallStats:
    """What was counted since this worker started."""

    def __init__(self) -> None:
        self.durations: dict[str, Durations] = {}
        self.spawns = 0
        self.deaths = 0
        self.active = 0
        self._connected: set[Any] = set()  # ids of the workers that are counted and have not gone
        self._is_complete = False
        self._calls: Counter[str] = Counter()
        self.by_function: Counter[str] = Counter()
        self._has_counts = False

    def take_counts(self, calls: Any) -> None:
        """Replace the counts of calls by those that came with a batch of the engine's telemetry."""
        if not isinstance(calls, Mapping):
            return
        self._has_counts = True
        self._calls = Counter({name: calls.get(name) or 0 for name in ("total", "success", "error", "deferred")})
        self.by_function = Counter(calls.get("by_function") or {})

    def add_spans(self, rows: Iterable[SpanRow]) -> None:
        """Count finished spans of calls."""
        for row in rows:
            is_call = row.name.startswith(("call ", "enqueue "))
            if not row.finish or not is_call or row.internal or (function_id := function_in(row)) is None:
                continue
            is_known = function_id in self.durations or len(self.durations) < MAX_FUNCTIONS
            durations = self.durations.setdefault(function_id if is_known else OTHER, Durations())
            durations.add(max(row.finish - row.start, 0) / SECOND)
            if not self._has_counts:
                outcome = "error" if row.status == "error" else "success"
                self._calls.update(("total", "deferred" if attributes_of(row).get("iii.action") else outcome))
                self.by_function[function_id] += 1

    def add_event(self, event: Any, worker_id: Any) -> None:
        """Count an event of `engine::workers-available`."""
        if event in ("worker_connected", "worker_disconnected") and worker_id not in self._connected:
            self._connected.add(worker_id)
            self.spawns += 1
        if event == "worker_disconnected":
            self._connected.discard(worker_id)
            self.deaths += 1

    def add_present(self, worker_ids: Iterable[Any]) -> None:
        """Count, at the first call, the workers that had connected before the events came."""
        if not self._is_complete:
            self._is_complete = True
            for worker_id in worker_ids:
                self.add_event("worker_connected", worker_id)

    def calls(self) -> dict[str, int]:
        return {name: self._calls[name] for name in ("total", "success", "error", "deferred")}

    def to_json(self) -> dict[str, Any]:
        """Return `invocations` and `workers` of `engine::metrics::list`."""
        return {
            "invocations": {**self.calls(), "by_function": dict(self.by_function)},
            "workers": {"spawns": self.spawns, "deaths": self.deaths, "active": self.active},
        }

    def metrics(self) -> dict[str, float]:
        """Return the counts under the names by which rollups and alerts know them."""
        return {
            **{f"iii.invocations.{name}": count for name, count in self.calls().items()},
            **{f"iii.workers.{name}": count for name, count in self.to_json()["workers"].items()},
        }
