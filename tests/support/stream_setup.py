"""A stream worker's parts over one store, with a stand-in for the engine; for the tests of stream."""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import Any

from stdlib_workers.events import Background, Bindings, KnownBindings, Outbox, target_from
from stdlib_workers.storage import KEY_VALUE_SCHEMA, SqliteKeyValue, Store
from stdlib_workers.stream.custom import CustomStreams
from stdlib_workers.stream.events import filter_from
from stdlib_workers.stream.functions import Stream
from stdlib_workers.stream.hub import Hub, Subscriber
from stdlib_workers.stream.log import EventLog, LoggedEvent
from stdlib_workers.stream.session import Services, Session
from tests.support.stand_ins import Callee


class FakeSocket:
    """Stands for a WebSocket: keeps what is sent; `gate` holds the sender up."""

    def __init__(self) -> None:
        self.sent: list[dict[str, Any]] = []
        self.closed: tuple[int, str] | None = None

    async def send(self, message: str, /) -> None:
        self.sent.append(json.loads(message))

    async def close(self, code: int, reason: str) -> None:
        self.closed = (code, reason)


class StreamSetup:
    """Everything of the worker but its process and its port."""

    def __init__(self, worker: Callee | None = None, path: Path | None = None, history: int = 1000) -> None:
        self.worker = worker or Callee()
        self.worker.functions.setdefault("engine::functions::list", self._list_functions)
        self.store = Store(path, KEY_VALUE_SCHEMA)
        self.pairs = SqliteKeyValue(self.store)
        self.background = Background()
        self.filters = KnownBindings("stream", filter_from, self.pairs.records)
        self.joins, self.leaves = Bindings(target_from), Bindings(target_from)
        self.outbox = Outbox(self.pairs.journal, self.worker, self.background, self.filters)
        self.loop: Any = None  # of the sockets; without it, events go to triggers alone
        self.log = EventLog(self.pairs, self.filters, history, self.outbox, self._publish, time.time)
        self.custom = CustomStreams(self.worker)
        self.stream = Stream(self.pairs, self.log, self.custom)
        self.hub = Hub()
        self.services = Services(self.stream, self.log, self.hub, self.worker, self.joins, self.leaves)
        self.outbox.start()

    def _list_functions(self, query: Any) -> dict[str, Any]:
        names = (name for name in self.worker.functions if name.startswith(query["prefix"]))
        return {"functions": [{"function_id": name} for name in names]}

    def listen_on(self, loop: Any) -> None:
        """Deliver events to sockets on this loop."""
        self.loop = loop

    def _publish(self, event: LoggedEvent) -> None:
        if self.loop is not None:
            self.loop.call_soon_threadsafe(self.hub.deliver, event)

    def session(self, context: Any = None) -> tuple[Session, Subscriber]:
        """Return a socket's session and its queue."""
        subscriber = Subscriber(FakeSocket(), context)
        return Session(self.services, subscriber), subscriber

    async def set(self, item: str, data: Any, group: str = "g", stream: str = "s") -> Any:
        """Write an item."""
        return await self.stream.set(address(item, group, stream) | {"data": data})

    def end(self) -> None:
        """Leave as a process does."""
        self.background.stop()
        self.store.close()


def address(item: str, group: str = "g", stream: str = "s") -> dict[str, Any]:
    """Return the fields that name an item."""
    return {"stream_name": stream, "group_id": group, "item_id": item}


def drained(subscriber: Subscriber) -> list[dict[str, Any]]:
    """Return what is queued for a socket, and forget it."""
    found = [json.loads(message) for message in subscriber._queue]
    subscriber._queue.clear()
    return found


def join(id: str = "u", item: str | None = None, group: str = "g", stream: str = "s", **more: Any) -> str:
    """Return a socket's `join`."""
    data = {"subscriptionId": id, "streamName": stream, "groupId": group, **more}
    return json.dumps({"type": "join", "data": data if item is None else data | {"id": item}})
