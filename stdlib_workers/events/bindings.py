"""The bindings of one trigger type that this worker provides, in the order they were made.

The provider's methods are async without awaiting anything: the SDK then runs them, and the async functions of the
worker, in the order of their messages. So a call that comes after a binding finds it.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Generic, TypeVar

from iii import TriggerConfig, TriggerHandler

F = TypeVar("F")


class Bindings(TriggerHandler, Generic[F]):
    """A provider. `read` returns what the worker keeps of a binding, and raises to refuse the binding."""

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
        """Remove this one binding."""
        self._by_id.pop(config.id, None)
