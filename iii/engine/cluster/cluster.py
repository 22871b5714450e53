"""This engine in its cluster: finds the other engines over NATS, keeps a link to each, and loses those that are gone.

Subjects, below `iii.NAME`: `hb` has the heartbeats of all engines; `e.ID.f.SENDER` the frames for an engine; and to
`e.ID.r.RECEIVER.SEQUENCE` a server says that frame SEQUENCE of this engine had no receiver. ID is new at each start.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import platform
import time
from collections.abc import Callable
from typing import Any, Literal

from msgspec import Raw
from msgspec.structs import replace

from iii.engine.cluster.announcements import Announced, Announcements
from iii.engine.cluster.connection import LEAST_PAYLOAD, Connection
from iii.engine.cluster.engines import (
    ABSENCE_TIMEOUT,
    BEAT_INTERVAL,
    PROBE_INTERVAL,
    SILENCE_TIMEOUT,
    Beat,
    Engines,
    Gone,
    NameTaken,
    decode_beat,
    encode_beat,
)
from iii.engine.cluster.frames import OVERHEAD, PIECE, MalformedFrame, decode_frame
from iii.engine.cluster.link import Link
from iii.engine.cluster.remote import RemoteEngine, engine_namespace
from iii.engine.config.spec import ClusterSpec
from iii.engine.routing.peer import Owner, Peer
from iii.engine.routing.router import Router
from iii.errors import ErrorCode, InvocationError, ProjectError
from iii.nats_options import CONNECT_TIMEOUT

# Seconds that a start waits for an engine of the same name to answer: an answer takes a few milliseconds.
NAME_TIMEOUT = 0.25
# Seconds between two looks at the other engines while they have calls to answer, and otherwise.
BUSY_INTERVAL, IDLE_INTERVAL = 0.05, 0.25
# Seconds by which a look may be late; beyond that, this engine stood still, and has not read what came meanwhile.
STALL_THRESHOLD = 1.0
# Seconds for which registrations are gathered before the other engines are told.
OFFER_DEBOUNCE = 0.02
# Past engines of which the generation of the last link is kept.
MAX_GENERATIONS = 1024


class Cluster:
    """One engine's part of a cluster. Make it inside a running loop, then `start`.

    `turn()` finishes a turn of the message pump. `warn(text)` tells the user a sentence.
    """

    def __init__(
        self, spec: ClusterSpec, router: Router, *, version: str, turn: Callable[[], None], warn: Callable[[str], None]
    ) -> None:
        self.spec = spec
        self._router = router
        router.engine_name = spec.engine
        self._turn = turn
        self._warn = warn
        self._loop = asyncio.get_running_loop()
        self._owner = Owner("cluster", "default", is_supervised=False, is_remote=True, is_validated=False)
        self._own = Beat(
            os.urandom(8).hex(), spec.engine, labels=spec.labels, started_at_ms=int(time.time() * 1000),
            version=version, host=platform.node(), pid=os.getpid(),
        )  # fmt: skip
        self.engines = Engines(self._own)
        self.remotes: dict[str, RemoteEngine] = {}
        self._probed_at: dict[str, float] = {}
        self._generations: dict[str, int] = {}
        self._announcements = Announcements(router, engine_namespace(spec.engine))
        self._connection = Connection(spec, self._on_connection)
        self._prefix = f"iii.{spec.name.replace('.', '_')}"
        self._send_wanted = asyncio.Event()
        self._probes: list[tuple[str, RemoteEngine]] = []
        self._beats: list[Beat] = []
        self._tasks: list[asyncio.Task[None]] = []
        self._look_timer: asyncio.TimerHandle | None = None
        self._looked_at = self._beat_at = 0.0
        self._offer_timer: asyncio.TimerHandle | None = None
        self._refusal: ProjectError | None = None
        self._is_cut_off = self._has_left = False

    # Start and end

    async def start(self) -> None:
        """Join the cluster, or go on alone until a server answers. Raises `ProjectError` for a name that is taken."""
        self._tasks = [self._loop.create_task(self._join()), self._loop.create_task(self._send())]
        done, _ = await asyncio.wait({self._tasks[0]}, timeout=CONNECT_TIMEOUT + NAME_TIMEOUT)
        if done:
            done.pop().result()
        else:
            self._tasks[0].add_done_callback(self._on_joined_late)
            why = self._connection.last_error or "no answer"
            hosts = ", ".join(server.rpartition("@")[2] for server in self.spec.servers)  # without passwords
            self._warn(f"no NATS server of [cluster] answers ({hosts}: {why}): this engine is alone until one does")

    async def _join(self) -> None:
        await self._connection.open()
        if self._connection.max_payload < LEAST_PAYLOAD:
            text = f"the NATS server takes messages of {self._connection.max_payload} bytes, too few for a cluster"
            raise ProjectError(text, hint=f"set max_payload to at least {LEAST_PAYLOAD}, better to 1MB")
        own = f"{self._prefix}.e.{self._own.id}"
        await self._connection.subscribe(f"{self._prefix}.hb", self._on_beat)
        await self._connection.subscribe(f"{own}.f.*", self._on_frame)
        await self._connection.subscribe(f"{own}.r.*.*", self._on_refused)
        self._say(kind="hello")
        await asyncio.sleep(NAME_TIMEOUT)
        if self._refusal is not None:
            raise self._refusal
        self.engines.is_settled = True
        self._looked_at = self._loop.time()
        self._look()

    def _on_joined_late(self, joining: asyncio.Task[None]) -> None:
        if joining.cancelled():
            return
        error = joining.exception()
        self._warn("connected to NATS" if error is None else f"this engine stays out of the cluster: {error}")

    def leave_gently(self) -> None:
        """Take no new calls of other engines from now on; what runs for them goes on."""
        self._has_left = True
        for remote in self.remotes.values():
            remote.offer(self._announced)
        self._send_wanted.set()

    async def stop(self) -> None:
        """Say goodbye, and close the connection."""
        for timer in (self._look_timer, self._offer_timer):
            if timer is not None:
                timer.cancel()
        for id, remote in self.remotes.items():
            remote.say_leaving()
            await self._send_frames(id, remote)
        with contextlib.suppress(TimeoutError):
            await self._connection.flush()
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        await self._connection.close()

    @property
    def _announced(self) -> Announced:
        """What other engines may call here: nothing any more once this one has left."""
        return {} if self._has_left else self._announcements.current()

    @property
    def _max_frame(self) -> int:
        return min(PIECE + OVERHEAD, self._connection.max_payload)

    # What others say

    def _on_beat(self, _: str, data: bytes, is_refusal: bool) -> None:
        beat = None if is_refusal else decode_beat(data)
        if beat is None:
            self._router.calls.counters["unknown_type"] += 1
            return
        now = self._loop.time()
        try:
            if self.engines.heard(beat, now):
                self._meet(beat)
            if beat.kind == "hello":
                self._say()
        except NameTaken as taken:
            self._give_way(taken.beat)

    def _give_way(self, other: Beat) -> None:
        """Another engine has this engine's name: refuse to start, or leave the cluster."""
        where = f"{other.host} (pid {other.pid})"
        if not self.engines.is_settled:
            text = f"cluster {self.spec.name}: the engine name {other.name} is taken by the one on {where}"
            self._refusal = ProjectError(text, line=self.spec.line, hint="name this one: [cluster] engine")
        elif not self._has_left:
            self._warn(f"left the cluster: while this engine was not heard, {other.name} was started on {where}")
            self.leave_gently()
            self._lose_all(f"engine {self._own.name} has left the cluster")

    def _meet(self, beat: Beat, generation: int = 0) -> None:
        """Make a link to an engine, in the generation after the last one."""
        generation = max(generation, self._generations.pop(beat.id, 0) + 1)
        self._generations[beat.id] = generation
        if len(self._generations) > MAX_GENERATIONS:
            del self._generations[next(iter(self._generations))]
        link = Link(generation, max_frame=self._max_frame)
        remote = RemoteEngine(
            beat,
            self._own.name,
            self._router,
            self._owner,
            link=link,
            clock=self._loop.time,
            durable=self.spec.durable,
        )
        remote.on_outbox = self._send_wanted.set
        self.remotes[beat.id] = remote
        link.ask_again()
        remote.offer(self._announced)
        self._send_wanted.set()

    def _on_frame(self, subject: str, data: bytes, _: bool) -> None:
        id = subject.rpartition(".")[2]
        remote = self.remotes.get(id)
        try:
            frame = decode_frame(data)
            if remote is None or frame.generation < remote.link.generation:
                # It does not know yet that it was given up, or this engine does not know it yet.
                self._router.calls.counters["late_frame"] += 1
                return
            if frame.generation > remote.link.generation:
                remote.give_up({"reason": "engine_unreachable", "engine": remote.beat.name, "words": "it was cut off"})
                self._meet(remote.beat, frame.generation)
                remote = self.remotes[id]
            remote.undelivered = None
            self.engines.heard_from(id, self._loop.time())
            remote.receive(remote.link.receive(frame))
        except MalformedFrame as error:
            self._router.calls.counters["malformed_frame"] += 1
            if remote is not None:
                self._lose(Gone(remote.beat, False, f"engine {remote.beat.name} sends what is no frame: {error}"))
                self.engines.others.pop(id, None)
            return
        if remote.has_left:
            self.engines.others.pop(id, None)
            self._lose(Gone(remote.beat, True, f"engine {remote.beat.name} has stopped"))
        self._turn()
        self._send_wanted.set()

    def _on_refused(self, subject: str, _: bytes, is_refusal: bool) -> None:
        id, sequence = subject.split(".")[-2:]
        remote = self.remotes.get(id)
        if not is_refusal or remote is None:
            return
        number = int(sequence) if sequence.isdecimal() else 0
        if number and (remote.undelivered is None or number < remote.undelivered):
            remote.undelivered = number
        engine = self.engines.others.get(id)
        if engine is not None and engine.refused_at is None:
            self._loop.call_later(ABSENCE_TIMEOUT, self._probe, id)
        self.engines.refused(id, self._loop.time())
        self._lose_lost()

    def _on_connection(self, is_connected: bool) -> None:
        """While this engine has no connection it cannot judge the others; they are silent, and time goes on."""
        if is_connected:
            self.engines.excuse(self._loop.time())
            for remote in self.remotes.values():
                remote.link.limit(self._max_frame)
                remote.link.resend()
            self._send_wanted.set()
        if self.engines.is_settled and not self._has_left and is_connected is self._is_cut_off:
            self._warn("connected to NATS again" if is_connected else "the connection to NATS is lost: trying again")
        self._is_cut_off = not is_connected

    # What this engine does by the clock

    def _look(self) -> None:
        """Send a heartbeat and probes where they are due, and settle what is gone."""
        now = self._loop.time()
        if now - self._looked_at > STALL_THRESHOLD:
            self.engines.excuse(now)
        self._looked_at = now
        if now - self._beat_at >= BEAT_INTERVAL - IDLE_INTERVAL / 2:
            self._beat_at = now
            if not self._has_left:
                self._say()
        is_busy = False
        for id, engine in self.engines.others.items():
            remote = self.remotes[id]
            waits = remote.busy > 0 or remote.link.is_open
            is_busy |= waits
            if waits or now - engine.heard_at > SILENCE_TIMEOUT / 2:
                self._probe_if_due(id, now)
        self._lose_lost()
        interval = BUSY_INTERVAL if is_busy else IDLE_INTERVAL
        self._look_timer = self._loop.call_later(interval, self._look)

    def _probe_if_due(self, id: str, now: float) -> None:
        if now - self._probed_at.get(id, 0.0) >= PROBE_INTERVAL - BUSY_INTERVAL / 2:
            self._probe(id)

    def _probe(self, id: str) -> None:
        if (remote := self.remotes.get(id)) is not None:
            self._probed_at[id] = self._loop.time()
            self._probes.append((id, remote))
            self._send_wanted.set()

    def _lose_lost(self) -> None:
        lost = self.engines.lost(self._loop.time())
        for gone in lost:
            self._lose(gone)
        for remote in list(self.remotes.values()):
            if remote.reads_nothing:
                self.engines.others.pop(remote.beat.id, None)
                self._lose(Gone(remote.beat, False, f"engine {remote.beat.name} does not take what it is sent"))
        if lost:
            self._turn()

    def _lose_all(self, words: str) -> None:
        for remote in list(self.remotes.values()):
            self._lose(Gone(remote.beat, False, words))
        self.engines.others.clear()
        self._turn()

    def _lose(self, gone: Gone) -> None:
        remote = self.remotes.pop(gone.beat.id, None)
        self._probed_at.pop(gone.beat.id, None)
        if remote is not None:
            remote.give_up(gone.details)
            if not remote.has_left and not self._has_left:
                self._warn(gone.words)
            for other in self.remotes.values():
                other.retry_conflicts()

    # What this engine says

    def on_functions_changed(self) -> None:
        """Functions were registered or are gone: tell the other engines, soon."""
        if self._offer_timer is None and not self._has_left:
            self._offer_timer = self._loop.call_later(OFFER_DEBOUNCE, self._offer)

    def _offer(self) -> None:
        self._offer_timer = None
        announced = self._announced
        for remote in self.remotes.values():
            remote.offer(announced)
            remote.retry_conflicts()
            remote.tell_separate()
        self._turn()
        self._send_wanted.set()

    def _say(self, kind: Literal["hello", "beat"] = "beat") -> None:
        self._beats.append(replace(self._own, kind=kind))
        self._send_wanted.set()

    async def _send(self) -> None:
        """Publish heartbeats, probes and frames, whenever there are some."""
        while True:
            await self._send_wanted.wait()
            self._send_wanted.clear()
            beats, self._beats = self._beats, []
            for beat in beats:
                await self._connection.publish(f"{self._prefix}.hb", encode_beat(beat))
            probes, self._probes = self._probes, []
            for id, remote in list(self.remotes.items()):
                await self._send_frames(id, remote)
            for id, remote in probes:
                await self._publish(id, 0, remote.link.probe())

    async def _send_frames(self, id: str, remote: RemoteEngine) -> None:
        if self._connection.is_connected:
            for sequence, data in remote.link.frames():
                await self._publish(id, sequence, data)

    async def _publish(self, id: str, sequence: int, data: bytes) -> None:
        if len(data) > self._connection.max_payload and (remote := self.remotes.get(id)) is not None:
            # What was cut for another server, or another configuration of it, and may not have arrived there.
            remote.undelivered = sequence
            words = f"the NATS server takes messages of {self._connection.max_payload} bytes only, from now on"
            self._lose(Gone(remote.beat, False, words))
            self._meet(remote.beat)
            self._turn()
            return
        reply = f"{self._prefix}.e.{self._own.id}.r.{id}.{sequence}"
        await self._connection.publish(f"{self._prefix}.e.{id}.f.{self._own.id}", data, reply)

    # What `iii cluster` shows

    def answer(self, _: Raw, viewer: Peer) -> dict[str, Any]:
        """Answer `engine::cluster::info`."""
        if viewer.rights is not None:
            raise InvocationError(ErrorCode.FORBIDDEN, "a session is told nothing about the engines of the cluster")
        return self.describe()

    def describe(self) -> dict[str, Any]:
        """Return who is in the cluster, and the sentences `unmet` and `conflicts` about what is not as it should be."""
        now = self._loop.time()
        rows = [_row(self._own, 0.0, None)]
        for id, engine in self.engines.others.items():
            rows.append(_row(engine.beat, now - engine.heard_at, self.remotes[id]))
        told = [table for remote in self.remotes.values() for table in (remote.conflicts, remote.separate)]
        conflicts = [text for table in told for text in table.values()]
        return {
            "name": self.spec.name,
            "engine": self.spec.engine,
            "server": self._connection.server,
            "connected": self._connection.is_connected,
            "engines": sorted(rows, key=lambda row: str(row["engine"])),
            "unmet": self._connection.unmet if self._connection.is_connected else [],
            "conflicts": sorted(conflicts),
        }


def _row(beat: Beat, silent: float, remote: RemoteEngine | None) -> dict[str, Any]:
    return {
        "engine": beat.name,
        "id": beat.id,
        "labels": list(beat.labels),
        "host": beat.host,
        "pid": beat.pid,
        "version": beat.version,
        "started_at_ms": beat.started_at_ms,
        "silent_ms": round(silent * 1000),
        "functions": None if remote is None else sum(1 for _ in remote.functions),
        "calls": None if remote is None else remote.busy,
        "is_this": remote is None,
    }
