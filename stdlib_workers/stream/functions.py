"""The functions `stream::*`: payload in, result out. Items lie in the storage, or with a custom stream's functions."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from stdlib_workers.events import current_trace
from stdlib_workers.storage import Change, Entry, KeyValue
from stdlib_workers.stream.custom import ABSENT, CustomStreams, old_and_new, old_of
from stdlib_workers.stream.events import Place, custom, deleted, place_from, written
from stdlib_workers.stream.log import EventLog
from stdlib_workers.values import Payload, apply_updates, decode, encode, parse_updates


class Stream:
    """All of them over one store."""

    def __init__(self, pairs: KeyValue, log: EventLog, custom_streams: CustomStreams) -> None:
        self._pairs = pairs
        self._log = log
        self._custom = custom_streams

    async def set(self, payload: Any) -> dict[str, Any]:
        """Write an item."""
        place, item, fields = _item("stream::set", payload)
        data = fields.value("data")
        result = await self._custom.call("set", place.stream, payload)
        if result is not ABSENT:
            return await self._tell_written(place, item, result, "set")
        value = encode(data)
        change = await self._pairs.update(place.bucket, item, lambda _: value, self._announcer())
        return {"old_value": _value(change.old), "new_value": data}

    async def get(self, payload: Any) -> Any:
        """Return an item, nothing for one that is not there."""
        place, item, _ = _item("stream::get", payload)
        return await self.read(place, item)

    async def read(self, place: Place, item: str) -> Any:
        """Return an item's value, None for none."""
        asked = {"stream_name": place.stream, "group_id": place.group, "item_id": item}
        result = await self._custom.call("get", place.stream, asked)
        return _value(await self._pairs.get(place.bucket, item)) if result is ABSENT else result

    async def delete(self, payload: Any) -> dict[str, Any]:
        """Remove an item and return what it was."""
        place, item, _ = _item("stream::delete", payload)
        result = await self._custom.call("delete", place.stream, payload)
        if result is ABSENT:
            change = await self._pairs.update(place.bucket, item, _nothing, self._announcer())
            return {"old_value": _value(change.old)}
        old = old_of(result)
        if old is not None:
            await self._log.write(place, item, deleted(old))
        return {"old_value": old}

    async def update(self, payload: Any) -> dict[str, Any]:
        """Apply update operations in one transaction; those that do not fit are skipped and listed in `errors`."""
        place, item, fields = _item("stream::update", payload)
        updates = parse_updates(fields.value("ops"), "stream::update")
        result = await self._custom.call("update", place.stream, payload)
        if result is not ABSENT:
            return await self._tell_written(place, item, result, "update")
        errors: list[dict[str, Any]] = []

        def decide(entry: Entry | None) -> bytes:
            value, errors[:] = apply_updates(_value(entry), updates, is_missing=entry is None)
            return encode(value)

        change = await self._pairs.update(place.bucket, item, decide, self._announcer())
        done = {"old_value": _value(change.old), "new_value": _value(change.new)}
        return {**done, "errors": errors} if errors else done

    async def list(self, payload: Any) -> Any:
        """Return the items of a group in the order they were first written."""
        fields = Payload("stream::list", payload)
        return await self.read_group(Place(fields.string("stream_name"), fields.string("group_id")))

    async def read_group(self, place: Place) -> Any:
        """Return the values of a group."""
        asked = {"stream_name": place.stream, "group_id": place.group}
        result = await self._custom.call("list", place.stream, asked)
        if result is not ABSENT:
            return result
        return [_value(row.entry) for row in await self._pairs.list(place.bucket)]

    async def list_groups(self, payload: Any) -> Any:
        """Return the ids of a stream's groups."""
        name = Payload("stream::list_groups", payload).string("stream_name")
        result = await self._custom.call("list_groups", name, payload)
        if result is not ABSENT:
            return result
        return [place.group for place in map(place_from, await self._pairs.buckets()) if place.stream == name]

    async def list_all(self, _: Any) -> dict[str, Any]:
        """Return every stream with its groups."""
        streams: dict[str, list[str]] = {}
        for place in map(place_from, await self._pairs.buckets()):
            streams.setdefault(place.stream, []).append(place.group)
        listed = [{"id": name, "groups": sorted(groups)} for name, groups in sorted(streams.items())]
        return {"stream": listed, "count": len(listed)}

    async def send(self, payload: Any) -> None:
        """Tell a group of something that is no change of an item."""
        fields = Payload("stream::send", payload)
        place = Place(fields.string("stream_name"), fields.string("group_id"))
        event = custom(fields.string("type"), fields.value("data"))
        item = fields.string("id") if fields.get("id") is not None else None
        await self._log.write(place, item, event)

    async def _tell_written(self, place: Place, item: str, result: Any, operation: str) -> dict[str, Any]:
        old, new = old_and_new(result, operation)
        await self._log.write(place, item, written(old, new))
        answer: dict[str, Any] = {**result, "old_value": old}
        return answer

    def _announcer(self) -> Callable[[Change], Any]:
        """Return what makes the events of a write. It runs on the storage's thread: the trace is taken here."""
        trace = current_trace()

        def announce(change: Change) -> Any:
            if change.new is None and change.old is None:
                return ()
            old = _value(change.old)
            event = deleted(old) if change.new is None else written(old, _value(change.new))
            return self._log.entries(place_from(change.bucket), change.key, event, trace)

        return announce


def _item(function_id: str, payload: Any) -> tuple[Place, str, Payload]:
    fields = Payload(function_id, payload)
    place = Place(fields.string("stream_name"), fields.string("group_id"))
    return place, fields.string("item_id"), fields


def _value(entry: Entry | None) -> Any:
    return None if entry is None else decode(entry.value)


def _nothing(_: Entry | None) -> None:
    return None
