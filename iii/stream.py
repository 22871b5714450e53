"""Streams that a worker stores itself, for `create_stream`, in the public SDK's module of this name."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import Any, Generic, TypeVar

TData = TypeVar("TData")

__all__ = ["IStream", "StreamDeleteInput", "StreamDeleteResult", "StreamGetInput", "StreamListGroupsInput"]
__all__ += ["StreamListInput", "StreamSetInput", "StreamSetResult", "StreamUpdateInput", "StreamUpdateResult"]


@dataclass
class StreamListGroupsInput:
    """The stream whose groups `list_groups` returns."""

    stream_name: str


@dataclass
class StreamListInput:
    """The group whose items `list` returns."""

    stream_name: str
    group_id: str


@dataclass
class StreamGetInput:
    """The item that `get` returns."""

    stream_name: str
    group_id: str
    item_id: str


@dataclass
class StreamDeleteInput:
    """The item that `delete` removes."""

    stream_name: str
    group_id: str
    item_id: str


@dataclass
class StreamSetInput:
    """The item that `set` writes, and its `data`."""

    stream_name: str
    group_id: str
    item_id: str
    data: Any


@dataclass
class StreamUpdateInput:
    """The item that `update` changes, by `ops` as `stream::update` takes them."""

    stream_name: str
    group_id: str
    item_id: str
    ops: list[dict[str, Any]]


@dataclass
class StreamSetResult(Generic[TData]):
    """What `set` has written, and the value before."""

    old_value: TData | None = None
    new_value: TData | None = None


@dataclass
class StreamUpdateResult(Generic[TData]):
    """What `update` has made of an item, the value before, and an error for each operation that did not apply."""

    old_value: TData | None = None
    new_value: TData | None = None
    errors: list[dict[str, Any]] = field(default_factory=list)


@dataclass
class StreamDeleteResult:
    """The value that `delete` has removed."""

    old_value: Any = None


class IStream(ABC, Generic[TData]):
    """Base of what stores the items of a stream in place of the stream worker, for `create_stream`."""

    @abstractmethod
    async def get(self, input: StreamGetInput) -> TData | None:
        """Return an item, None if there is none."""

    @abstractmethod
    async def set(self, input: StreamSetInput) -> StreamSetResult[TData] | None:
        """Write an item."""

    @abstractmethod
    async def delete(self, input: StreamDeleteInput) -> StreamDeleteResult:
        """Remove an item."""

    @abstractmethod
    async def list(self, input: StreamListInput) -> Sequence[TData]:
        """Return the items of a group."""

    @abstractmethod
    async def list_groups(self, input: StreamListGroupsInput) -> Sequence[str]:
        """Return the ids of the groups."""

    @abstractmethod
    async def update(self, input: StreamUpdateInput) -> StreamUpdateResult[TData] | None:
        """Change an item by operations, in one step."""
