"""Bindings of a trigger type, and calling the function behind one: the condition first, in the binding's namespace.

Only an explicit JSON `false` of the condition function blocks. The binding's metadata goes along with the call.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from random import Random
from typing import Any, Generic, Protocol, TypeVar

from iii import TriggerConfig, TriggerHandler, TriggerRequestInput, current_invocation

F = TypeVar("F")

# The trace that an event belongs to, as the SDK's requests take it: `traceparent` and `baggage`, those that exist.
Trace = dict[str, str]

_mint = Random().getrandbits


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

    `binding`: the key of the binding, for an event that was made while the binding's worker was away.
    """

    function_id: str
    namespace: str | None = None
    metadata: Any = None
    condition: str | None = None
    binding: str | None = None

    def to_config(self) -> TriggerConfig:
        """Return the SDK's form of the binding, which makes the requests of condition and function."""
        config = {"condition_function_id": self.condition}
        return TriggerConfig("", self.function_id, config, self.metadata, self.namespace)


def target_from(config: TriggerConfig) -> Target:
    """Return what a binding calls."""
    fields = config.config if isinstance(config.config, dict) else {}
    condition = fields.get("condition_function_id") or None
    return Target(config.function_id, config.namespace, config.metadata, condition)


def current_trace() -> Trace:
    """Return the trace of the running invocation: later calls that it causes belong to it. Empty outside of one."""
    invocation = current_invocation()
    return {} if invocation is None else invocation.trace


def new_trace() -> Trace:
    """Return a trace that begins here, with a random id. Flags 02: it is not yet decided whether it is recorded."""
    return {"traceparent": f"00-{_mint(128):032x}-{_mint(64):016x}-02"}


async def is_wanted(worker: Caller, target: Target, payload: Any, trace: Trace | None = None) -> bool:
    """Return what the condition function decides, True without one. InvocationError when it fails."""
    condition = target.to_config().condition(payload)
    return condition is None or await worker.trigger_async(_within(trace, condition)) is not False


async def fire(worker: Caller, target: Target, payload: Any, trace: Trace | None = None) -> Any:
    """Call condition and function; return the function's result, None when the condition was `false`."""
    if not await is_wanted(worker, target, payload, trace):
        return None
    return await worker.trigger_async(_within(trace, target.to_config().request(payload)))


def _within(trace: Trace | None, request: TriggerRequestInput) -> TriggerRequestInput:
    return {**request, "trace": trace} if trace else request
