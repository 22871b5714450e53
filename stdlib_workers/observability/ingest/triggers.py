"""The trigger types `log` and `trace`: what a binding asks for, and when its function is called.

Nothing waits for these calls; they are made in the default namespace. A bound function is not told of what it has
caused itself: its own spans and log records, and what its worker writes while it runs. It would call itself for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import replace
from typing import Any, NamedTuple
from urllib.parse import unquote

from iii import InvocationError, Logger, TriggerConfig
from stdlib_workers.events import Bindings, Caller, Target, Trace, fire, target_from
from stdlib_workers.observability.ingest.batches import Batch
from stdlib_workers.observability.records.logs import log_json
from stdlib_workers.observability.records.spans import SpanRow, function_in, function_of

REGISTRATION_FAILED = "trigger_registration_failed"
LEVELS = ("all", "trace", "debug", "info", "warn", "error")
# The contract's window: a binding gets the traces of a window in one call.
TRACE_WINDOW = 0.3
# Unanswered calls of one function; further ones are dropped.
MAX_IN_FLIGHT = 1000
# Spans of one window; further ones do not fire.
MAX_WINDOW_SPANS = 10_000
# Functions of this worker: their spans would fire the next ones.
_OWN = ("observability::", "engine::traces::", "engine::logs::", "engine::log::", "engine::metrics::")
# What led to a record, in its attributes and in the baggage of the calls that it makes; and the causes of a record that
# nothing led to. Each function that is named follows a tag.
CAUSES, NO_CAUSES, TAG_LENGTH = "iii.causes", ".0", 8


class LogSubscription(NamedTuple):
    """One binding of `log`; level `all` or exactly one."""

    level: str
    target: Target


class TraceSubscription(NamedTuple):
    """One binding of `trace`; None: any."""

    service: str | None
    status: str | None
    target: Target


def log_subscription_from(config: TriggerConfig) -> LogSubscription:
    """Return what a binding asks for. InvocationError for a level that there is not."""
    level = _field(config, "level") or "all"
    if level not in LEVELS:
        text = f"level of a log trigger must be one of {', '.join(LEVELS)}, got {level!r}"
        raise InvocationError(REGISTRATION_FAILED, text)
    return LogSubscription(level, replace(target_from(config), namespace=None))


def trace_subscription_from(config: TriggerConfig) -> TraceSubscription:
    """Return what a binding asks for. InvocationError for a filter that is no string."""
    target = replace(target_from(config), namespace=None)
    return TraceSubscription(_field(config, "service_name"), _field(config, "status"), target)


def _field(config: TriggerConfig, name: str) -> str | None:
    fields = config.config if isinstance(config.config, dict) else {}
    value = fields.get(name)
    if not isinstance(value, str | None):
        raise InvocationError(REGISTRATION_FAILED, f"{name} of a trigger must be a string, got {value!r}")
    return value.lower() if value else None


def traces_for(subscription: TraceSubscription, rows: Iterable[SpanRow], bound: set[str]) -> list[str]:
    """Return the ids of the traces that a binding gets, sorted; spans of `bound` functions do not count. Pure."""
    traces = set()
    for row in rows:
        is_asked_for = subscription.service in (None, row.service.lower()) and subscription.status in (None, row.status)
        if not is_asked_for or not row.finish or (row.internal and row.parent is None):
            continue
        function_id = function_in(row)
        if function_id is None or not (function_id in bound or function_id.startswith(_OWN)):
            traces.add(row.trace)
    return sorted(traces)


def functions_in(causes: object) -> set[str]:
    """Return the ids of the functions that causes name, as the engine writes them (docs/tracing.md). Pure."""
    named = causes.split("!")[1:] if isinstance(causes, str) else ()
    return {unquote(one[TAG_LENGTH:]) for one in named}


class Triggers:
    """The providers of both types. Subscribed to the pipeline; runs on the background loop."""

    def __init__(self, caller: Caller, start: Callable[[Coroutine[Any, Any, None]], None]) -> None:
        self.logs = Bindings(log_subscription_from)
        self.traces = Bindings(trace_subscription_from)
        self._caller = caller
        self._start = start
        self._in_flight: dict[str, int] = {}
        self._window_spans: list[SpanRow] = []
        self._window: asyncio.TimerHandle | None = None
        self._log = Logger(service_name="observability")

    def on_batch(self, batch: Batch) -> None:
        """Fire for the logs at once, and for the spans when the window is over."""
        subscriptions = tuple(self.logs)
        bound = {subscription.target.function_id for subscription in subscriptions}
        for row in batch.logs if subscriptions else ():
            record = log_json(row)
            if function_of(record["attributes"]) in bound:
                continue
            causes = record["attributes"].get(CAUSES, NO_CAUSES)
            caused_by = functions_in(causes)
            for subscription in subscriptions:
                is_wanted = subscription.level in ("all", row.level.lower())
                if is_wanted and subscription.target.function_id not in caused_by:
                    self._fire(subscription.target, record, {"baggage": f"{CAUSES}={causes}"})
        if batch.spans and len(self.traces):
            self._window_spans.extend(batch.spans[: max(0, MAX_WINDOW_SPANS - len(self._window_spans))])
            if self._window is None:
                self._window = asyncio.get_running_loop().call_later(TRACE_WINDOW, self.close_window)

    def close_window(self) -> None:
        """Fire every binding of `trace` that asks for spans of this window."""
        self._window = None
        rows, self._window_spans = self._window_spans, []
        subscriptions = tuple(self.traces)
        bound = {subscription.target.function_id for subscription in subscriptions}
        for subscription in subscriptions:
            trace_ids = traces_for(subscription, rows, bound)
            if trace_ids:
                self._fire(subscription.target, {"trace_ids": trace_ids}, {"baggage": f"{CAUSES}={NO_CAUSES}"})

    def _fire(self, target: Target, payload: dict[str, Any], trace: Trace) -> None:
        in_flight = self._in_flight.get(target.function_id, 0)
        if in_flight < MAX_IN_FLIGHT:
            self._in_flight[target.function_id] = in_flight + 1
            self._start(self._call(target, payload, trace))

    async def _call(self, target: Target, payload: dict[str, Any], trace: Trace) -> None:
        try:
            await fire(self._caller, target, payload, trace)
        except InvocationError as error:
            self._log.debug(f"{target.function_id} did not take it: {error}")
        finally:
            self._in_flight[target.function_id] -= 1
