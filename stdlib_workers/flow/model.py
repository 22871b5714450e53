"""The words of the flow worker: a run's states and what moves it between them, the entries of its journal. Pure.

A run is one execution of a flow, a turn one call of its body, an entry of the journal one step. A run's life is the
table `LIFE`; the SQL of the other modules moves rows along that table only. Times are milliseconds since the epoch.
"""

from __future__ import annotations

from dataclasses import dataclass
from enum import Enum, IntEnum


class State(IntEnum):
    """Where a run is. The numbers are in the database: never renumber."""

    QUEUED = 0  # its next turn waits for a slot
    RUNNING = 1  # its body is being called
    PARKED = 2  # waits for a time, an event, a call or a child run; holds nothing in memory
    HELD = 3  # its function is not registered
    BLOCKED = 4  # its code does not match its journal
    UNDOING = 5  # the undo functions of its steps are being called
    COMPLETED = 6
    FAILED = 7
    CANCELLED = 8

    @property
    def is_ended(self) -> bool:
        """Whether the run has its result or its error."""
        return self >= State.COMPLETED


class Event(Enum):
    """What happens to a run."""

    CLAIMED = "claimed"  # a slot is free
    SUSPENDED = "suspended"  # the body has nothing left to do now
    RETURNED = "returned"  # the body has returned
    RAISED = "raised"  # the body has raised, or has died once too often
    DIVERGED = "diverged"  # the body does not match the journal
    MISSING = "missing"  # its function is not registered
    INTERRUPTED = "interrupted"  # or its process has died, or its function is missing
    RESTARTED = "restarted"  # `flow.again`
    WOKEN = "woken"  # due, event, step or child ended
    REGISTERED = "registered"
    CHANGED = "changed"  # the function was bound with other code
    UNDONE = "undone"  # the last undo function has returned, or one of them has failed for good
    RETRIED = "retried"
    CANCELLED = "cancelled"  # or its time is over
    FORCED = "forced"  # as CANCELLED, without a last turn of the body


_ENDS = (State.UNDOING, State.FAILED, State.CANCELLED)

# (state, event) -> the states it may lead to. Everything else is impossible.
LIFE: dict[tuple[State, Event], tuple[State, ...]] = {
    (State.QUEUED, Event.CLAIMED): (State.RUNNING,),
    (State.QUEUED, Event.MISSING): (State.HELD,),
    (State.RUNNING, Event.SUSPENDED): (State.PARKED, State.QUEUED),
    (State.RUNNING, Event.RETURNED): (State.COMPLETED,),
    (State.RUNNING, Event.RAISED): _ENDS,
    (State.RUNNING, Event.DIVERGED): (State.BLOCKED,),
    (State.RUNNING, Event.INTERRUPTED): (State.QUEUED, State.PARKED, State.HELD, State.BLOCKED),
    (State.RUNNING, Event.RESTARTED): (State.QUEUED,),
    (State.PARKED, Event.WOKEN): (State.QUEUED,),
    (State.HELD, Event.REGISTERED): (State.QUEUED,),
    (State.BLOCKED, Event.CHANGED): (State.QUEUED,),
    (State.BLOCKED, Event.RETRIED): (State.QUEUED,),
    (State.UNDOING, Event.UNDONE): (State.FAILED, State.CANCELLED),
    (State.FAILED, Event.RETRIED): (State.QUEUED, State.UNDOING),
    **{
        (state, Event.CANCELLED): (State.HELD if state is State.HELD else State.QUEUED,)
        for state in (State.QUEUED, State.RUNNING, State.PARKED, State.HELD, State.BLOCKED)
    },
    **{
        (state, Event.FORCED): _ENDS for state in (State.QUEUED, State.RUNNING, State.PARKED, State.HELD, State.BLOCKED)
    },
}


class EntryState(IntEnum):
    """Where a step is. The numbers are in the database: never renumber."""

    OPEN = 0  # waits for its time, its event or its child run; or a local step that has begun
    CALLING = 1  # an attempt is being made
    RETRYING = 2  # the next attempt is due later
    DONE = 3
    FAILED = 4
    CANCELLED = 5  # the run was cancelled here

    @property
    def is_ended(self) -> bool:
        """Whether the step has its one outcome."""
        return self >= EntryState.DONE


# Kinds of steps. An entry's kind and function never change, or the code has.
CALL, STEP, SLEEP, WAIT, CHILD, START, PATCH = "call", "step", "sleep", "wait", "child", "start", "patch"
KINDS = (CALL, STEP, SLEEP, WAIT, CHILD, START, PATCH)


class Undo(IntEnum):
    """Where the undoing of a step is. The numbers are in the database: never renumber."""

    NONE = 0
    DUE = 1
    DONE = 2
    FAILED = 3


@dataclass(slots=True)
class Run:
    """A row of `runs` without its input. `cancel`, `status`, `result` and `error` are JSON.

    `steps` and `size` count the journal's entries and bytes. `deadline` is when the run is cancelled, or, once it is,
    ended. `life` grows when calls that are under way must not be recorded any more.
    """

    seq: int
    id: str
    function_id: str
    namespace: str | None
    parent: int | None
    parent_key: str | None
    traceparent: str
    created: int
    state: State = State.QUEUED
    turn: int = 0
    life: int = 0
    due: int | None = None
    deadline: int | None = None
    cancel: bytes | None = None
    deaths: int = 0
    interrupted: int = 0
    code: str = ""
    steps: int = 0
    size: int = 0
    status: bytes | None = None
    result: bytes | None = None
    error: bytes | None = None
    ended: int | None = None

    def move(self, event: Event, state: State) -> None:
        """Go where an event leads. RuntimeError for a move that `LIFE` does not have."""
        if state not in LIFE.get((self.state, event), ()):
            raise RuntimeError(f"the run {self.id} cannot be {state.name} by {event.name}: it is {self.state.name}")
        self.state = state

    @property
    def target(self) -> tuple[str | None, str]:
        """Namespace and id of the function."""
        return self.namespace, self.function_id


@dataclass(slots=True)
class Entry:
    """A row of `entries`: a step of the run `run`. `payload`, `options`, `value` and `error` are JSON.

    `branch` is the path of the branch that the step belongs to, `""` for the body itself. `source` is the `FILE:LINE`
    that asked for the step, `code` the hash of that code. `attempt` counts the calls, `spent` those that failed.
    """

    run: int
    key: str
    branch: str
    n: int
    kind: str
    state: EntryState
    function_id: str | None = None
    payload: bytes | None = None
    options: bytes | None = None
    attempt: int = 0
    spent: int = 0
    due: int | None = None
    undo: str | None = None
    undone: Undo = Undo.NONE
    value: bytes | None = None
    error: bytes | None = None
    source: str | None = None
    code: str = ""
    leftover: int = 0
    started: int = 0
    ended: int | None = None

    @property
    def size(self) -> int:
        """Bytes of what users put into it."""
        return sum(len(part) for part in (self.key, self.payload, self.value, self.error) if part is not None)


@dataclass(frozen=True, slots=True)
class Recorded:
    """What the check of changed code knows of an entry."""

    key: str
    branch: str
    kind: str
    function_id: str | None
    source: str | None = None
    code: str = ""


@dataclass(frozen=True, slots=True)
class Ask:
    """What a body asks for: the step `name` of a branch."""

    name: str
    kind: str
    function_id: str | None = None
    branch: str = ""
    source: str | None = None
    was: str | None = None
