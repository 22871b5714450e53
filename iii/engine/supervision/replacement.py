"""How the generations of one instance replace each other.

Theory of operation. A slot is one instance of a worker. One generation is `serving`; `lifecycle` tells its
state. When a file changes while it is ready, a `candidate` starts beside it. If the candidate becomes ready
it serves and the old one ends; if it dies first, the old one just keeps serving. A change that comes
meanwhile is remembered once (`again`), so that however often somebody saves, at most one more generation
follows. Ended generations stay in `ending` until their process is gone. Pure: every function takes a slot and
returns the next one and what to do.
"""

from __future__ import annotations

from msgspec import Struct, field
from msgspec.structs import replace

from iii.engine.supervision.lifecycle import Action, Actual, Desired, Event, State, step

Plan = tuple[tuple[Action, int], ...]  # what to do, to which generation, in order


class InstanceState(Struct, frozen=True):
    """One instance of a worker. Generations count from 1; 0 means none."""

    exclusive: bool = False  # two generations must not overlap
    state: State = field(default_factory=State)
    generation: int = 0  # the highest so far
    serving: int = 0
    candidate: int = 0
    ending: frozenset[int] = frozenset()
    again: bool = False

    @property
    def generations(self) -> frozenset[int]:
        """Every generation that has, or is about to have, a process."""
        return self.ending | ({self.serving, self.candidate} - {0})

    @property
    def is_settled(self) -> bool:
        """True when nothing is on its way: neither a start nor a stop nor a reload."""
        moving = self.state.actual in (Actual.STARTING, Actual.STOPPING)
        return not moving and not self.candidate

    @property
    def is_empty(self) -> bool:
        """True when no process of this instance is left."""
        return not self.generations


def command(slot: InstanceState, event: Event) -> tuple[InstanceState, Plan]:
    """Apply what somebody wants: START, RESTART, STOP, CHANGED, or ELAPSED of the backoff timer."""
    if event is Event.STOP and slot.candidate:
        return _stop_both(slot)
    can_overlap = slot.state == State(Desired.UP, Actual.READY) and not slot.exclusive
    # A reload that has begun ends as it began, also if the worker was made exclusive meanwhile.
    if event in (Event.CHANGED, Event.RESTART) and (can_overlap or slot.candidate):
        return _start_candidate(slot)
    return _move(slot, event)


def ready(slot: InstanceState, generation: int) -> tuple[InstanceState, Plan]:
    """Apply that the process of `generation` has registered everything."""
    if generation == slot.serving:
        slot, plan = _move(slot, Event.READY_SENT)
    elif generation == slot.candidate:
        slot, plan = _promote_candidate(slot)
    else:
        return slot, ()
    slot, more = _start_again(slot)
    return slot, plan + more


def exited(slot: InstanceState, generation: int, event: Event) -> tuple[InstanceState, Plan]:
    """Apply that a process is gone. `event`: what the restart policy says if nobody had asked it to go."""
    if generation == slot.candidate:
        slot, more = _start_again(replace(slot, candidate=0))
        return slot, ((Action.KEEP, generation), *more)
    if generation != slot.serving:
        return replace(slot, ending=slot.ending - {generation}), ()
    if slot.candidate:
        # The successor is on its way already: it is the restart.
        state = State(slot.state.desired, Actual.STARTING)
        return replace(slot, state=state, serving=slot.candidate, candidate=0), ()
    slot = replace(slot, serving=0)
    return _move(slot, Event.EXITED if slot.state.actual is Actual.STOPPING else event)


def _move(slot: InstanceState, event: Event) -> tuple[InstanceState, Plan]:
    state, action = step(slot.state, event)
    slot = replace(slot, state=state)
    if action is None:
        return slot, ()
    if action is Action.SPAWN:
        generation = slot.generation + 1
        slot = replace(slot, generation=generation, serving=generation)
    return slot, ((action, slot.serving),)


def _start_candidate(slot: InstanceState) -> tuple[InstanceState, Plan]:
    if slot.candidate:
        return replace(slot, again=True), ()
    generation = slot.generation + 1
    return replace(slot, generation=generation, candidate=generation), ((Action.SPAWN, generation),)


def _promote_candidate(slot: InstanceState) -> tuple[InstanceState, Plan]:
    new, old = slot.candidate, slot.serving
    slot = replace(slot, serving=new, candidate=0, ending=slot.ending | {old})
    return slot, ((Action.PROMOTE, new), (Action.END, old))


def _start_again(slot: InstanceState) -> tuple[InstanceState, Plan]:
    if not slot.again or slot.candidate:
        return slot, ()
    return command(replace(slot, again=False), Event.CHANGED)


def _stop_both(slot: InstanceState) -> tuple[InstanceState, Plan]:
    candidate = slot.candidate
    slot = replace(slot, candidate=0, again=False, ending=slot.ending | {candidate})
    slot, plan = _move(slot, Event.STOP)
    return slot, ((Action.END, candidate), *plan)
