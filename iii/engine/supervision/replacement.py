"""How the generations of one instance replace each other. Pure: a state in, the next state and a plan out.

Theory of operation. An instance is one of the parallel processes of a worker. One of its generations is `serving`;
`lifecycle` is the state of that generation. When a file changes while it is ready, a `candidate` starts beside it. If
the candidate becomes ready, it serves from then on and the old generation ends; if it exits first, the old generation
just keeps serving. Changes that arrive while a candidate is starting are remembered as one (`reload_again`), so that
many saves in a row cause at most one more generation. Ended generations stay in `ending` until their process is gone.
"""

from __future__ import annotations

from msgspec import Struct, field
from msgspec.structs import replace

from iii.engine.supervision.lifecycle import Action, Actual, Desired, Event, State, step

Plan = tuple[tuple[Action, int], ...]  # what to do, to which generation, in order


class InstanceState(Struct, frozen=True):
    """The state of one instance. Generations count from 1; 0 means none."""

    exclusive: bool = False  # two generations must not overlap
    lifecycle: State = field(default_factory=State)  # of the serving generation
    generation: int = 0  # the highest so far
    serving: int = 0
    candidate: int = 0
    ending: frozenset[int] = frozenset()
    reload_again: bool = False  # a file has changed since the candidate started

    @property
    def generations(self) -> frozenset[int]:
        """Every generation that has, or is about to have, a process."""
        return self.ending | ({self.serving, self.candidate} - {0})

    @property
    def is_settled(self) -> bool:
        """True when no start, stop or reload is under way."""
        is_moving = self.lifecycle.actual in (Actual.STARTING, Actual.STOPPING)
        return not is_moving and not self.candidate

    @property
    def is_empty(self) -> bool:
        """True when no process of this instance is left."""
        return not self.generations


def command(state: InstanceState, event: Event) -> tuple[InstanceState, Plan]:
    """Apply a command (START, RESTART, STOP), a changed file (CHANGED), or the end of the backoff (ELAPSED)."""
    if event is Event.STOP and state.candidate:
        candidate = state.candidate
        state = replace(state, candidate=0, reload_again=False, ending=state.ending | {candidate})
        state, plan = _move(state, Event.STOP)
        return state, ((Action.END, candidate), *plan)
    can_overlap = state.lifecycle == State(Desired.UP, Actual.READY) and not state.exclusive
    # A reload that has begun ends as it began, also if the worker was made exclusive meanwhile.
    if event not in (Event.CHANGED, Event.RESTART) or not (can_overlap or state.candidate):
        return _move(state, event)
    if state.candidate:
        return replace(state, reload_again=True), ()
    generation = state.generation + 1
    return replace(state, generation=generation, candidate=generation), ((Action.SPAWN, generation),)


def ready(state: InstanceState, generation: int) -> tuple[InstanceState, Plan]:
    """Apply that the process of `generation` has registered everything."""
    plan: Plan
    if generation == state.serving:
        state, plan = _move(state, Event.READY_SENT)
    elif generation == state.candidate:
        old = state.serving
        state = replace(state, serving=generation, candidate=0, ending=state.ending | {old})
        plan = ((Action.PROMOTE, generation), (Action.END, old))
    else:
        return state, ()
    state, more = _reload_again(state)
    return state, plan + more


def changed_while_starting(state: InstanceState, generation: int) -> tuple[InstanceState, Plan]:
    """Apply that files have changed since the process of `generation`, which has become ready, has loaded them."""
    if generation == state.candidate:
        return replace(state, reload_again=True), ((Action.END, generation),)
    if generation == state.serving:
        return _move(state, Event.CHANGED)
    return state, ()


def exited(state: InstanceState, generation: int, event: Event) -> tuple[InstanceState, Plan]:
    """Apply that a process is gone. `event`: what the restart policy says if the engine had not asked it to end."""
    if generation == state.candidate:
        state, more = _reload_again(replace(state, candidate=0))
        return state, ((Action.KEEP, generation), *more)
    if generation != state.serving:
        return replace(state, ending=state.ending - {generation}), ()
    if state.candidate:
        # The candidate is starting already: it is the restart.
        lifecycle = State(state.lifecycle.desired, Actual.STARTING)
        return replace(state, lifecycle=lifecycle, serving=state.candidate, candidate=0), ()
    state = replace(state, serving=0)
    return _move(state, Event.EXITED if state.lifecycle.actual is Actual.STOPPING else event)


def _move(state: InstanceState, event: Event) -> tuple[InstanceState, Plan]:
    lifecycle, action = step(state.lifecycle, event)
    state = replace(state, lifecycle=lifecycle)
    if action is None:
        return state, ()
    if action is Action.SPAWN:
        generation = state.generation + 1
        state = replace(state, generation=generation, serving=generation)
    return state, ((action, state.serving),)


def _reload_again(state: InstanceState) -> tuple[InstanceState, Plan]:
    if not state.reload_again or state.candidate:
        return state, ()
    return command(replace(state, reload_again=False), Event.CHANGED)
