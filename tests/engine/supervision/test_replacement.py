"""Generations that replace each other: histories, and a state machine against the laws."""

from __future__ import annotations

import pytest
from hypothesis import settings
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule
from hypothesis.strategies import sampled_from

from iii.engine.supervision import replacement
from iii.engine.supervision.lifecycle import Action, Actual, Desired, Event
from iii.engine.supervision.replacement import InstanceState


def play(history: str, *, exclusive: bool = False) -> tuple[InstanceState, str]:
    """Play `start ready:1 crashed:1 ...`; return the state and the plan as text."""
    state, done = InstanceState(exclusive=exclusive), []
    for word in history.split():
        name, _, generation = word.partition(":")
        if name == "ready":
            state, plan = replacement.ready(state, int(generation))
        elif name == "stale":
            state, plan = replacement.changed_while_starting(state, int(generation))
        elif generation:
            state, plan = replacement.exited(state, int(generation), Event(name.replace("-", " ")))
        else:
            state, plan = replacement.command(state, Event(name))
        done += [f"{action.value}:{number}" for action, number in plan]
    return state, " ".join(done)


UP = "start ready:1"
HISTORIES = [
    ("a change starts the next one beside", f"{UP} changed", "spawn:1 promote:1 spawn:2"),
    ("ready swaps and ends the old one", f"{UP} changed ready:2", "spawn:1 promote:1 spawn:2 promote:2 end:1"),
    ("a broken edit keeps the old one", f"{UP} changed crashed:2", "spawn:1 promote:1 spawn:2 keep:2"),
    (
        "one that has loaded what is no longer there never serves",
        f"{UP} changed stale:2 exited:2 ready:3",
        "spawn:1 promote:1 spawn:2 end:2 keep:2 spawn:3 promote:3 end:1",
    ),
    (
        "... at the first start as well",
        "start stale:1 exited:1 ready:2",
        "spawn:1 end:1 spawn:2 promote:2",
    ),
    (
        "... and of an ended one it does nothing",
        f"{UP} changed ready:2 stale:1",
        "spawn:1 promote:1 spawn:2 promote:2 end:1",
    ),
    (
        "two changes during a reload add one more",
        f"{UP} changed changed changed ready:2",
        "spawn:1 promote:1 spawn:2 promote:2 end:1 spawn:3",
    ),
    (
        "a change during a broken reload starts the fix",
        f"{UP} changed changed crashed:2",
        "spawn:1 promote:1 spawn:2 keep:2 spawn:3",
    ),
    (
        "the old one dies first: the new one is the restart",
        f"{UP} changed crashed:1 ready:2",
        "spawn:1 promote:1 spawn:2 promote:2",
    ),
    (
        "... and what was saved meanwhile is not lost",
        f"{UP} changed changed crashed:1 ready:2",
        "spawn:1 promote:1 spawn:2 promote:2 spawn:3",
    ),
    ("a stop during a reload ends both", f"{UP} changed stop", "spawn:1 promote:1 spawn:2 end:2 end:1"),
    (
        "a late ready of an ended one does nothing",
        f"{UP} changed stop ready:2",
        "spawn:1 promote:1 spawn:2 end:2 end:1",
    ),
    (
        "an ended one's exit does nothing",
        f"{UP} changed ready:2 crashed:1",
        "spawn:1 promote:1 spawn:2 promote:2 end:1",
    ),
    ("a change while starting starts over", "start changed exited:1", "spawn:1 end:1 spawn:2"),
]


@pytest.mark.parametrize(("history", "plan"), [row[1:] for row in HISTORIES], ids=[row[0] for row in HISTORIES])
def test_a_history_leads_to_its_plan(history: str, plan: str) -> None:
    assert play(history)[1] == plan


def test_an_exclusive_worker_stops_before_it_starts() -> None:
    assert play(f"{UP} changed exited:1 ready:2", exclusive=True)[1] == "spawn:1 promote:1 end:1 spawn:2 promote:2"


def test_an_instance_is_settled_when_nothing_is_on_its_way() -> None:
    assert play(UP)[0].is_settled
    assert not play(f"{UP} changed")[0].is_settled
    assert not play("start")[0].is_settled


def test_an_instance_is_empty_only_when_the_last_drained_process_is_gone() -> None:
    state, _ = play(f"{UP} changed ready:2 stop exited:2")
    assert state.lifecycle.actual is Actual.STOPPED
    assert not state.is_empty
    assert replacement.exited(state, 1, Event.CRASHED)[0].is_empty


class Swapping(RuleBasedStateMachine):
    """Any commands, exits and readiness in any order; the processes are a set of numbers."""

    def __init__(self) -> None:
        super().__init__()
        self.state = InstanceState()
        self.alive: set[int] = set()
        self.told_to_end: set[int] = set()
        self.routed: int | None = None
        self.spawned: list[int] = []

    def apply(self, outcome: tuple[InstanceState, replacement.Plan]) -> None:
        self.state, plan = outcome
        for action, generation in plan:
            if action is Action.SPAWN:
                self.spawned.append(generation)
                self.alive.add(generation)
            elif action is Action.PROMOTE:
                assert generation in self.alive
                self.routed = generation
            elif action is Action.END:
                assert generation in self.alive
                self.told_to_end.add(generation)
                self.routed = None if self.routed == generation else self.routed

    @rule(event=sampled_from([Event.START, Event.STOP, Event.RESTART, Event.CHANGED, Event.ELAPSED]))
    def command(self, event: Event) -> None:
        self.apply(replacement.command(self.state, event))

    @rule(exclusive=sampled_from([True, False]))
    def edit_the_rules(self, exclusive: bool) -> None:
        self.state = replacement.replace(self.state, exclusive=exclusive)

    @precondition(lambda self: self.alive)
    @rule(last=sampled_from([True, False]))
    def ready(self, last: bool) -> None:
        self.apply(replacement.ready(self.state, max(self.alive) if last else min(self.alive)))

    @precondition(lambda self: self.alive)
    @rule(last=sampled_from([True, False]), event=sampled_from([Event.CRASHED, Event.GAVE_UP, Event.FINISHED]))
    def exit(self, last: bool, event: Event) -> None:
        generation = max(self.alive) if last else min(self.alive)
        self.alive.discard(generation)
        self.routed = None if self.routed == generation else self.routed
        self.apply(replacement.exited(self.state, generation, event))

    @invariant()
    def it_knows_exactly_the_processes_that_live(self) -> None:
        assert self.state.generations == self.alive

    @invariant()
    def the_routed_one_is_the_serving_one(self) -> None:
        serves = self.state.lifecycle.actual is Actual.READY
        assert self.routed == (self.state.serving if serves else None)

    @invariant()
    def at_most_two_are_not_told_to_end(self) -> None:
        assert len(self.alive - self.told_to_end) <= 2

    @invariant()
    def generations_strictly_rise(self) -> None:
        assert self.spawned == sorted(set(self.spawned))

    def teardown(self) -> None:
        """Whatever happened: a stop and the exits it asks for leave nothing."""
        self.apply(replacement.command(self.state, Event.STOP))
        assert self.alive <= self.told_to_end
        for generation in sorted(self.alive):
            self.alive.discard(generation)
            self.apply(replacement.exited(self.state, generation, Event.EXITED))
        assert self.state.is_empty
        assert self.state.lifecycle.desired is Desired.DOWN
        assert self.state.lifecycle.actual is Actual.STOPPED


TestSwapping = Swapping.TestCase
TestSwapping.settings = settings(max_examples=150, stateful_step_count=30)
