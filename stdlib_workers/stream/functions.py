"""The functions `stream::*`: payload in, result out. Items are in the storage, or a custom stream has them."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stdlib_workers.events import current_trace
from stdlib_workers.storage import Change, Entry, SqliteKeyValue
from stdlib_workers.stream.custom import ABSENT, CustomStreams, fields_of
from stdlib_workers.stream.events import Group, deleted, group_from, written
from stdlib_workers.stream.log import EventLog
from stdlib_workers.values import Payload, apply_updates, decode, encode, parse_updates

# The code of a failure of the storage, by function, as in the contract.
_NAMES = ("set", "get", "delete", "update", "list", "list_entries", "list_groups", "list_all", "send")
CODES = {name: f"STREAM_{name.upper()}_ERROR" for name in _NAMES} | dict.fromkeys(
    ("list", "list_entries"), "STREAM_GET_GROUP_ERROR"
)


class Stream:
    """Handlers of these functions over one store."""

    def __init__(self, pairs: SqliteKeyValue, log: EventLog, custom_streams: CustomStreams) -> None:
        self._pairs = pairs
        self._log = log
        self._custom = custom_streams

    async def set(self, payload: Any) -> dict[str, Any]:
        """Write an item."""
        group, item, fields = _item("stream::set", payload)
        data = fields.value("data")
        result = await self._custom.call("set", group.stream, payload)
        if result is not ABSENT:
            return await self._log_write(group, item, result, "set")
        value = encode(data)
        change = await self._pairs.update(group.bucket, item, lambda _: value, self._journal_entries())
        return {"old_value": _value(change.old), "new_value": data}

    async def get(self, payload: Any) -> Any:
        """Return the value of an item, null without it."""
        group, item, _ = _item("stream::get", payload)
        return await self.read(group, item)

    async def read(self, group: Group, item: str) -> Any:
        """Return the value of an item, None without it."""
        payload = {"stream_name": group.stream, "group_id": group.id, "item_id": item}
        result = await self._custom.call("get", group.stream, payload)
        return _value(await self._pairs.get(group.bucket, item)) if result is ABSENT else result

    async def delete(self, payload: Any) -> dict[str, Any]:
        """Remove an item and return its old value."""
        group, item, _ = _item("stream::delete", payload)
        result = await self._custom.call("delete", group.stream, payload)
        if result is ABSENT:
            change = await self._pairs.update(group.bucket, item, lambda _: None, self._journal_entries())
            return {"old_value": _value(change.old)}
        old = fields_of(result, "delete").get("old_value")
        if old is not None:
            await self._log.write(group, item, deleted(old))
        return {"old_value": old}

    async def update(self, payload: Any) -> dict[str, Any]:
        """Apply update operations in one transaction; operations that do not fit are skipped and listed in `errors`."""
        group, item, fields = _item("stream::update", payload)
        updates = parse_updates(fields.value("ops"), "stream::update")
        result = await self._custom.call("update", group.stream, payload)
        if result is not ABSENT:
            return await self._log_write(group, item, result, "update")
        errors: list[dict[str, Any]] = []

        def decide(entry: Entry | None) -> bytes:
            value, errors[:] = apply_updates(_value(entry), updates, is_missing=entry is None)
            return encode(value)

        change = await self._pairs.update(group.bucket, item, decide, self._journal_entries())
        result = {"old_value": _value(change.old), "new_value": _value(change.new)}
        return {**result, "errors": errors} if errors else result

    async def list(self, payload: Any) -> Any:
        """Return the items of a group in the order they were first written."""
        fields = Payload("stream::list", payload)
        return await self.read_group(Group(fields.string("stream_name"), fields.string("group_id")))

    async def read_group(self, group: Group) -> Any:
        """Return the values of a group."""
        payload = {"stream_name": group.stream, "group_id": group.id}
        result = await self._custom.call("list", group.stream, payload)
        return [_value(row.entry) for row in await self._pairs.list(group.bucket)] if result is ABSENT else result

    async def list_entries(self, payload: Any) -> dict[str, Any]:
        """Return one page of a group's items with their ids, and the cursor of the next.

        A custom stream tells no ids, and all of its items at once.
        """
        fields = Payload("stream::list_entries", payload)
        group = Group(fields.string("stream_name"), fields.string("group_id"))
        limit, cursor = fields.integer("limit", 100, 1, 1000) or 100, fields.integer("cursor", 0, 0, 2**53) or 0
        custom = await self._custom.call("list", group.stream, {"stream_name": group.stream, "group_id": group.id})
        if custom is not ABSENT:
            values = custom if isinstance(custom, list) else []
            return {"entries": [{"id": None, "value": value} for value in values], "next_cursor": None}
        rows = await self._pairs.list(group.bucket, cursor, limit + 1)
        return {
            "entries": [{"id": row.key, "value": _value(row.entry)} for row in rows[:limit]],
            "next_cursor": rows[limit - 1].position if len(rows) > limit else None,
        }

    async def list_groups(self, payload: Any) -> Any:
        """Return the ids of a stream's groups."""
        name = Payload("stream::list_groups", payload).string("stream_name")
        result = await self._custom.call("list_groups", name, payload)
        if result is not ABSENT:
            return result
        return [group.id for group in map(group_from, await self._pairs.buckets()) if group.stream == name]

    async def list_all(self, _: Any) -> dict[str, Any]:
        """Return every stream with its groups."""
        streams: dict[str, list[str]] = {}
        for group in map(group_from, await self._pairs.buckets()):
            streams.setdefault(group.stream, []).append(group.id)
        listed = [{"id": name, "groups": sorted(groups)} for name, groups in sorted(streams.items())]
        return {"stream": listed, "count": len(listed)}

    async def send(self, payload: Any) -> None:
        """Send a group an event that changes no item."""
        fields = Payload("stream::send", payload)
        group = Group(fields.string("stream_name"), fields.string("group_id"))
        event = {"type": "event", "event": {"type": fields.string("type"), "data": fields.value("data")}}
        item = fields.string("id") if fields.get("id") is not None else None
        await self._log.write(group, item, event)

    async def _log_write(self, group: Group, item: str, result: Any, operation: str) -> dict[str, Any]:
        fields = fields_of(result, operation, "new_value")
        old = fields.get("old_value")
        await self._log.write(group, item, written(old, fields["new_value"]))
        return {**fields, "old_value": old}

    def _journal_entries(self) -> Callable[[Change], Any]:
        """Return what makes the journal entries of a write on the storage's thread; the trace is read on this one."""
        trace = current_trace()

        def entries(change: Change) -> Any:
            if change.new is None and change.old is None:
                return ()
            old = _value(change.old)
            event = deleted(old) if change.new is None else written(old, _value(change.new))
            return self._log.entries(group_from(change.bucket), change.key, event, trace)

        return entries


def _item(function_id: str, payload: Any) -> tuple[Group, str, Payload]:
    fields = Payload(function_id, payload)
    group = Group(fields.string("stream_name"), fields.string("group_id"))
    return group, fields.string("item_id"), fields


def _value(entry: Entry | None) -> Any:
    return None if entry is None else decode(entry.value)
