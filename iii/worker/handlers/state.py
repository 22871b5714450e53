"""The handle of one scope of the worker `state`: its keys as a mapping, and each function of that worker."""

from __future__ import annotations

from typing import Any, Generic, TypeVar

from iii.errors import ErrorCode, InvocationError
from iii.worker.functions.conversion import converter_from_hint

TYPE_CHECKING = False
if TYPE_CHECKING:
    import builtins
    from collections.abc import Iterator

    from iii.worker.api.requests import Caller, TriggerRequestInput

T = TypeVar("T")
# Stands for a value that was not given: None is one.
_UNSET: Any = object()


class Entry(Generic[T]):
    """A stored `value` and its `version`, which only grows."""

    def __init__(self, value: T, version: int) -> None:
        self.value = value
        self.version = version

    def __repr__(self) -> str:
        return f"<Entry {self.value!r}, version {self.version}>"


class State(Generic[T]):
    """The keys of one scope; `scope["key"]` reads, writes and deletes, `for key in scope` gives the keys.

    Every call is one of a `state::*` function; its InvocationError passes through: `CONFLICT`, `VALUE_TOO_LARGE`,
    `function_not_found` without the worker `state`.
    """

    def __init__(self, caller: Caller, scope: str, type: Any = None) -> None:
        self.scope = scope
        self._caller = caller
        self._convert = converter_from_hint(type)

    def get(self, key: str, default: T | None = None) -> T | None:
        """Return the value of a key, `default` for a key that is not there or holds null."""
        value = self._caller.trigger(self._request("get", key=key))
        return default if value is None else self._read(value)

    async def get_async(self, key: str, default: T | None = None) -> T | None:
        """As `get`, without blocking the event loop."""
        value = await self._caller.trigger_async(self._request("get", key=key))
        return default if value is None else self._read(value)

    def entry(self, key: str) -> Entry[T] | None:
        """Return value and version of a key, None for a key that is not there."""
        return self._entry(self._caller.trigger(self._request("get_entry", key=key)))

    async def entry_async(self, key: str) -> Entry[T] | None:
        """As `entry`, without blocking the event loop."""
        return self._entry(await self._caller.trigger_async(self._request("get_entry", key=key)))

    def set(self, key: str, value: T, *, if_version: int | None = None, expected: T | None = _UNSET) -> None:
        """Write a value. InvocationError `CONFLICT` if the key has another version (0: none), or another value."""
        self._caller.trigger(self._write(key, value, if_version, expected))

    async def set_async(
        self, key: str, value: T, *, if_version: int | None = None, expected: T | None = _UNSET
    ) -> None:
        """As `set`, without blocking the event loop."""
        await self._caller.trigger_async(self._write(key, value, if_version, expected))

    def add(self, key: str, value: T) -> bool:
        """Write a value unless the key is there, and return whether it was written.

        if not state.add("ada", account):
            raise HttpError(409, "the name ada is taken")
        """
        try:
            self.set(key, value, if_version=0)
        except InvocationError as error:
            if error.code != "CONFLICT":
                raise
            return False
        return True

    async def add_async(self, key: str, value: T) -> bool:
        """As `add`, without blocking the event loop."""
        try:
            await self.set_async(key, value, if_version=0)
        except InvocationError as error:
            if error.code != "CONFLICT":
                raise
            return False
        return True

    def update(self, key: str, *ops: dict[str, Any]) -> T:
        """Apply operations in one transaction and return the new value.

        `{"type", "path", "value" | "by"}`, with the types `set`, `merge`, `increment`, `decrement`, `append`, `remove`.
        InvocationError `OPS_DO_NOT_FIT` when one does not fit what is stored; those that fit have been made.

            state.update("visits", {"type": "increment", "path": "count", "by": 1})
        """
        result = self._caller.trigger(self._request("update", key=key, ops=ops))
        return self._read(new_value_of(result))  # type: ignore[no-any-return]

    async def update_async(self, key: str, *ops: dict[str, Any]) -> T:
        """As `update`, without blocking the event loop."""
        result = await self._caller.trigger_async(self._request("update", key=key, ops=ops))
        return self._read(new_value_of(result))  # type: ignore[no-any-return]

    def delete(self, key: str) -> T | None:
        """Remove a key and return the value that it had."""
        return self._read(self._caller.trigger(self._request("delete", key=key)))  # type: ignore[no-any-return]

    async def delete_async(self, key: str) -> T | None:
        """As `delete`, without blocking the event loop."""
        return self._read(await self._caller.trigger_async(self._request("delete", key=key)))  # type: ignore[no-any-return]

    def list(self) -> builtins.list[T]:
        """Return the values of all keys."""
        return [self._read(value) for value in self._caller.trigger(self._request("list"))]

    async def list_async(self) -> builtins.list[T]:
        """As `list`, without blocking the event loop."""
        return [self._read(value) for value in await self._caller.trigger_async(self._request("list"))]

    def __getitem__(self, key: str) -> T:
        """Return the value of a key. KeyError for a key that is not there."""
        entry = self.entry(key)
        if entry is None:
            raise KeyError(key)
        return entry.value

    def __setitem__(self, key: str, value: T) -> None:
        self.set(key, value)

    def __delitem__(self, key: str) -> None:
        """Remove a key, be it there or not."""
        self.delete(key)

    def __contains__(self, key: str) -> bool:
        return self.entry(key) is not None

    def __iter__(self) -> Iterator[str]:
        return iter(self._caller.trigger(self._request("list_keys"))["keys"])

    def _request(self, function: str, **fields: Any) -> TriggerRequestInput:
        return {"function_id": f"state::{function}", "payload": {"scope": self.scope, **fields}}

    def _write(self, key: str, value: T, if_version: int | None, expected: T | None) -> TriggerRequestInput:
        conditions: dict[str, Any] = {} if if_version is None else {"if_version": if_version}
        if expected is not _UNSET:
            conditions["expected"] = expected
        return self._request("set", key=key, value=value, **conditions)

    def _read(self, value: Any) -> Any:
        return value if value is None or self._convert is None else self._convert(value)

    def _entry(self, entry: Any) -> Entry[T] | None:
        return None if entry is None else Entry(self._read(entry["value"]), entry["version"])

    def __repr__(self) -> str:
        return f"<State {self.scope}>"


def new_value_of(result: dict[str, Any]) -> Any:
    """Return what `state::update` or `stream::update` has written. InvocationError if operations did not fit."""
    errors = result.get("errors")
    if errors:
        text = f"{len(errors)} of the operations do not fit: {errors[0].get('message') or errors[0]}"
        raise InvocationError(ErrorCode.OPS_DO_NOT_FIT, text, details={"errors": errors})
    return result["new_value"]
