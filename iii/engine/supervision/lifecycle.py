"""The states of a worker's process, as two tables.

Theory of operation. What a worker *should* be is `Desired`: UP or DOWN; only commands change it. What it *is* is
`Actual`. A command first sets the desired state; then the table of that desired state says where the event leads. An
event that has no entry changes nothing: a timer that fires late, or a second exit, needs no special case. Entering a
state has exactly one action, which `ENTER` names. `replacement.py` drives this machine and adds how generations replace
each other; `instance.py` carries out the actions. Pure.
"""

from __future__ import annotations

from enum import Enum

from msgspec import Struct


class Desired(Enum):
    """What a worker should be, by the user's last command."""

    UP = "up"
    DOWN = "down"


class Actual(Enum):
    """What a worker is."""

    STOPPED = "stopped"
    STARTING = "starting"
    READY = "ready"
    STOPPING = "stopping"
    BACKOFF = "backoff"
    FAILED = "failed"


class Event(Enum):
    """What moves a worker from one state to another."""

    START = "start"
    RESTART = "restart"
    STOP = "stop"
    CHANGED = "changed"  # one of its files
    READY_SENT = "ready sent"
    EXITED = "exited"  # because the engine asked it to
    CRASHED = "crashed"  # and may be started again
    GAVE_UP = "gave up"  # crashed too often, or starting again cannot help
    FINISHED = "finished"  # by itself, and the restart policy does not start it again
    ELAPSED = "elapsed"  # the backoff


class Action(Enum):
    """What is done on entering a state, or between two generations."""

    SPAWN = "spawn"
    PROMOTE = "promote"
    END = "end"  # retire, drain, stop
    WAIT = "wait"  # arm the backoff timer
    REFUSE = "refuse"  # calls: the worker has failed
    SETTLE = "settle"  # no process runs any more
    KEEP = "keep"  # the old generation: the new one did not become ready


class Availability(Enum):
    """What a call to the worker meets: a process, a queue until a process is ready, or an error."""

    SERVING = "serving"
    EXPECTED = "expected"
    UNAVAILABLE = "unavailable"


COMMANDS: dict[Event, Desired] = {Event.START: Desired.UP, Event.RESTART: Desired.UP, Event.STOP: Desired.DOWN}

_START_AGAIN = {Event.START: Actual.STARTING, Event.RESTART: Actual.STARTING, Event.CHANGED: Actual.STARTING}
_DIED = {
    Event.CRASHED: Actual.BACKOFF,
    Event.GAVE_UP: Actual.FAILED,
    Event.FINISHED: Actual.STOPPED,
    Event.RESTART: Actual.STOPPING,
    Event.CHANGED: Actual.STOPPING,
}

MOVES: dict[Desired, dict[Actual, dict[Event, Actual]]] = {
    Desired.UP: {
        Actual.STOPPED: _START_AGAIN,
        Actual.STARTING: {Event.READY_SENT: Actual.READY, **_DIED},
        Actual.READY: _DIED,
        Actual.STOPPING: {Event.EXITED: Actual.STARTING},
        Actual.BACKOFF: {Event.ELAPSED: Actual.STARTING, **_START_AGAIN},
        Actual.FAILED: _START_AGAIN,
    },
    Desired.DOWN: {
        Actual.STOPPED: {},
        Actual.STARTING: {Event.STOP: Actual.STOPPING},
        Actual.READY: {Event.STOP: Actual.STOPPING},
        Actual.STOPPING: {Event.EXITED: Actual.STOPPED},
        Actual.BACKOFF: {Event.STOP: Actual.STOPPED},
        Actual.FAILED: {Event.STOP: Actual.STOPPED},
    },
}

ENTER: dict[Actual, Action] = {
    Actual.STOPPED: Action.SETTLE,
    Actual.STARTING: Action.SPAWN,
    Actual.READY: Action.PROMOTE,
    Actual.STOPPING: Action.END,
    Actual.BACKOFF: Action.WAIT,
    Actual.FAILED: Action.REFUSE,
}

_AVAILABLE: dict[Actual, Availability] = {
    Actual.READY: Availability.SERVING,
    **dict.fromkeys((Actual.STARTING, Actual.STOPPING, Actual.BACKOFF), Availability.EXPECTED),
}


class State(Struct, frozen=True):
    """What a worker should be, and what it is."""

    desired: Desired = Desired.DOWN
    actual: Actual = Actual.STOPPED

    @property
    def availability(self) -> Availability:
        """What a call meets now. A call waits for a worker that is starting, or will start again."""
        if self.desired is Desired.DOWN:
            return Availability.UNAVAILABLE
        return _AVAILABLE.get(self.actual, Availability.UNAVAILABLE)


def step(state: State, event: Event) -> tuple[State, Action | None]:
    """Return the state after `event` and the action of entering it, None if nothing was entered."""
    desired = COMMANDS.get(event, state.desired)
    actual = MOVES[desired][state.actual].get(event)
    if actual is None:
        return State(desired, state.actual), None
    return State(desired, actual), ENTER[actual]
