"""`Runs`: the transactions of the flow worker over one `Store`, and the claim of turns at the end of each.

The next turn of a run is written down in the same commit as what has caused it. That happens on the storage thread, so
a caller that gives up cannot lose a turn that it has made possible. The SQL is in the modules beside this one.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from dataclasses import dataclass
from itertools import zip_longest
from typing import TypeVar

from iii import InvocationError
from stdlib_workers.flow import ends, steps
from stdlib_workers.flow.model import CHILD, Entry, EntryState, Event, Recorded, Run, State
from stdlib_workers.flow.policy import RECOVERY_DELAY_MS, TurnEnd
from stdlib_workers.flow.schema import (
    ACTIVE,
    CALLING,
    WAITING,
    find_entry,
    find_run,
    insert_run,
    iterate_entries,
    move_run,
    read_input,
    replace_input,
    select_entries,
    select_runs,
)
from stdlib_workers.flow.steps import BATCH
from stdlib_workers.flow.transaction import Changes, Limits, Transaction, TurnStart
from stdlib_workers.storage import Pending, Store, TransactionHook

T = TypeVar("T")
Target = tuple[str | None, str]
# Of the journal, what a turn begins with; the rest is asked for.
JOURNAL_BYTES = 256 * 1024


@dataclass(frozen=True, slots=True)
class NewRun:
    """A run before it is stored. `data` is its input, JSON; `timeout_ms` None for no end of its time."""

    id: str
    function_id: str
    namespace: str | None
    data: bytes
    traceparent: str
    timeout_ms: int | None = None
    code: str = ""


class Runs(TransactionHook):
    """All runs of one store. `clock` gives milliseconds; `on_changes` is called on the storage thread after commits.

    `announce` writes the events of a run that has ended, or is blocked, in the same transaction.
    `bound` holds the code of each function that is registered as a flow: turns of no other one begin.
    """

    def __init__(
        self,
        store: Store,
        clock: Callable[[], int],
        limits: Limits,
        turns: int,
        announce: Callable[[Transaction, Run], None] = lambda *_: None,
    ) -> None:
        self._store = store
        self._clock = clock
        self.limits = limits
        self._max_turns = turns
        self._changes = Changes()
        self._may_claim = False
        self._woken: list[int] = []  # runs that time has queued, and that may still wait for a slot
        self.bound: dict[Target, str] = {}
        self.is_stopping = True  # until `recover`
        self.max_calls: Callable[[], int] = lambda: BATCH
        self.on_changes: Callable[[Changes], object] = lambda _: None
        self._announce = announce
        store.attach(self)

    def transact(self, work: Callable[[Transaction], T]) -> Pending[T]:
        """Run `work` in a transaction, at the end of which turns may begin. Await the result: it is durable then."""

        def command(connection: sqlite3.Connection) -> T:
            self._may_claim = True
            return work(self._transaction(connection))

        return self._store.run(command)

    def record(self, work: Callable[[Transaction], T]) -> Pending[T]:
        """As `transact`, for what queues no run."""
        return self._store.run(lambda connection: work(self._transaction(connection)))

    def _transaction(self, connection: sqlite3.Connection) -> Transaction:
        return Transaction(connection, self._clock(), self._changes, self.limits, self._announce)

    # The hook

    def begin(self) -> None:
        self._changes, self._may_claim = Changes(), False

    def finish(self, connection: sqlite3.Connection) -> None:
        """Begin as many turns as there are slots."""
        if self._may_claim and not self.is_stopping:
            self._claim(self._transaction(connection))
            self._woken = still_queued(connection, self._woken)
            self._changes.due = next_due(connection, with_runs=len(self._woken) < BATCH // 2)

    def committed(self) -> None:
        changes, self._changes = self._changes, Changes()
        if changes != self._changes:
            self.on_changes(changes)

    def _claim(self, tx: Transaction) -> None:
        """Begin turns: by turns of runs that time has queued and of others, the oldest run first."""
        taken = tx.connection.execute(f"SELECT count(*) FROM runs WHERE state = 1 AND {ACTIVE}").fetchone()[0]
        while (free := self._max_turns - taken) > 0:
            limit = free + len(self._woken)
            queued = list(select_runs(tx.connection, "state = 0 ORDER BY seq LIMIT ?", (limit,)))
            timed = [run for run in queued if run.seq in self._woken]
            others = [run for run in queued if run.seq not in self._woken]
            in_turn = [run for pair in zip_longest(others, timed) for run in pair if run is not None]
            for run in in_turn[:free]:
                if run.target in self.bound:
                    self._begin_turn(tx, run)
                    taken += 1
                else:
                    run.move(Event.MISSING, State.HELD)
                    move_run(tx.connection, run)
            if len(queued) <= free:
                return

    def _begin_turn(self, tx: Transaction, run: Run) -> None:
        run.move(Event.CLAIMED, State.RUNNING)
        run.turn, run.due, run.code = run.turn + 1, None, self.bound[run.target]
        move_run(tx.connection, run)
        tx.changes.turns.append(turn_start(tx, run))

    # What an earlier process has left

    def recover(self) -> Pending[int]:
        """Queue the runs whose turn the last process left, and let its calls be repeated; returns how many of both.

        Their handlers may not have heard yet that it is gone: all that begins a little later.
        """

        def work(tx: Transaction) -> int:
            left = list(select_runs(tx.connection, f"state = 1 AND {ACTIVE}"))
            for run in left:
                run.move(Event.INTERRUPTED, State.PARKED)
                run.due = tx.now + RECOVERY_DELAY_MS
                move_run(tx.connection, run)
            count = len(left)
            while calls := steps.give_back_calls(tx, tx.now + RECOVERY_DELAY_MS):
                count += calls
            # All functions bind again: held runs are queued when theirs does, and queued ones are looked at now.
            tx.changes.undoing += select_runs(tx.connection, f"state = 5 AND {ACTIVE}")
            return count

        self.is_stopping = False
        return self.transact(work)

    # Runs

    def start(self, new: NewRun, parent: tuple[int, int, Entry] | None = None) -> Pending[tuple[Run, bool]]:
        """Start a run; returns it, and whether it is new. InvocationError `run_conflict`, `flow_limit`, `flow_fenced`.

        `parent`: sequence number, turn and step of the run that asks for it. A step of the kind `start` is done then,
        one of the kind `child` when the run ends.
        """

        def work(tx: Transaction) -> tuple[Run, bool]:
            entry = None
            if parent is not None:
                entry = steps.begin(tx, parent[1], parent[2])
                if entry.state.is_ended and entry.state is not EntryState.DONE:
                    return _no_run(tx, parent[0]), False
            run = find_run(tx.connection, id=new.id)
            if run is not None:
                _check_same(tx, run, new, None if entry is None or entry.kind != CHILD else entry)
                return run, False
            run = Run(0, new.id, new.function_id, new.namespace, None, None, new.traceparent, tx.now, code=new.code)
            if entry is not None and entry.kind == CHILD:
                run.parent, run.parent_key = entry.run, entry.key
            run.deadline = None if new.timeout_ms is None else tx.now + new.timeout_ms
            insert_run(tx.connection, run, new.data)
            return run, True

        return self.transact(work)

    def end_due(self) -> Pending[bool]:
        """Wake the runs whose time has come, begin attempts that are due; tells whether there is more to do at once.

        However many runs are due, no more than a batch of them is queued: none other is behind all.
        """

        def work(tx: Transaction) -> bool:
            free = BATCH - len(self._woken)
            woken = list(select_runs(tx.connection, "state = 2 AND due <= ? ORDER BY due LIMIT ?", (tx.now, free)))
            for run in woken:
                steps.end_due(tx, run)
                tx.queue(run, Event.WOKEN)
                self._woken.append(run.seq)
            where = "deadline IS NOT NULL AND ended IS NULL AND deadline <= ? ORDER BY deadline LIMIT ?"
            late = list(select_runs(tx.connection, where, (tx.now, BATCH)))
            for run in late:
                ends.cancel(tx, run, ends.TIMEOUT, force=run.cancel is not None)
            steps.claim_calls(tx, self.max_calls())
            return len(late) == BATCH

        return self.transact(work)

    def suspend(self, run: Run, told: set[str], turn_end: TurnEnd | None, status: bytes | None) -> Pending[None]:
        """End a turn that the body has not ended. `told`: steps that it was told to wait for.

        `turn_end` says where the run goes if the body did not choose to suspend.
        """

        def work(tx: Transaction) -> None:
            current = tx.running(run.seq, run.turn)
            current.status = status or current.status
            if turn_end is not None:
                current.deaths, current.interrupted = turn_end.deaths, turn_end.interrupted
            if turn_end is None and (not told or steps.is_any_ended(tx, run.seq, told)):
                tx.queue(current, Event.SUSPENDED)
                return
            if turn_end is None:
                current.move(Event.SUSPENDED, State.PARKED)
            else:
                current.move(Event.INTERRUPTED, turn_end.state)
            current.due = steps.next_due(tx, run.seq) if turn_end is None else None
            if turn_end is not None and turn_end.delay_ms:
                current.due = tx.now + turn_end.delay_ms
            move_run(tx.connection, current)

        return self.transact(work)

    def block(self, run: Run, error: bytes, event: Event = Event.DIVERGED) -> Pending[None]:
        """Stop a run whose body does not match its journal, or was interrupted again and again."""

        def work(tx: Transaction) -> None:
            current = tx.running(run.seq, run.turn)
            current.move(event, State.BLOCKED)
            current.error, current.due = error, None
            move_run(tx.connection, current)
            tx.announce(tx, current)

        return self.transact(work)

    def end(
        self, run: Run, leftovers: list[str], *, result: bytes, error: bytes | None = None, status: bytes | None = None
    ) -> Pending[None]:
        """End a run with what its body has returned or, with `error`, raised."""

        def work(tx: Transaction) -> None:
            current = tx.running(run.seq, run.turn)
            current.status = status or current.status
            if error is None:
                ends.complete(tx, current, result, leftovers)
            else:
                ends.fail(tx, current, Event.RAISED, error)

        return self.transact(work)

    def again(self, run: Run, data: bytes) -> Pending[None]:
        """Begin a run anew with another input: an empty journal, the unread events kept."""

        def work(tx: Transaction) -> None:
            current = tx.running(run.seq, run.turn)
            steps.cancel_open(tx, current)
            ends.cancel_children(tx, current, "its parent has begun anew")
            tx.connection.execute("DELETE FROM entries WHERE run = ?", (run.seq,))
            replace_input(tx.connection, current, data)
            current.steps = current.size = current.deaths = current.interrupted = 0
            tx.queue(current, Event.RESTARTED)

        return self.transact(work)

    def fork(self, run_id: str, key: str, new_id: str) -> Pending[Run]:
        """Start a run with the input of another one and the steps that it made before `key`.

        InvocationError `run_not_found`, `step_not_found`, `run_conflict`.
        """

        def work(tx: Transaction) -> Run:
            run = steps.existing(tx, run_id)
            entry = find_entry(tx.connection, run.seq, key)
            if entry is None:
                raise InvocationError(
                    "step_not_found", f"the run {run_id} has no step {key!r}; `iii flow show {run_id}`"
                )
            if find_run(tx.connection, id=new_id) is not None:
                raise InvocationError("run_conflict", f"there is a run {new_id!r} already; give another id")
            fork = Run(0, new_id, run.function_id, run.namespace, None, None, run.traceparent, tx.now, code=run.code)
            insert_run(tx.connection, fork, read_input(tx.connection, run))
            for kept in select_entries(tx.connection, "run = ? AND n < ? ORDER BY n", (run.seq, entry.n)):
                if kept.state in (EntryState.DONE, EntryState.FAILED):
                    kept.run = fork.seq
                    tx.add(fork, kept)
            move_run(tx.connection, fork)
            return fork

        return self.transact(work)

    def wake(self, target: Target, code: str, state: State, after: int) -> Pending[int | None]:
        """Queue runs that a function has kept waiting in this state: those with a sequence number over `after`.

        Some at a time; returns what to go on with, None when these were all.
        """

        def work(tx: Transaction) -> int | None:
            namespace, function_id = target
            where = f"function_id = ? AND state = {int(state)} AND {WAITING} AND seq > ? ORDER BY seq LIMIT ?"
            found = list(select_runs(tx.connection, where, (function_id, after, BATCH)))
            for run in found:
                if run.namespace == namespace and (state is State.HELD or run.code != code):
                    run.error = None
                    tx.queue(run, Event.REGISTERED if state is State.HELD else Event.CHANGED)
            return found[-1].seq if len(found) == BATCH else None

        return self.transact(work)


def turn_start(tx: Transaction, run: Run, *, limit: int | None = JOURNAL_BYTES) -> TurnStart:
    """Return what a turn of a run begins with: its input, and up to `limit` bytes of its journal."""
    recorded = [
        Recorded(*row)
        for row in tx.connection.execute(
            "SELECT key, branch, kind, function_id, source, code FROM entries WHERE run = ? ORDER BY n", (run.seq,)
        )
    ]
    journal, size, is_whole = [], 0, True
    if recorded:
        for entry in iterate_entries(tx.connection, "run = ? ORDER BY n", (run.seq,)):
            size += entry.size
            if limit is not None and size > limit:
                break
            journal.append(entry)
        is_whole = len(journal) == len(recorded)
    return TurnStart(run, read_input(tx.connection, run), recorded, journal, is_whole)


def _check_same(tx: Transaction, run: Run, new: NewRun, child: Entry | None) -> None:
    if child is not None and run.parent != child.run:
        raise InvocationError("run_conflict", f"there is a run {run.id!r} that is no child of this one")
    if run.target != (new.namespace, new.function_id):
        text = f"the run {run.id!r} is one of {run.function_id}; give this one of {new.function_id} another id"
        raise InvocationError("run_conflict", text)
    if read_input(tx.connection, run) != new.data:
        text = f"there is a run {run.id!r} of {run.function_id} with another input; give this one another id"
        raise InvocationError("run_conflict", text)


def _no_run(tx: Transaction, seq: int) -> Run:
    """The parent: it hears of its cancellation in place of starting a run."""
    run = find_run(tx.connection, seq=seq)
    assert run is not None
    return run


def still_queued(connection: sqlite3.Connection, runs: list[int]) -> list[int]:
    """Return which of these runs, a batch at most, wait for a slot of the dispatcher still."""
    if not runs:
        return runs
    marks = ", ".join("?" * len(runs))
    return [seq for (seq,) in connection.execute(f"SELECT seq FROM runs WHERE state = 0 AND seq IN ({marks})", runs)]


def next_due(connection: sqlite3.Connection, *, with_runs: bool = True) -> int | None:
    """Return the least time at which anything is due, or anything but parked runs."""
    row = connection.execute(
        "SELECT (SELECT min(due) FROM runs WHERE state = 2 AND due IS NOT NULL AND ?), "
        "(SELECT min(deadline) FROM runs WHERE deadline IS NOT NULL AND ended IS NULL), "
        f"(SELECT min(due) FROM entries WHERE state = {int(EntryState.RETRYING)} AND {CALLING})",
        (with_runs,),
    ).fetchone()
    return min((due for due in row if due is not None), default=None)
