"""Bindings of a trigger type, and calling the function behind one: the condition first, in the binding's namespace.

Only an explicit JSON `false` of the condition function blocks. The binding's metadata goes along with the call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any, Generic, Protocol, TypeVar

from iii import InvocationError, Logger, TriggerConfig, TriggerHandler, TriggerRequestInput, current_invocation

F = TypeVar("F")

# The trace that an event belongs to, as the SDK's requests take it: `traceparent` and `baggage`, those that exist.
Trace = dict[str, str]

_mint = Random().getrandbits
_log = Logger(service_name="events")


class Caller(Protocol):
    """The part of a Worker that calls functions."""

    async def trigger_async(self, request: Any, payload: Any = None) -> Any: ...


class Bindings(TriggerHandler, Generic[F]):
    """A provider of one trigger type: its bindings, in the order they were made.

    `read` returns what the worker keeps of a binding, and raises to refuse it. The methods are async without awaiting
    anything: the SDK then runs them, and the async functions of the worker, in the order of their messages. So a call
    that comes after a binding finds it.
    """

    def __init__(self, read: Callable[[TriggerConfig], F]) -> None:
        self._read = read
        self._by_id: dict[str, F] = {}

    def __iter__(self) -> Iterator[F]:
        # A copy: other threads may bind meanwhile.
        return iter(tuple(self._by_id.values()))

    def __len__(self) -> int:
        return len(self._by_id)

    async def register_trigger(self, config: TriggerConfig) -> None:
        """Add a binding, or replace the one of the same id."""
        self._by_id[config.id] = self._read(config)

    async def unregister_trigger(self, config: TriggerConfig) -> None:
        self._by_id.pop(config.id, None)


@dataclass(frozen=True, slots=True)
class Target:
    """What a binding calls: all that a delivery needs, so that it can wait on disk.

    `arguments`: where its function's arguments are in the event, None when it gets the event. `binding`: the key of
    the binding, for an event that was made while the binding's worker was away.
    """

    function_id: str
    namespace: str | None = None
    metadata: Any = None
    condition: str | None = None
    arguments: dict[str, Any] | None = None
    binding: str | None = None

    def to_config(self) -> TriggerConfig:
        """Return the SDK's form of the binding, which makes the requests of condition and function."""
        config: dict[str, Any] = {"condition_function_id": self.condition}
        if self.arguments is not None:
            config |= {"payload": "arguments", "arguments": self.arguments}
        return TriggerConfig("", self.function_id, config, self.metadata, self.namespace)


def target_from(config: TriggerConfig) -> Target:
    """Return what a binding calls."""
    fields = config.config if isinstance(config.config, dict) else {}
    condition = fields.get("condition_function_id") or None
    arguments = fields.get("arguments") if fields.get("payload") == "arguments" else None
    return Target(config.function_id, config.namespace, config.metadata, condition, arguments)


def current_trace() -> Trace:
    """Return the trace of the running invocation: later calls that it causes belong to it. Empty outside of one."""
    invocation = current_invocation()
    return {} if invocation is None else invocation.trace


def new_trace() -> Trace:
    """Return a trace that begins here, with a random id. Flags 02: it is not yet decided whether it is recorded."""
    return {"traceparent": f"00-{_mint(128):032x}-{_mint(64):016x}-02"}


async def fire(
    worker: Caller, target: Target, event: Any, trace: Trace | None = None, *, timeout_ms: int | None = None
) -> Any:
    """Call condition and function; return the function's result, None when the condition was `false`.

    `timeout_ms` is the function's, without one the SDK's. An event that lacks one of the function's arguments is told
    here: no call fails that the engine could tell of.
    """
    config = target.to_config()
    condition = config.condition(event)
    if condition is not None and await worker.trigger_async(_within(trace, condition)) is False:
        return None
    try:
        request = config.request(event)
    except InvocationError as error:
        _log.error(error.message, error.details)
        raise
    if timeout_ms is not None:
        request["timeout_ms"] = timeout_ms
    return await worker.trigger_async(_within(trace, request))


def _within(trace: Trace | None, request: TriggerRequestInput) -> TriggerRequestInput:
    return {**request, "trace": trace} if trace else request
