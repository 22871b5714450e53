"""The functions `state::*`: payload in, result out. Events are made in `events.py`, values kept in the storage.

Reading a value that is in memory takes no other thread. Every function that writes is async: many writes are on their
way to the disk at once, and share its fsync.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from iii import InvocationError
from stdlib_workers.events import TOPIC, Bindings, Outbox, current_trace
from stdlib_workers.state.events import Subscription, outbox_entry, value_of
from stdlib_workers.state.once import Recorded, writes_from
from stdlib_workers.state.pages import cursor_from, page_of
from stdlib_workers.storage import Change, Entry, SqliteKeyValue
from stdlib_workers.values import Payload, apply_updates, encode, json_equal, malformed, parse_updates

# The code of a failure of the storage, by function, as in the contract.
CODES = {
    "set": "SET_ERROR",
    "get": "GET_ERROR",
    "get_entry": "GET_ERROR",
    "delete": "DELETE_ERROR",
    "update": "UPDATE_ERROR",
    "once": "UPDATE_ERROR",
    "list": "LIST_ERROR",
    "list_keys": "LIST_ERROR",
    "list_groups": "LIST_GROUPS_ERROR",
    "list_entries": "LIST_ERROR",
}
# The value of `expected` when it is not in the payload: null is a value that a caller may expect.
_ANY: Any = object()


@dataclass(frozen=True)
class Options:
    """The options of the worker."""

    in_memory: bool = False
    triggers_enabled: bool = True
    max_value_bytes: int | None = None


class State:
    """All functions, over one store."""

    def __init__(
        self,
        key_values: SqliteKeyValue,
        options: Options,
        bindings: Bindings[Subscription] | Sequence[Subscription] = (),
        outbox: Outbox | None = None,
    ) -> None:
        self._key_values = key_values
        self._options = options
        self._bindings = bindings
        self._outbox = outbox
        key_values.watch(self._on_change)

    async def set(self, payload: Any) -> dict[str, Any]:
        """Write a value. With `expected` (a value; null: no value) or `if_version`, only over that value or version."""
        fields = Payload("state::set", payload)
        scope, key = fields.string("scope"), fields.string("key")
        value = encode(fields.value("value", alias="data"))
        self._check_size(value)
        check = _check_from(fields)

        def decide(entry: Entry | None) -> bytes:
            check(entry)
            return value

        change = await self._key_values.update(scope, key, decide, self._announcer())
        new_value = payload["value"] if "value" in payload else payload["data"]
        result = {"old_value": value_of(change.old), "new_value": new_value}
        if "if_version" in fields and change.new is not None:
            result["version"] = change.new.version
        return result

    def _check_size(self, value: bytes) -> None:
        limit = self._options.max_value_bytes
        if limit is not None and len(value) > limit:
            raise InvocationError("VALUE_TOO_LARGE", f"the value has {len(value)} bytes, the limit is {limit}")

    async def once(self, payload: Any) -> dict[str, Any]:
        """Record `result` under `scope` and `key` and make all `writes` in one transaction, unless it is recorded.

        Returns `{result, replayed}`: what was recorded the first time, and whether that was now.
        """
        try:
            await self._key_values.update_all(writes_from(payload, self._check_size), self._announcer())
        except Recorded as recorded:
            return {"result": recorded.result, "replayed": True}
        return {"result": payload.get("result"), "replayed": False}

    def get(self, payload: Any) -> Any:
        """Return a value, null for a key that does not exist."""
        fields = Payload("state::get", payload)
        return value_of(self._find(fields.string("scope"), fields.string("key")))

    def get_entry(self, payload: Any) -> dict[str, Any] | None:
        """Return `{value, version}`, null for a key that does not exist; the version is for `if_version`."""
        fields = Payload("state::get_entry", payload)
        entry = self._find(fields.string("scope"), fields.string("key"))
        return None if entry is None else {"value": value_of(entry), "version": entry.version}

    def _find(self, scope: str, key: str) -> Entry | None:
        entry = self._key_values.recent(scope, key)
        return self._key_values.get(scope, key).result() if entry is None else entry

    async def delete(self, payload: Any) -> Any:
        """Remove a key and return its value; there is an event even if the key did not exist."""
        fields = Payload("state::delete", payload)
        scope, key = fields.string("scope"), fields.string("key")
        return value_of((await self._key_values.update(scope, key, lambda _: None, self._announcer())).old)

    async def update(self, payload: Any) -> dict[str, Any]:
        """Apply update operations in one transaction; operations that do not fit are skipped and listed in `errors`."""
        fields = Payload("state::update", payload)
        scope, key = fields.string("scope"), fields.string("key")
        updates = parse_updates(fields.value("ops"), "state::update")
        errors: list[dict[str, Any]] = []

        def decide(entry: Entry | None) -> bytes:
            value, errors[:] = apply_updates(value_of(entry), updates, is_missing=entry is None)
            return encode(value)

        change = await self._key_values.update(scope, key, decide, self._announcer())
        result = {"old_value": value_of(change.old), "new_value": value_of(change.new)}
        return {**result, "errors": errors} if errors else result

    async def list(self, payload: Any) -> Any:
        """Return the values of a scope in the order their keys were first written."""
        rows = await self._key_values.list(Payload("state::list", payload).string("scope"))
        return [value_of(row.entry) for row in rows]

    async def list_keys(self, payload: Any) -> dict[str, Any]:
        """Return the keys of a scope in the order they were first written."""
        rows = await self._key_values.list(Payload("state::list_keys", payload).string("scope"))
        return {"keys": [row.key for row in rows]}

    async def list_groups(self, _: Any) -> dict[str, Any]:
        """Return the scopes that hold a key, sorted."""
        return {"groups": await self._key_values.buckets()}

    async def list_entries(self, payload: Any) -> dict[str, Any]:
        """Return one page of keys with their values, and the cursor of the next."""
        fields = Payload("state::list_entries", payload)
        cursor = cursor_from(fields.get("cursor"), scope := fields.string("scope"))
        limit = fields.integer("limit", 100, 1, 1000) or 100
        max_bytes = fields.integer("max_bytes", 1_000_000, 256, 8_000_000) or 0
        # The storage runs commands in order: the count comes from the same commit or the next.
        listing, counting = self._key_values.list(scope, cursor.position, limit + 1), self._key_values.count(scope)
        return page_of(await listing, cursor, await counting, limit, max_bytes)

    # Events

    def _announcer(self) -> Callable[[Change], Sequence[tuple[str, bytes]]]:
        """Return a function that makes the events of a write. It runs on the storage thread: the trace is read here."""
        trace = current_trace()

        def announce(change: Change) -> Sequence[tuple[str, bytes]]:
            if not self._options.triggers_enabled:
                return ()
            entry = outbox_entry(change, self._bindings, trace)
            return () if entry is None else ((TOPIC, entry),)

        return announce

    def _on_change(self, change: Change) -> None:
        if change.journal and self._outbox is not None:
            self._outbox.offer(list(change.journal))


def _check_from(fields: Payload) -> Callable[[Entry | None], None]:
    version = fields.integer("if_version", None, 0, 2**63 - 1)
    expected = fields.get("expected") if "expected" in fields else _ANY
    if version is not None and expected is not _ANY:
        raise malformed("state::set", "give expected or if_version, not both")

    def check(entry: Entry | None) -> None:
        current = entry.version if entry else 0
        if version not in (None, current) or (expected is not _ANY and not json_equal(value_of(entry), expected)):
            details = {"version": current, "value": value_of(entry)}
            raise InvocationError("CONFLICT", "the value is another one by now", details=details)

    return check
