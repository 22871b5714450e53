"""Bindings that outlive their binder: kept with the data, so that a write fires for a worker that is not back yet.

A binding that is gone from the engine is `away` until it is known why. If its worker is away too (it starts, was
killed, was stopped), the binding stays, in this process and in the next: events are made for it and wait in the outbox.
If its worker is there without it (it was withdrawn, or a reload has dropped it), or is gone from iii.toml, the binding
is forgotten, and so are the events that were made for it meanwhile.

Why a binding is gone is asked of the engine, not told by it: an engine that has just started has nothing to tell.
"""

from __future__ import annotations

import asyncio
import hashlib
import json
import time
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import asdict, dataclass, replace
from threading import Lock
from typing import Any, NamedTuple, Protocol, TypeVar

from iii import InvocationError, Logger, TriggerConfig
from stdlib_workers.events.background import Background
from stdlib_workers.events.bindings import Bindings, Caller, Target
from stdlib_workers.storage import SqliteRecords
from stdlib_workers.values import decode, encode

# Seconds between two looks while a binding is away, and from the change of a binding to the first look.
LOOK_INTERVAL, LOOK_DELAY = 0.5, 0.02
# Seconds for which a worker that is ready again keeps its old bindings: it may still be making them, since a script
# that takes its time after `register_worker` counts as ready.
GRACE = 10.0
# A worker that is not in iii.toml may have lost its connection, and come back. One that is in the file is waited for
# without end, also when this run does not start it (`iii dev NAME`).
FOREIGN_TIMEOUT = 60.0
_READY = ("ready", "source_missing")


class Bound(Protocol):
    """What a worker keeps of a binding: a NamedTuple with its target."""

    @property
    def target(self) -> Target: ...

    def _replace(self, *, target: Target) -> Any: ...


F = TypeVar("F", bound=Bound)


@dataclass(slots=True)
class _Known:
    """A binding as it is on the disk. `worker`: the name of its maker, None as long as the engine was not asked."""

    function_id: str
    namespace: str | None
    config: Any
    metadata: Any
    worker: str | None = None


@dataclass(slots=True)
class _Away:
    """Since when a binding is away, on the monotonic clock; `ready_since`: its worker is there without it.

    `makers`: the connections that its worker had when it was live. If one of them is still there, the binding was
    withdrawn.
    """

    since: float
    makers: frozenset[str] = frozenset()
    ready_since: float | None = None


class _Look(NamedTuple):
    """What the engine says: names of makers by the binding's id; names of workers, and the connections of each."""

    makers: dict[str, str]
    declared: frozenset[str]
    ready: frozenset[str]
    connections: dict[str, frozenset[str]]


