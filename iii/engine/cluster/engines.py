"""Which engines there are: heartbeats, silence, and what it means when an engine cannot be reached. Pure.

An engine has *ended* when the NATS servers say that it has no connection any more, soon after it was heard. It is
*unreachable* when nothing of it is heard: it may be frozen, or behind a broken network, and may still run what it was
given. A server's word that there is no receiver proves nothing by itself: during a partition it comes, but late.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Literal

import msgspec
from msgspec import Struct

# Seconds between two heartbeats of an engine, and of silence after which it counts as unreachable.
BEAT_INTERVAL, SILENCE_TIMEOUT = 1.0, 3.0
# Seconds between two probes of an engine that has calls to answer, or has not said what it received.
PROBE_INTERVAL = 0.25
# Seconds for which a connection may be away before its engine counts as gone: one whose server died finds another one.
ABSENCE_TIMEOUT = 0.15
# Seconds. Partitioned servers take over two seconds until they say that there is no receiver.
PARTITION_DELAY = 2.0
# Bytes of one heartbeat, and engines in one cluster: what others can make this engine keep.
MAX_BEAT, MAX_ENGINES = 8192, 256


class Beat(Struct, frozen=True, omit_defaults=True):
    """What an engine says of itself each second. `id` is new at each start; `started_at_ms` is wall time.

    An engine that starts says "hello" first: every other one answers with a heartbeat at once.
    """

    id: str
    name: str
    kind: Literal["hello", "beat"] = "beat"
    labels: tuple[str, ...] = ()
    started_at_ms: int = 0
    version: str = ""
    host: str = ""
    pid: int = 0


class Gone(Struct, frozen=True):
    """An engine cannot be reached any more. `is_ended`: it has no connection, most likely since its process has ended.

    That decides about words alone: what it was given may still run, and is settled in the same way.
    """

    beat: Beat
    is_ended: bool
    words: str

    @property
    def details(self) -> Mapping[str, Any]:
        """What the errors of calls that it ran say."""
        reason = "worker_exited" if self.is_ended else "engine_unreachable"
        return {"reason": reason, "engine": self.beat.name, "words": self.words}


class OtherEngine:
    """Another engine, as far as it was heard. Times are monotonic seconds."""

    def __init__(self, beat: Beat, now: float) -> None:
        self.beat = beat
        self.heard_at = self.joined_at = now
        self.refused_at: float | None = None  # when a server first said that it is not there, since it was heard
        self.last_refused_at = 0.0
        self.is_excused = False  # not heard since this engine could hear again: it may be as late as this one


class NameTaken(Exception):
    """Another engine has this engine's name: `beat` is its heartbeat."""

    def __init__(self, beat: Beat) -> None:
        super().__init__(beat.name)
        self.beat = beat


class Engines:
    """All engines of the cluster but this one, by id."""

    def __init__(self, own: Beat) -> None:
        self.own = own
        self.others: dict[str, OtherEngine] = {}
        self.is_settled = False  # this engine has found nobody with its name, and sends heartbeats

    def __repr__(self) -> str:
        return f"<Engines {self.own.name} and {len(self.others)} others>"

    def heard(self, beat: Beat, now: float) -> bool:
        """Take a heartbeat; return whether the engine is new.

        Raises `NameTaken` when this engine has to leave: at its start, where an engine of its name runs, or starts and
        was first; later, where an engine of its name has started because this one was not heard.
        """
        if beat.id == self.own.id:
            return False
        if beat.name == self.own.name:
            own, other = (self.own.started_at_ms, self.own.id), (beat.started_at_ms, beat.id)
            if beat.kind == "hello" and (self.is_settled or own < other):
                return False  # it hears of this engine, and leaves
            if not self.is_settled or own < other:
                raise NameTaken(beat)
            return False
        known = self.others.get(beat.id)
        if known is not None:
            known.beat = beat
            self.heard_from(beat.id, now)
        elif len(self.others) < MAX_ENGINES:
            self.others[beat.id] = OtherEngine(beat, now)
        return known is None and beat.id in self.others

    def heard_from(self, id: str, now: float) -> None:
        """Something of the engine arrived."""
        if (engine := self.others.get(id)) is not None:
            engine.heard_at = now
            engine.refused_at = None
            engine.is_excused = False

    def refused(self, id: str, now: float) -> None:
        """A server said that the engine is not there."""
        if (engine := self.others.get(id)) is not None:
            engine.refused_at = now if engine.refused_at is None else engine.refused_at
            engine.last_refused_at = now

    def excuse(self, now: float) -> None:
        """This engine stood still, or had no connection: what it did not hear says nothing about the others."""
        for engine in self.others.values():
            engine.heard_at, engine.refused_at, engine.is_excused = now, None, True

    def lost(self, now: float) -> list[Gone]:
        """Return the engines that cannot be reached now, and forget them."""
        gone = [each for engine in self.others.values() if (each := _gone(engine, now)) is not None]
        for each in gone:
            del self.others[each.beat.id]
        return gone


def _gone(engine: OtherEngine, now: float) -> Gone | None:
    name = engine.beat.name
    refused_at = engine.refused_at
    is_absent = refused_at is not None and engine.last_refused_at - refused_at >= ABSENCE_TIMEOUT
    if refused_at is not None and is_absent and not engine.is_excused:
        if refused_at - engine.heard_at < PARTITION_DELAY:
            words = f"engine {name} has ended, or lost its NATS servers: it has no connection any more"
            return Gone(engine.beat, True, words)
        return Gone(engine.beat, False, f"engine {name} cannot be reached; it may still run the call")
    silence = now - engine.heard_at
    if silence >= SILENCE_TIMEOUT:
        words = f"engine {name} has not been heard for {silence:.0f} s; it may still run the call"
        return Gone(engine.beat, False, words)
    return None


def encode_beat(beat: Beat) -> bytes:
    return msgspec.json.encode(beat)


_decode: Callable[[bytes], Beat] = msgspec.json.Decoder(Beat).decode


def decode_beat(data: bytes) -> Beat | None:
    """Return a heartbeat; None for what is none."""
    if len(data) > MAX_BEAT:
        return None
    try:
        beat = _decode(data)
    except ValueError:
        return None
    is_named = 0 < len(beat.name) <= 64 and all(map(str.isprintable, (beat.name, beat.host, *beat.labels)))
    return beat if is_named and beat.id.isascii() and beat.id.isalnum() else None
