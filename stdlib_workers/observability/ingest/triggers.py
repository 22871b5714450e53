"""The trigger types `log` and `trace`: what bindings want, and when they are fired.

Both fire without waiting, in the default namespace. What a bound function itself logs, and its own spans, fire
nothing: it would call itself for ever.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Coroutine, Iterable
from dataclasses import replace
from typing import Any, NamedTuple

from iii import InvocationError, Logger, TriggerConfig, TriggerTypeInput
from stdlib_workers.events import Bindings, Caller, Target, fire, target_from
from stdlib_workers.observability.ingest.batches import Intake
from stdlib_workers.observability.records.logs import LogRow, log_shape_from
from stdlib_workers.observability.records.spans import SpanRow, attributes_of, function_of

LEVELS = ("all", "trace", "debug", "info", "warn", "error")
# The contract's window: traces that end within it are told together.
WINDOW = 0.3
# Calls on their way to one function; what comes on top is dropped for it, and told in the log.
MAX_IN_FLIGHT = 1000
MAX_TRACES = 10_000
_OWN = ("observability::", "engine::traces::", "engine::logs::", "engine::log::", "engine::metrics::")

LOG: TriggerTypeInput = {
    "id": "log",
    "description": "A log record was stored, of one level or of all.",
    "trigger_request_format": {"type": "object", "properties": {"level": {"type": "string", "enum": list(LEVELS)}}},
}
TRACE: TriggerTypeInput = {
    "id": "trace",
    "description": "Traces have got spans that ended, told every 300 ms.",
    "trigger_request_format": {
        "type": "object",
        "properties": {"service_name": {"type": "string"}, "status": {"type": "string"}},
    },
}


class LogSubscription(NamedTuple):
    """One binding of `log`; level `all` or exactly one."""

    level: str
    target: Target

    def wants(self, row: LogRow) -> bool:
        """Tell whether a record is meant."""
        return self.level in ("all", row.level.lower())


class TraceSubscription(NamedTuple):
    """One binding of `trace`; None: any."""

    service: str | None
    status: str | None
    target: Target

    def wants(self, row: SpanRow) -> bool:
        """Tell whether a span is meant."""
        return self.service in (None, row.service.lower()) and self.status in (None, row.status)


def log_subscription_from(config: TriggerConfig) -> LogSubscription:
    """Return what a binding asks for. InvocationError for a level that there is not."""
    level = _field(config, "level") or "all"
    if level not in LEVELS:
        raise _refused(f"level of a log trigger must be one of {', '.join(LEVELS)}, got {level!r}")
    return LogSubscription(level, _target(config))


def trace_subscription_from(config: TriggerConfig) -> TraceSubscription:
    """Return what a binding asks for. InvocationError for a filter that is no string."""
    return TraceSubscription(_field(config, "service_name"), _field(config, "status"), _target(config))


def _field(config: TriggerConfig, name: str) -> str | None:
    fields = config.config if isinstance(config.config, dict) else {}
    value = fields.get(name)
    if not isinstance(value, str | None):
        raise _refused(f"{name} of a trigger must be a string, got {value!r}")
    return value.lower() if value else None


def _target(config: TriggerConfig) -> Target:
    return replace(target_from(config), namespace=None)


def _refused(text: str) -> InvocationError:
    return InvocationError("trigger_registration_failed", text)


def traces_for(subscription: TraceSubscription, rows: Iterable[SpanRow], silent: set[str]) -> list[str]:
    """Return the traces a binding is told of, sorted; `silent`: functions whose spans say nothing. Pure."""
    found = {row.trace for row in rows if subscription.wants(row) and _speaks(row, silent)}
    return sorted(found)


def _speaks(row: SpanRow, silent: set[str]) -> bool:
    if not row.finish or (row.internal and row.parent is None):
        return False
    function_id = function_of(attributes_of(row))
    return function_id is None or not (function_id in silent or function_id.startswith(_OWN))


class Firing:
    """Follows the pipeline and fires both types; everything on the background loop."""

    def __init__(self, caller: Caller, start: Callable[[Coroutine[Any, Any, None]], None]) -> None:
        self.logs = Bindings(log_subscription_from)
        self.traces = Bindings(trace_subscription_from)
        self._caller = caller
        self._start = start
        self._in_flight: dict[str, int] = {}
        self._waiting: list[SpanRow] = []
        self._window: asyncio.TimerHandle | None = None
        self._log = Logger(service_name="observability")

    def take(self, intake: Intake) -> None:
        """Fire for the logs at once, for the spans when the window is over."""
        if intake.logs and len(self.logs):
            self._fire_logs(intake.logs)
        if intake.spans and len(self.traces):
            self._waiting.extend(intake.spans[: max(0, MAX_TRACES - len(self._waiting))])
            if self._window is None:
                self._window = asyncio.get_running_loop().call_later(WINDOW, self.close_window)

    def _fire_logs(self, rows: Iterable[LogRow]) -> None:
        subscriptions = tuple(self.logs)
        silent = {subscription.target.function_id for subscription in subscriptions}
        for row in rows:
            shape = log_shape_from(row)
            if function_of(shape["attributes"]) in silent:
                continue
            for subscription in subscriptions:
                if subscription.wants(row):
                    self._fire(subscription.target, shape)

    def close_window(self) -> None:
        """Tell every binding of `trace` what has come since the window opened."""
        self._window = None
        rows, self._waiting = self._waiting, []
        subscriptions = tuple(self.traces)
        silent = {subscription.target.function_id for subscription in subscriptions}
        for subscription in subscriptions:
            found = traces_for(subscription, rows, silent)
            if found:
                self._fire(subscription.target, {"trace_ids": found})

    def _fire(self, target: Target, payload: dict[str, Any]) -> None:
        running = self._in_flight.get(target.function_id, 0)
        if running < MAX_IN_FLIGHT:
            self._in_flight[target.function_id] = running + 1
            self._start(self._reach(target, payload))

    async def _reach(self, target: Target, payload: dict[str, Any]) -> None:
        try:
            await fire(self._caller, target, payload)
        except InvocationError as error:
            self._log.debug(f"{target.function_id} did not take it: {error}")
        finally:
            self._in_flight[target.function_id] -= 1
