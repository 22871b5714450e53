"""Which workers have died inside a living process, and which are merely busy. Pure.

Theory of operation. Two things give a worker away. One that speaks our SDK answers `ping` from a thread that no
handler blocks: when it has sent nothing for a while it is asked, and when it then stays silent it is lost. Any worker
may keep running a call whose deadline has passed: when it ends no call at all for the grace after that, it hangs.
Neither is held against it while a call that it had got before the doubt arose is inside its deadline: a slow handler
is no dead one, even if it lets no other thread run. And a doubt only counts while we look ourselves: after a pause of
the engine (suspended, blocked) everybody starts anew. `heartbeat.py` looks once a second and acts on the verdicts.
"""

from __future__ import annotations

from collections.abc import Iterable

from msgspec import Struct

from iii.engine.routing.calls import Calls
from iii.engine.routing.peer import Peer
from iii.protocol.codec import encode
from iii.protocol.messages import Ping

PING_AFTER = 5.0  # seconds of silence; traffic is a sign of life by itself
LOST_AFTER = 15.0  # seconds of silence, most of them under unanswered pings
HANG_GRACE = 10.0  # seconds after a call's deadline in which its worker has to end this call or another
PAUSE = 3.0  # seconds between two looks that should be one apart: we were not there to hear anybody

_PING = encode(Ping())


class _Doubt(Struct):
    """What is known of one peer between two looks."""

    answered: int = -1
    progress_at: float = 0.0
    pinged_at: float | None = None  # the first ping that is unanswered
    asked_at: float = 0.0  # the last ping


class _Load(Struct):
    """The calls a peer runs: since when the oldest is overdue, and since when it has the oldest that is not."""

    overdue_at: float | None = None
    held_since: float | None = None


class Liveness:
    """The doubts about every worker."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._doubts: dict[Peer, _Doubt] = {}
        self._looked_at = 0.0
        self._awake_since = 0.0

    def __repr__(self) -> str:
        return f"<Liveness {len(self._doubts)} peers>"

    def look(self, peers: Iterable[tuple[Peer, bool]], now: float) -> list[tuple[Peer, str]]:
        """Ping who is silent; return who is lost, and why in words. A peer comes with whether it answers pings."""
        if now - self._looked_at > PAUSE:
            self._awake_since = now
        self._looked_at = now
        loads = self._loads()
        doubts, self._doubts = self._doubts, {}
        lost = []
        for peer, answers_pings in peers:
            doubt = self._doubts[peer] = self._renewed(peer, doubts.get(peer) or _Doubt(), now)
            load = loads.get(peer, _Load())
            if why := self._hangs(doubt, load, now) or (
                self._is_silent(peer, doubt, load, now) if answers_pings else ""
            ):
                lost.append((peer, why))
        return lost

    def _renewed(self, peer: Peer, doubt: _Doubt, now: float) -> _Doubt:
        if peer.answered != doubt.answered:
            doubt.answered, doubt.progress_at = peer.answered, now
        if doubt.pinged_at is not None and max(peer.heard_at, self._awake_since) >= doubt.pinged_at:
            doubt.pinged_at = None
        return doubt

    def _is_silent(self, peer: Peer, doubt: _Doubt, load: _Load, now: float) -> str:
        silence = now - max(peer.heard_at, self._awake_since)
        if silence >= PING_AFTER and now - doubt.asked_at >= PING_AFTER:
            doubt.asked_at = now
            doubt.pinged_at = doubt.pinged_at or now
            self._calls.send(peer, _PING)
        if doubt.pinged_at is None or silence < LOST_AFTER or _is_excused(load, doubt.pinged_at):
            return ""
        return f"gave no sign of life for {silence:.0f} s"

    def _hangs(self, doubt: _Doubt, load: _Load, now: float) -> str:
        if load.overdue_at is None:
            return ""
        since = max(load.overdue_at, doubt.progress_at, self._awake_since)
        if now - since < HANG_GRACE or _is_excused(load, since):
            return ""
        return (
            f"ended no call for {now - since:.0f} s and goes on with one that is {now - load.overdue_at:.0f} s overdue"
        )

    def _loads(self) -> dict[Peer, _Load]:
        loads: dict[Peer, _Load] = {}
        for invocation in self._calls.in_flight.values():
            if invocation.callee is None:
                continue
            load = loads.setdefault(invocation.callee, _Load())
            if not invocation.is_abandoned:
                load.held_since = _earlier(load.held_since, invocation.deadline - invocation.timeout)
            elif invocation.deadline <= self._looked_at:
                # Given up by its caller alone it may still run to its deadline.
                load.overdue_at = _earlier(load.overdue_at, invocation.deadline)
        return loads


def _is_excused(load: _Load, doubted_at: float) -> bool:
    """Whether a call that was there before the doubt may explain it."""
    return load.held_since is not None and load.held_since <= doubted_at


def _earlier(known: float | None, other: float) -> float:
    return other if known is None else min(known, other)
