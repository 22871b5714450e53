"""The handle of one group of the worker `stream`: its items as a mapping, and each function of that worker."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from iii.worker.functions.conversion import converter_from_hint
from iii.worker.handlers.state import new_value_of

TYPE_CHECKING = False
if TYPE_CHECKING:
    import builtins

    from iii.worker.api.requests import Caller, TriggerRequestInput

T = TypeVar("T")


class StreamGroup(Generic[T]):
    """The items of one group of a stream; `group["id"]` reads, writes and deletes. Every change reaches its sockets.

    Every call is one of a `stream::*` function, and its InvocationError passes through.
    """

    def __init__(self, caller: Caller, stream_name: str, group_id: str, type: Any = None) -> None:
        self.stream_name = stream_name
        self.group_id = group_id
        self._caller = caller
        self._convert = converter_from_hint(type)

    def get(self, item_id: str, default: T | None = None) -> T | None:
        """Return an item, `default` for one that is not there."""
        value = self._caller.trigger(self._request("get", item_id=item_id))
        return default if value is None else self._read(value)

    async def get_async(self, item_id: str, default: T | None = None) -> T | None:
        """As `get`, without blocking the event loop."""
        value = await self._caller.trigger_async(self._request("get", item_id=item_id))
        return default if value is None else self._read(value)

    def set(self, item_id: str, data: T) -> None:
        """Write an item."""
        self._caller.trigger(self._request("set", item_id=item_id, data=data))

    async def set_async(self, item_id: str, data: T) -> None:
        """As `set`, without blocking the event loop."""
        await self._caller.trigger_async(self._request("set", item_id=item_id, data=data))

    def update(self, item_id: str, *ops: dict[str, Any]) -> T:
        """Apply operations as `State.update` does, and return the new item. Errors as there."""
        result = self._caller.trigger(self._request("update", item_id=item_id, ops=ops))
        return self._read(new_value_of(result))  # type: ignore[no-any-return]

    async def update_async(self, item_id: str, *ops: dict[str, Any]) -> T:
        """As `update`, without blocking the event loop."""
        result = await self._caller.trigger_async(self._request("update", item_id=item_id, ops=ops))
        return self._read(new_value_of(result))  # type: ignore[no-any-return]

    def delete(self, item_id: str) -> T | None:
        """Remove an item and return what it was."""
        return self._read(self._caller.trigger(self._request("delete", item_id=item_id))["old_value"])  # type: ignore[no-any-return]

    async def delete_async(self, item_id: str) -> T | None:
        """As `delete`, without blocking the event loop."""
        result = await self._caller.trigger_async(self._request("delete", item_id=item_id))
        return self._read(result["old_value"])  # type: ignore[no-any-return]

    def list(self) -> builtins.list[T]:
        """Return the items in the order they were first written."""
        return [self._read(value) for value in self._caller.trigger(self._request("list"))]

    async def list_async(self) -> builtins.list[T]:
        """As `list`, without blocking the event loop."""
        return [self._read(value) for value in await self._caller.trigger_async(self._request("list"))]

    def send(self, type: str, data: Any = None, *, item_id: str | None = None) -> None:
        """Send an event of a type of your own to the sockets and triggers of the group; nothing is kept."""
        self._caller.trigger(self._request("send", type=type, data=data, id=item_id))

    async def send_async(self, type: str, data: Any = None, *, item_id: str | None = None) -> None:
        """As `send`, without blocking the event loop."""
        await self._caller.trigger_async(self._request("send", type=type, data=data, id=item_id))

    def __getitem__(self, item_id: str) -> T:
        """Return an item. KeyError for one that is not there."""
        item = self.get(item_id)
        if item is None:
            raise KeyError(item_id)
        return item

    def __setitem__(self, item_id: str, data: T) -> None:
        self.set(item_id, data)

    def __delitem__(self, item_id: str) -> None:
        """Remove an item, be it there or not."""
        self.delete(item_id)

    def __contains__(self, item_id: str) -> bool:
        return self.get(item_id) is not None

    def _request(self, function: str, **fields: Any) -> TriggerRequestInput:
        payload = {"stream_name": self.stream_name, "group_id": self.group_id, **fields}
        return {"function_id": f"stream::{function}", "payload": payload}

    def _read(self, value: Any) -> Any:
        return value if value is None or self._convert is None else self._convert(value)

    def __repr__(self) -> str:
        return f"<StreamGroup {self.stream_name}/{self.group_id}>"
