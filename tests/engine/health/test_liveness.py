"""Which workers are lost and which are only busy, as histories: what a peer did, checked once a second."""

from __future__ import annotations

from dataclasses import dataclass, field

from iii.engine.health.liveness import Liveness
from iii.engine.routing.budget import Budget
from iii.engine.routing.calls import Calls
from iii.engine.routing.invocation import Invocation, Limits
from iii.engine.routing.peer import Peer
from iii.engine.routing.registry import Function, Registry


@dataclass
class Watch:
    """One peer that is checked every second; a real one answers nothing by itself."""

    answers_pings: bool = True
    now: float = 100.0
    calls: Calls = field(
        default_factory=lambda: Calls(
            Registry(), timeout=30.0, limits=Limits(), mint_id=lambda: "minted", budget=Budget()
        )
    )
    peer: Peer = field(default_factory=lambda: Peer("a", kind="worker"))

    def __post_init__(self) -> None:
        self.liveness = Liveness(self.calls)
        self.peer.heard_at = self.now

    def call(self, timeout: float, *, ago: float = 0.0) -> Invocation:
        """Give the peer a call, `ago` seconds before now."""
        function = Function("a::f", "default", self.peer.owner)
        id = f"call {len(self.calls.in_flight)} {self.now}"
        deadline = self.now - ago + timeout
        made = Invocation(id, function, b"", self.peer, deadline, timeout, callee=self.peer)
        self.calls.in_flight[id] = made
        return made

    def end(self, invocation: Invocation) -> None:
        """The peer answers a call."""
        del self.calls.in_flight[invocation.id]
        self.peer.answered += 1
        self.peer.heard_at = self.now

    def pongs(self) -> bool:
        """Read what the peer was sent; whether there was a ping."""
        lines, self.peer.outbox = self.peer.outbox, []
        return lines == [b'{"type":"ping"}']

    def until_lost(self, seconds: int, *, pong: bool = False) -> tuple[float, str] | None:
        """Check once a second; return when it was lost, in seconds from now, and why."""
        began = self.now
        for _ in range(seconds):
            self.now += 1
            for invocation in self.calls.in_flight.values():
                invocation.is_abandoned = invocation.is_abandoned or invocation.deadline <= self.now
            lost = self.liveness.check([(self.peer, self.answers_pings)], self.now)
            if self.pongs() and pong:
                self.peer.heard_at = self.now
            if lost:
                return self.now - began, lost[0][1]
        return None


def test_a_silent_worker_is_pinged_after_five_seconds_and_lost_after_fifteen() -> None:
    watch = Watch()
    assert watch.until_lost(60) == (16, "gave no sign of life for 15 s")  # the first look began the count


def test_a_worker_that_answers_pings_may_be_silent_for_ever() -> None:
    assert Watch().until_lost(600, pong=True) is None


def test_a_busy_worker_is_not_pinged() -> None:
    watch = Watch()
    for _ in range(30):
        watch.peer.heard_at = watch.now
        assert watch.until_lost(4) is None
        assert not watch.peer.outbox


def test_a_worker_without_our_sdk_is_never_asked() -> None:
    assert Watch(answers_pings=False).until_lost(600) is None


def test_a_call_from_before_the_first_ping_excuses_silence_until_its_deadline() -> None:
    watch = Watch()
    watch.call(60.0)
    lost = watch.until_lost(300)
    assert lost is not None
    assert 60 <= lost[0] <= 62


def test_calls_that_come_after_the_first_ping_excuse_nothing() -> None:
    watch = Watch()
    assert watch.until_lost(10) is None
    for _ in range(10):
        watch.call(30.0)
        if lost := watch.until_lost(1):
            break
    assert lost


def test_a_call_past_its_deadline_is_given_ten_seconds_then_its_worker_hangs() -> None:
    watch = Watch()
    watch.call(5.0)
    assert watch.until_lost(60, pong=True) == (15, "ended no call for 10 s and goes on with one that is 10 s overdue")


def test_a_slow_call_within_its_deadline_is_left_alone() -> None:
    watch = Watch()
    slow = watch.call(30.0)
    assert watch.until_lost(29, pong=True) is None
    watch.end(slow)
    assert watch.until_lost(60, pong=True) is None


def test_a_worker_that_goes_on_ending_calls_does_not_hang() -> None:
    watch = Watch()
    watch.call(5.0)
    for _ in range(20):
        other = watch.call(5.0)
        assert watch.until_lost(4, pong=True) is None
        watch.end(other)
    assert watch.until_lost(60, pong=True) is not None


def test_a_call_given_up_by_its_caller_may_run_to_its_own_deadline() -> None:
    watch = Watch()
    watch.call(40.0).is_abandoned = True
    lost = watch.until_lost(300, pong=True)
    assert lost is not None
    assert lost[0] == 50


def test_a_foreign_worker_is_judged_by_deadlines() -> None:
    watch = Watch(answers_pings=False)
    watch.call(5.0)
    assert watch.until_lost(60) is not None


def test_after_a_pause_of_the_engine_every_worker_starts_anew() -> None:
    watch = Watch()
    watch.call(5.0)
    assert watch.until_lost(14) is None
    watch.now += 60
    lost = watch.until_lost(60)
    assert lost is not None
    assert lost[0] >= 10
