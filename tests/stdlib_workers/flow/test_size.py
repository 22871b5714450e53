"""What runs cost that only wait: nothing that happens to another run does more work because of them."""

from __future__ import annotations

from typing import Any

from iii import Flow
from iii.testing import Engine
from stdlib_workers.flow.model import SLEEP, WAIT, Entry, EntryState, Run, State
from stdlib_workers.flow.runs import NewRun, Runs
from stdlib_workers.flow.schema import SCHEMA, insert_run, write_entry
from stdlib_workers.flow.transaction import Changes, Limits, Transaction
from stdlib_workers.storage import Store
from tests.stdlib_workers.flow.conftest import Scene

# Instructions of SQLite between two counts.
GRAIN = 20


def fill(tx: Transaction, count: int) -> None:
    """Write runs that wait: for an event, for a time that is far away, and for a function that nobody has."""
    for number in range(count):
        state = (State.PARKED, State.PARKED, State.HELD)[number % 3]
        due = tx.now + 10**10 if number % 3 == 1 else None
        function_id = "gone::away" if state is State.HELD else "orders::run"
        run = Run(0, f"old-{number}", function_id, None, None, None, "", tx.now, state, 1, due=due, deadline=due)
        insert_run(tx.connection, run, b"null")
        kind = SLEEP if due else WAIT
        write_entry(tx.connection, Entry(run.seq, "old", "", 1, kind, EntryState.OPEN, due=due))


def work_among(waiting: int) -> dict[str, int]:
    """Return what each thing costs among so many waiting runs, in instructions of SQLite."""
    count = [0]
    costs: dict[str, int] = {}
    with Engine(["flow"]) as iii:
        scene = Scene(iii)
        runs = iii._core.flow_runs

        def step() -> int:
            count[0] += 1
            return 0

        def prepare(tx: Transaction) -> None:
            tx.connection.set_progress_handler(step, GRAIN)
            fill(tx, waiting)

        def cost(what: str) -> None:
            iii.settle()
            costs[what], count[0] = count[0] * GRAIN, 0

        iii.settle()
        runs.record(prepare).result()
        cost("fill")
        scene.offer("stock::take", lambda _: "taken")
        scene.offer("stock::give", lambda _: None)

        @scene.worker.flow("orders::run", timeout="1d")
        def run(flow: Flow, fails: bool) -> Any:
            flow.call("stock::take", undo="stock::give")
            flow.sleep(5)
            answer = flow.wait("go")
            return answer / 0 if fails else answer

        cost("bind")
        for fails in (True, False):
            made = iii.start("orders::run", fails=fails)
            cost(f"start {fails}")
            iii.advance(5)
            cost(f"timer {fails}")
            made.signal("go", 1)
            cost(f"event and end {fails}")
        iii.start("orders::run", fails=False).cancel()
        cost("cancel")
        runs.recover().result()
        cost("recover")
        runs.record(lambda tx: tx.connection.set_progress_handler(None, 0)).result()
    return costs


def test_what_happens_to_a_run_does_not_depend_on_how_many_others_wait() -> None:
    few, many = work_among(30), work_among(3000)
    assert many.pop("fill") > 50 * few.pop("fill")  # it does count
    for what, cost in many.items():
        assert cost < 2 * few[what] + 1000, (what, cost, few[what])


def test_32_many_timers_due_at_once_all_fire_and_hold_up_no_other_run() -> None:
    store = Store(None, SCHEMA)
    runs = Runs(store, lambda: 10**6, Limits(), turns=4)
    runs.bound[None, "orders::run"] = "code"
    begun: list[Run] = []
    dues: list[int | None] = []

    def take(changes: Changes) -> None:
        begun.extend(start.run for start in changes.turns)
        dues.append(changes.due)

    def sleeping(tx: Transaction) -> None:
        for number in range(1000):
            run = Run(0, f"r{number}", "orders::run", None, None, None, "", 0, State.PARKED, 1, due=number + 1)
            insert_run(tx.connection, run, b"null")

    runs.on_changes = take
    runs.record(sleeping).result()
    runs.recover().result()
    runs.end_due().result()
    # Its sequence number is higher than theirs, and it waits for a slot.
    runs.start(NewRun("late", "orders::run", None, b"null", "")).result()
    ended = 0
    while ended < len(begun):
        runs.end(begun[ended], [], result=b"1").result()
        ended += 1
        if begun[ended - 1].id == "late":
            assert ended < 20
        if (due := dues[-1]) is not None and due <= 10**6:  # the timer fires
            runs.end_due().result()
    assert len({run.id for run in begun}) == len(begun) == 1001
    store.close()
