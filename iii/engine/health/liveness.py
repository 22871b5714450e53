"""Which workers no longer work although their process lives, and which peers do not read what they are sent. Pure.

Theory of operation. Two things show that a worker no longer works. First, silence: our SDK answers `ping` from a thread
that no handler blocks, so a worker that has sent nothing for a while is pinged, and if it stays silent it is lost.
Second, overdue calls: a worker may run a call whose deadline has passed, but if it ends no call at all within a grace
period after that deadline, it hangs.

Neither counts against a worker that has a live call (one inside its deadline) which it got before the first unanswered
ping, or before its overdue call began to count: its handler may be slow, and may even let no other thread run. And time
only counts while the engine itself runs: after a pause (suspended, blocked) it starts anew for every worker.

A peer that does not read costs memory and never answers. The router refuses new calls to it early
(`Limits.unsent_bytes`); `SlowConsumers` is about results, and about what was sent before.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from math import inf

from msgspec import Struct

from iii.engine.routing.calls import Calls
from iii.engine.routing.peer import Peer
from iii.protocol.codec import encode
from iii.protocol.messages import Ping

PING_INTERVAL = 5.0  # seconds of silence before the first ping, and between two; any message is a sign of life
LOST_TIMEOUT = 15.0  # seconds of silence, most of them after unanswered pings
HANG_TIMEOUT = 10.0  # seconds after a call's deadline in which its worker must end this call or another
PAUSE_TIMEOUT = 3.0  # seconds between two checks (they should be 1 s apart) after which the engine was paused itself
# Bytes that may wait for one peer: more than for a peer that writes 50 MB of calls before it reads the first result.
MAX_BACKLOG = 64 * 1024 * 1024
# Checks in a row (one a second) at which a peer may have read nothing. They are counted instead of measured as time,
# because while the whole machine sleeps no peer can read.
MAX_IDLE_CHECKS = 10

_PING = encode(Ping())


class _Observed(Struct):
    """What is remembered of one peer from check to check."""

    answered: int = -1  # the calls it had ended
    progress_at: float = 0.0  # when that number last rose
    pinged_at: float | None = None  # when it got the first ping that is unanswered
    last_ping_at: float = 0.0


class _Load(Struct):
    """The calls that a peer is running."""

    overdue_at: float = inf  # the earliest deadline that has passed
    live_since: float = inf  # when it got the oldest call that is inside its deadline: it excuses what happens later


class Liveness:
    """What is known of every serving worker."""

    def __init__(self, calls: Calls) -> None:
        self._calls = calls
        self._observed: dict[Peer, _Observed] = {}
        self._checked_at = 0.0
        self._awake_since = 0.0

    def check(self, peers: Iterable[tuple[Peer, bool]], now: float) -> list[tuple[Peer, str]]:
        """Ping the silent peers; return the lost ones, each with why. `peers`: each with whether it answers pings."""
        if now - self._checked_at > PAUSE_TIMEOUT:
            self._awake_since = now
        self._checked_at = now
        loads = self._loads()
        previous, self._observed = self._observed, {}
        lost = []
        for peer, answers_pings in peers:
            observed = self._observed[peer] = previous.get(peer) or _Observed()
            if peer.answered != observed.answered:
                observed.answered, observed.progress_at = peer.answered, now
            load = loads.get(peer, _Load())
            why = self._why_hanging(observed, load, now)
            if not why and answers_pings:
                why = self._why_silent(peer, observed, load, now)
            if why:
                lost.append((peer, why))
        return lost

    def _why_silent(self, peer: Peer, observed: _Observed, load: _Load, now: float) -> str:
        heard_at = max(peer.heard_at, self._awake_since)
        silence = now - heard_at
        if observed.pinged_at is not None and heard_at >= observed.pinged_at:
            observed.pinged_at = None
        if silence >= PING_INTERVAL and now - observed.last_ping_at >= PING_INTERVAL:
            observed.last_ping_at = now
            observed.pinged_at = observed.pinged_at or now
            self._calls.send(peer, _PING)
        if observed.pinged_at is None or silence < LOST_TIMEOUT or load.live_since <= observed.pinged_at:
            return ""
        return f"gave no sign of life for {silence:.0f} s"

    def _why_hanging(self, observed: _Observed, load: _Load, now: float) -> str:
        since = max(load.overdue_at, observed.progress_at, self._awake_since)
        if now - since < HANG_TIMEOUT or load.live_since <= since:
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
            if not (invocation.is_abandoned or invocation.is_overdue):
                load.live_since = min(load.live_since, invocation.deadline - invocation.timeout)
            elif invocation.deadline <= self._checked_at:
                # An abandoned call whose deadline has not passed was given up by its caller: the worker may go on.
                load.overdue_at = min(load.overdue_at, invocation.deadline)
        return loads


class SlowConsumers:
    """Remembers how many bytes each peer had read at the last check."""

    def __init__(self) -> None:
        self._progress: dict[Peer, tuple[int, int]] = {}  # bytes read, checks since then

    def check(self, peers: Iterable[Peer], has_live_call: Callable[[Peer], bool]) -> list[tuple[Peer, str]]:
        """Return the peers to disconnect and why.

        A peer with a live call (in flight, inside its deadline) may be busy with it, and is only held to MAX_BACKLOG.
        """
        previous, self._progress = self._progress, {}
        slow = []
        for peer in peers:
            if not peer.unsent_bytes:
                continue
            written, idle_checks = previous.get(peer, (peer.written, -1))
            idle_checks = idle_checks + 1 if written == peer.written else 0
            self._progress[peer] = (peer.written, idle_checks)
            if peer.unsent_bytes > MAX_BACKLOG:
                slow.append((peer, f"does not read its input: {peer.unsent_bytes >> 20} MiB wait for it"))
            elif idle_checks >= MAX_IDLE_CHECKS and not has_live_call(peer):
                slow.append((peer, f"has read nothing of its input for {MAX_IDLE_CHECKS} s"))
        return slow
