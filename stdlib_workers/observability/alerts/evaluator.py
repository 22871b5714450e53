"""`AlertEvaluator`: evaluates the alert rules every few seconds and on demand, and remembers how they stood.

What a rule says is decided in `alerts.py`; how its action reaches the world is `actions.py`. State is kept before any
action begins, so a crash in between loses an action rather than repeating it for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine, Sequence
from typing import Any

from iii import InvocationError
from stdlib_workers.observability.config.alert_rules import Rule, State, event_from, judge
from stdlib_workers.observability.records.call_stats import Figures
from stdlib_workers.observability.records.metrics import MetricRow, histograms_of, values_of
from stdlib_workers.observability.store import metric_table
from stdlib_workers.observability.store.archive import SECOND, Archive

INTERVAL = 10.0
Act = Callable[[Rule, float, int], Coroutine[Any, Any, None]]
Sleep = Callable[[float], Awaitable[None]]


class AlertEvaluator:
    """The rules of one project and their states. All methods run on the background loop."""

    def __init__(self, archive: Archive, figures: Figures, rules: Sequence[Rule], act: Act) -> None:
        self._archive = archive
        self._figures = figures
        self._rules = tuple(rules)
        self._act = act
        self._lock = asyncio.Lock()
        self._actions: set[asyncio.Task[None]] = set()
        kept = archive.alert_states().result()
        self.states = {rule.name: kept.get(rule.name, State()) for rule in self._rules}

    async def evaluate(self, now: int) -> list[dict[str, Any]]:
        """Judge every rule at `now` (nanoseconds), start the actions that are due, return their events."""
        # One at a time: two at once would both see the cooldown as over.
        async with self._lock:
            due: list[tuple[Rule, float]] = []
            states = dict(self.states)
            for rule in self._rules:
                value = await self._value(rule, now) if rule.enabled else None
                states[rule.name], is_due = judge(rule, self.states[rule.name], value, now // 1_000_000)
                if is_due and value is not None:
                    due.append((rule, value))
            if states != self.states:
                self.states = states
                await self._archive.keep_alert_states(states)
        for rule, value in due:
            task = asyncio.get_running_loop().create_task(self._act(rule, value, now // 1_000_000))
            self._actions.add(task)
            task.add_done_callback(self._actions.discard)
        return [event_from(rule, value, now // 1_000_000) for rule, value in due]

    async def _value(self, rule: Rule, now: int) -> float | None:
        known = self._figures.value(rule.metric)
        if known is not None or rule.metric.startswith(("iii.invocations.", "iii.workers.")):
            return known
        start = now - int(rule.window * SECOND)
        rows = await self._archive.run(lambda connection: metric_table.find(connection, start, now, rule.metric))
        return value_in(rows)

    async def watch(self, clock: Callable[[], int], sleep: Sleep = asyncio.sleep) -> None:
        """Evaluate for ever."""
        while True:
            await sleep(INTERVAL)
            try:
                await self.evaluate(clock())
            except InvocationError:
                # The storage could not answer now; it is asked again, and says itself what is wrong with it.
                continue

    def shape(self, now: int) -> dict[str, Any]:
        """Return the answer of `engine::alerts::list`; `now` in milliseconds."""
        alerts = [self.states[rule.name].shape(rule) for rule in self._rules]
        found = {
            "alerts": alerts,
            "rules": [rule.shape() for rule in self._rules],
            "firing_count": sum(alert["firing"] for alert in alerts),
            "timestamp": now,
        }
        return found if self._rules else {**found, "message": "no alerts are configured"}

    @property
    def count(self) -> int:
        """How many rules are judged."""
        return sum(rule.enabled for rule in self._rules)


def value_in(rows: Sequence[MetricRow]) -> float | None:
    """Return what a metric says in a window: gauges averaged, counters and histograms summed; None without data."""
    numbers = [value.value for row in rows for value in values_of(row)]
    sums = [histogram.sum for row in rows for histogram in histograms_of(row)]
    if not numbers and not sums:
        return None
    if numbers and all(row.kind == "gauge" for row in rows):
        return sum(numbers) / len(numbers)
    return sum(numbers) + sum(sums)