class KnownBindings(Bindings[F]):
    """The provider of one trigger type whose events must not be lost. `read` as for `Bindings`."""

    def __init__(self, trigger_type: str, read: Callable[[TriggerConfig], F], records: SqliteRecords) -> None:
        super().__init__(read)
        self._type = trigger_type
        self._kind = f"binding {trigger_type}"
        self._records = records
        self._log = Logger(service_name=trigger_type)
        self._known: dict[str, _Known] = {}
        self._values: dict[str, F] = {}  # by key, live and away
        self._live: dict[str, str] = {}  # key -> the engine's id of the binding
        self._keys: dict[str, str] = {}  # and back
        self._away: dict[str, _Away] = {}
        self._makers: dict[str, frozenset[str]] = {}  # connections of the workers of live bindings
        self._passing: set[str] = set()  # made by no worker, such as `iii state watch`: they end with their connection
        self._lock = Lock()  # the SDK's loop binds, the background's forgets
        self._all: tuple[F, ...] = ()
        self._changed = asyncio.Event()
        self._background: Background | None = None
        self._clock = time.monotonic
        for key, body in records.read(self._kind).result().items():
            self._load(key, _Known(**decode(body)))
        self._refresh()

    def _load(self, key: str, known: _Known) -> None:
        config = TriggerConfig("", known.function_id, known.config, known.metadata, known.namespace)
        with suppress(InvocationError):  # what is no binding any more is not missed
            self._values[key] = self._read(config)
            self._known[key] = known
            self._away[key] = _Away(self._clock())

    def watch(self, worker: Caller, background: Background) -> None:
        """Begin to find out, on the background's loop, which bindings that are away are to be forgotten."""
        self._background, self._clock = background, background.loop.time
        background.call(lambda: background.start(self._look_again_and_again(worker)))

    def __iter__(self) -> Iterator[F]:
        return iter(self._all)

    def __len__(self) -> int:
        return len(self._all)

    def is_live(self, key: str) -> bool:
        """Tell whether a binding is there, by the key in its target."""
        return key in self._live

    def holds(self, target: Target) -> bool:
        """Tell whether a target has a binding, live or away."""
        if target.binding is not None:
            return target.binding in self._known
        return any(replace(value.target, binding=None) == target for value in self._all)

    async def register_trigger(self, config: TriggerConfig) -> None:
        value = self._read(config)
        with self._lock:
            if config.id in self._keys:
                self._forget(self._drop_id(config.id))
            known = _Known(config.function_id, config.namespace, config.config, config.metadata)
            key = self._key_of(known)
            if key in self._known:
                del self._away[key]
            else:
                self._known[key] = known
                # Commits come in the order of their commands: no event is made for it before it is durable.
                self._write(key)
            self._live[key], self._keys[config.id], self._values[key] = config.id, key, value
            self._refresh(has_changed=True)

    async def unregister_trigger(self, config: TriggerConfig) -> None:
        with self._lock:
            if config.id not in self._keys:
                return
            key = self._drop_id(config.id)
            self._away[key] = _Away(self._clock(), self._makers.pop(key, frozenset()))
            if key in self._passing:
                self._forget(key)
            self._refresh(has_changed=True)

    def _drop_id(self, id: str) -> str:
        key = self._keys.pop(id)
        del self._live[key]
        return key

    def _key_of(self, known: _Known) -> str:
        """Return the key of a binding: the same after a restart, another one for each of several equal bindings."""
        fields = [known.function_id, known.namespace, known.config, known.metadata]
        digest = hashlib.sha256(json.dumps(fields, sort_keys=True).encode()).hexdigest()[:32]
        number = 0
        while (key := f"{digest}-{number}") in self._live:
            number += 1
        return key

    def _write(self, key: str) -> None:
        self._records.put(self._kind, key, encode(asdict(self._known[key])))

    def _forget(self, key: str) -> None:
        self._away.pop(key, None)
        self._passing.discard(key)
        self._makers.pop(key, None)
        del self._values[key], self._known[key]
        self._records.remove(self._kind, key)

    def _refresh(self, *, has_changed: bool = False) -> None:
        self._all = tuple(
            value._replace(target=replace(value.target, binding=key)) if key in self._away else value
            for key, value in self._values.items()
        )
        if has_changed and self._background is not None:
            self._background.call(self._changed.set)

    # What the engine says

    async def _look_again_and_again(self, worker: Caller) -> None:
        while True:
            with suppress(InvocationError, KeyError, TypeError):  # the engine stops, or does not answer: look again
                look = await self._look(worker)
                with self._lock:
                    self._judge(look, self._clock())
            self._changed.clear()
            is_settled = not self._away and self._makers.keys() >= self._live.keys()
            with suppress(TimeoutError):
                await asyncio.wait_for(self._changed.wait(), None if is_settled else LOOK_INTERVAL)
                await asyncio.sleep(LOOK_DELAY)

    async def _look(self, worker: Caller) -> _Look:
        # The workers first: whoever is ready then has its bindings in the list that comes after.
        workers = (await worker.trigger_async("engine::workers::list", {}))["workers"]
        query = {"trigger_type": self._type}
        bindings = (await worker.trigger_async("engine::registered-triggers::list", query))["registered_triggers"]
        connected = [row for row in workers if row["status"] != "disconnected"]
        return _Look(
            {row["id"]: row["worker_name"] for row in bindings},
            frozenset(row["name"] for row in workers if "state" in row),
            frozenset(row["name"] for row in connected if row.get("state", "ready") in _READY),
            {
                name: frozenset(row["id"] for row in connected if row["name"] == name)
                for name in {row["name"] for row in connected}
            },
        )

    def _judge(self, look: _Look, now: float) -> None:
        """Note who has made the live bindings, and forget those away ones that nobody will make again."""
        for key, id in self._live.items():
            known = self._known[key]
            if id not in look.makers:
                continue
            self._makers[key] = look.connections.get(look.makers[id], frozenset())
            if known.worker is None:
                known.worker = look.makers[id]
                if known.worker in look.declared | look.ready:
                    self._write(key)
                else:
                    self._passing.add(key)
                    self._records.remove(self._kind, key)
        for key, away in tuple(self._away.items()):
            maker = self._known[key].worker or ""
            if away.makers & look.connections.get(maker, frozenset()):
                self._forget(key)  # withdrawn: its worker expects no more events
            elif maker in look.ready:
                away.ready_since = away.ready_since or now
                if now - away.ready_since >= GRACE:
                    self._give_up(key, f"{maker} is there and has not bound it again")
            else:
                away.ready_since = None
                # Whose binding it is may not have been noted: then any worker that is not there may make it again.
                may_return = maker in look.declared if maker else bool(look.declared - look.ready)
                if not may_return and now - away.since >= FOREIGN_TIMEOUT:
                    self._give_up(key, f"its worker {maker or 'of old'} is gone")
        self._refresh()

    def _give_up(self, key: str, why: str) -> None:
        text = (
            f"{self._known[key].function_id} is no longer bound to {self._type}: {why}; its waiting events are dropped"
        )
        self._log.warn(text)
        self._forget(key)
