"""The functions `state::*`: payload in, result out. What they say to whom is `events.py`, where things lie the storage.

Reading a value takes no other thread while it is at hand. Everything that writes is async: many writes are on
their way to the disk at once, and share its fsync.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from iii import InvocationError
from stdlib_workers.events import TOPIC, Bindings, Outbox, current_trace
from stdlib_workers.state.events import Subscription, announcement, value_of
from stdlib_workers.state.once import Recorded, writes_from
from stdlib_workers.state.options import Options
from stdlib_workers.state.pages import cursor_from, page_of
from stdlib_workers.storage import Change, Entry, KeyValue
from stdlib_workers.values import Payload, apply_updates, encode, malformed, parse_updates

# Version of `expected` and `if_version`: not asked for. Null is a value one may expect.
_ANY: Any = object()


class State:
    """All of them over one store."""

    def __init__(
        self,
        pairs: KeyValue,
        options: Options,
        bindings: Bindings[Subscription] | Sequence[Subscription] = (),
        outbox: Outbox | None = None,
    ) -> None:
        self._pairs = pairs
        self._options = options
        self._bindings = bindings
        self._outbox = outbox
        pairs.watch(self._tell)

    async def set(self, payload: Any) -> dict[str, Any]:
        """Write a value. With `expected` (a value; null: nothing) or `if_version`, only over that one."""
        fields = Payload("state::set", payload)
        scope, key = fields.string("scope"), fields.string("key")
        value = encode(fields.value("value", alias="data"))
        self._check_size(value)
        check = _check_from(fields)

        def decide(entry: Entry | None) -> bytes:
            check(entry)
            return value

        change = await self._pairs.update(scope, key, decide, self._announcer())
        result = {"old_value": value_of(change.old), "new_value": payload_value(payload)}
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
            await self._pairs.update_all(writes_from(payload, self._check_size), self._announcer())
        except Recorded as recorded:
            return {"result": recorded.result, "replayed": True}
        return {"result": payload.get("result"), "replayed": False}

    def get(self, payload: Any) -> Any:
        """Return a value, nothing for a key that is not there."""
        fields = Payload("state::get", payload)
        return value_of(self._find(fields.string("scope"), fields.string("key")))

    def get_entry(self, payload: Any) -> dict[str, Any] | None:
        """Return `{value, version}`, nothing for a key that is not there; the version is for `if_version`."""
        fields = Payload("state::get_entry", payload)
        entry = self._find(fields.string("scope"), fields.string("key"))
        return None if entry is None else {"value": value_of(entry), "version": entry.version}

    def _find(self, scope: str, key: str) -> Entry | None:
        found = self._pairs.recent(scope, key)
        return self._pairs.get(scope, key).result() if found is None else found

    async def delete(self, payload: Any) -> Any:
        """Remove a key and return what it held; the event tells of it even if that was nothing."""
        fields = Payload("state::delete", payload)
        scope, key = fields.string("scope"), fields.string("key")
        return value_of((await self._pairs.update(scope, key, _nothing, self._announcer())).old)

    async def update(self, payload: Any) -> dict[str, Any]:
        """Apply update operations in one transaction; those that do not fit are skipped and listed in `errors`."""
        fields = Payload("state::update", payload)
        scope, key = fields.string("scope"), fields.string("key")
        updates = parse_updates(fields.value("ops"), "state::update")
        errors: list[dict[str, Any]] = []

        def decide(entry: Entry | None) -> bytes:
            value, errors[:] = apply_updates(value_of(entry), updates, is_missing=entry is None)
            return encode(value)

        change = await self._pairs.update(scope, key, decide, self._announcer())
        result = {"old_value": value_of(change.old), "new_value": value_of(change.new)}
        return {**result, "errors": errors} if errors else result

    async def list(self, payload: Any) -> Any:
        """Return the values of a scope in the order their keys were first written."""
        rows = await self._pairs.list(Payload("state::list", payload).string("scope"))
        return [value_of(row.entry) for row in rows]

    async def list_keys(self, payload: Any) -> dict[str, Any]:
        """Return the keys of a scope in the order they were first written."""
        rows = await self._pairs.list(Payload("state::list_keys", payload).string("scope"))
        return {"keys": [row.key for row in rows]}

    async def list_groups(self, _: Any) -> dict[str, Any]:
        """Return the scopes that hold a key, sorted."""
        return {"groups": await self._pairs.buckets()}

    async def list_entries(self, payload: Any) -> dict[str, Any]:
        """Return one page of keys with their values, and the cursor of the next."""
        fields = Payload("state::list_entries", payload)
        cursor = cursor_from(fields.get("cursor"), scope := fields.string("scope"))
        limit = fields.integer("limit", 100, 1, 1000) or 100
        max_bytes = fields.integer("max_bytes", 1_000_000, 256, 8_000_000) or 0
        # The storage runs commands in order: the count comes from the same commit or the next.
        listing, counting = self._pairs.list(scope, cursor.position, limit + 1), self._pairs.count(scope)
        return page_of(await listing, cursor, await counting, limit, max_bytes)

    # Events

    def _announcer(self) -> Callable[[Change], Sequence[tuple[str, bytes]]]:
        """Return what makes the events of a write. It runs on the storage's thread: the trace is taken here."""
        trace = current_trace()

        def announce(change: Change) -> Sequence[tuple[str, bytes]]:
            if not self._options.triggers_enabled:
                return ()
            entry = announcement(change, self._bindings, trace)
            return () if entry is None else ((TOPIC, entry),)

        return announce

    def _tell(self, change: Change) -> None:
        if change.journal and self._outbox is not None:
            self._outbox.offer(list(change.journal))


def _nothing(_: Entry | None) -> None:
    return None


def payload_value(payload: dict[str, Any]) -> Any:
    """Return the value a checked `state::set` payload brings."""
    return payload["value"] if "value" in payload else payload["data"]


def _check_from(fields: Payload) -> Callable[[Entry | None], None]:
    version = fields.integer("if_version", None, 0, 2**63 - 1)
    expected = fields.get("expected") if "expected" in fields else _ANY
    if version is not None and expected is not _ANY:
        raise malformed("state::set", "give expected or if_version, not both")

    def check(entry: Entry | None) -> None:
        if version is not None and version != (entry.version if entry else 0):
            raise _conflict(entry)
        if expected is not _ANY and value_of(entry) != expected:
            raise _conflict(entry)

    return check


def _conflict(entry: Entry | None) -> InvocationError:
    found = {"version": entry.version if entry else 0, "value": value_of(entry)}
    return InvocationError("CONFLICT", "the value is another one by now", details=found)
