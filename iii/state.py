"""Types of a project's own state storage, in the public SDK's module of this name. Nothing of the SDK asks for them."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass
from enum import StrEnum
from typing import Any, Generic, TypeVar

TData = TypeVar("TData")

__all__ = ["IState", "StateDeleteInput", "StateDeleteResult", "StateEventData", "StateEventType", "StateGetInput"]
__all__ += ["StateListInput", "StateSetInput", "StateSetResult", "StateUpdateInput", "StateUpdateResult"]


@dataclass
class StateListInput:
    """The scope whose values `list` returns."""

    scope: str


@dataclass
class StateGetInput:
    """The value that `get` returns."""

    scope: str
    key: str


@dataclass
class StateDeleteInput:
    """The value that `delete` removes."""

    scope: str
    key: str


@dataclass
class StateSetInput:
    """The `value` that `set` writes, and where."""

    scope: str
    key: str
    value: Any


@dataclass
class StateUpdateInput:
    """The value that `update` changes, by `ops` as `state::update` takes them."""

    scope: str
    key: str
    ops: list[dict[str, Any]]


@dataclass
class StateSetResult(Generic[TData]):
    """What `set` has written, and the value before."""

    old_value: TData | None = None
    new_value: TData | None = None


@dataclass
class StateUpdateResult(Generic[TData]):
    """What `update` has made of a value, and the value before."""

    old_value: TData | None = None
    new_value: TData | None = None


@dataclass
class StateDeleteResult:
    """The value that `delete` has removed."""

    old_value: Any = None


class StateEventType(StrEnum):
    """The `event_type` of an event of the trigger type `state`."""

    CREATED = "state:created"
    UPDATED = "state:updated"
    DELETED = "state:deleted"


@dataclass
class StateEventData(Generic[TData]):
    """The event of the trigger type `state`."""

    event_type: StateEventType
    scope: str
    key: str
    old_value: TData | None = None
    new_value: TData | None = None
    type: str = "state"


class IState(ABC, Generic[TData]):
    """Base of a state storage."""

    @abstractmethod
    async def get(self, input: StateGetInput) -> TData | None:
        """Return a value, None if there is none."""

    @abstractmethod
    async def set(self, input: StateSetInput) -> StateSetResult[TData] | None:
        """Write a value."""

    @abstractmethod
    async def delete(self, input: StateDeleteInput) -> StateDeleteResult:
        """Remove a value."""

    @abstractmethod
    async def list(self, input: StateListInput) -> Sequence[TData]:
        """Return the values of a scope."""

    @abstractmethod
    async def update(self, input: StateUpdateInput) -> StateUpdateResult[TData] | None:
        """Change a value by operations, in one step."""
