"""Runs in memory: steps, events, timers, starts, limits, undoing and cancellation, as the rows of the contract say."""

from __future__ import annotations

import asyncio
import sqlite3
import time
from collections.abc import Callable
from contextlib import suppress
from functools import partial
from itertools import pairwise
from threading import Event
from typing import Any

import pytest

from iii import AsyncFlow, Flow, FlowCancelled, InvocationError, TriggerAction
from iii.testing import Engine
from stdlib_workers.flow.__main__ import register
from stdlib_workers.flow.model import Event as ModelEvent
from stdlib_workers.flow.model import Run, State
from stdlib_workers.flow.options import options_from
from stdlib_workers.flow.schema import SCHEMA, select_runs
from stdlib_workers.values.clock import WALL_INTERVAL, Clock
from tests.stdlib_workers.flow.conftest import Scene

HOUR = 3600


def refused(scene: Scene, function_id: str, /, **payload: Any) -> str:
    with pytest.raises(InvocationError) as error:
        scene.iii.call(function_id, payload)
    return error.value.code


def until(is_so: Callable[[], bool]) -> None:
    """Ask again and again, each time by a call: what hangs in a handler is not waited for by the engine."""
    give_up = time.monotonic() + 20
    while not is_so():
        assert time.monotonic() < give_up


# Steps


def test_each_step_is_made_once_and_repeated_by_later_turns(scene: Scene) -> None:
    scene.offer("pay::charge", lambda payload: {"paid": payload["amount"]})
    made: list[str] = []

    @scene.worker.flow("orders::run")
    def run(flow: Flow, amount: int) -> list[Any]:
        paid = flow.call("pay::charge", {"amount": amount})
        label = flow.step("label", lambda name: made.append(name) or f"for {name}", "ada")
        flow.sleep("1h")
        again = flow.step("label", lambda: "second")
        return [paid, label, again]

    run_ = scene.iii.start("orders::run", amount=5)
    assert run_.state == "parked"
    assert run_.result(skip=True) == [{"paid": 5}, "for ada", "second"]
    assert scene.called("pay::charge") == [{"amount": 5}]
    assert made == ["ada"]
    assert [step["key"] for step in run_.steps] == ["pay::charge", "label", "sleep", "label#2"]


def test_a_coroutine_function_awaits_the_same_steps(scene: Scene) -> None:
    scene.offer("pay::charge", lambda _: 7)

    @scene.worker.flow("orders::run")
    async def run(flow: AsyncFlow, name: str) -> list[Any]:
        async def local() -> str:
            await asyncio.sleep(0)
            return name

        first = [await flow.call("pay::charge"), await flow.step("local", local)]
        await flow.sleep(60)
        both = await flow.gather(lambda flow: flow.call("pay::charge"), lambda flow: flow.step("a", local))
        return [*first, *both, await flow.map(double, [1, 2, 3])]

    async def double(flow: AsyncFlow, item: int) -> int:
        return await flow.step("double", lambda: item * 2)  # type: ignore[no-any-return]

    run_ = scene.iii.start("orders::run", name="ada")
    assert run_.result(skip=True) == [7, "ada", 7, "ada", [2, 4, 6]]
    assert [step["key"] for step in run_.steps][-3:] != []
    assert {step["key"] for step in run_.steps} >= {"gather/0/pay::charge", "gather/1/a", "double/2/double"}


def test_a_failed_step_fails_the_same_way_in_every_turn(scene: Scene) -> None:
    @scene.worker.flow("orders::run")
    def run(flow: Flow, payload: Any = None) -> list[str]:
        seen = []
        for _ in range(2):
            try:
                flow.step("broken", lambda: 1 / 0)
            except InvocationError as error:
                seen.append(error.code + " " + error.message)
        flow.sleep(5)
        return seen

    assert scene.iii.start("orders::run").result(skip=True) == ["invocation_failed division by zero"] * 2


def test_a_new_step_waits_for_the_recorded_ones_that_another_task_reads_only_then(scene: Scene) -> None:
    @scene.worker.flow("orders::run")
    async def run(flow: AsyncFlow, payload: Any = None) -> list[Any]:
        have_others_ended = asyncio.Event()

        async def slow() -> str:
            await have_others_ended.wait()
            return "slow"

        async def others() -> str:
            values = [await flow.step("a", lambda: "a"), *await flow.map(inner, [1, 2])]
            have_others_ended.set()
            return "".join(values)

        async def inner(flow: AsyncFlow, item: int) -> str:
            return await flow.step("inner", lambda: str(item))  # type: ignore[no-any-return]

        return await asyncio.gather(flow.step("slow", slow), others())

    assert scene.iii.crash_test("orders::run") == 4


def test_time_chance_and_ids_repeat_themselves(scene: Scene) -> None:
    seen: list[tuple[Any, ...]] = []

    @scene.worker.flow("orders::run")
    def run(flow: Flow, payload: Any = None) -> None:
        values = (flow.now(), flow.random.random(), flow.uuid())
        flow.sleep("1h")
        seen.append((*values, flow.now(), flow.uuid()))
        flow.sleep("1h")

    scene.iii.start("orders::run").result(skip=True)
    assert seen[0] == seen[1]
    assert (seen[0][3] - seen[0][0]).total_seconds() == HOUR
    assert seen[0][2] != seen[0][4]


def test_a_result_is_typed_and_a_turn_that_waits_returns_none_of_that_type(scene: Scene) -> None:
    @scene.worker.flow("orders::run")
    def run(flow: Flow, n: int) -> str:
        flow.sleep(5)
        return str(n)

    assert scene.iii.start("orders::run", n=1).result(skip=True) == "1"
    assert scene.iii.failures == []
    [listed] = [row for row in scene.iii.call("engine::functions::list", search="orders::run")["functions"]]
    assert (
        scene.iii.call("engine::functions::info", function_id=listed["function_id"])["response_schema"]["type"]
        == "string"
    )


def test_a_step_that_fails_is_tried_again_with_its_own_budget(scene: Scene) -> None:
    left = [3]

    def flaky(_: Any) -> str:
        left[0] -= 1
        if left[0]:
            raise InvocationError("busy", "try later")
        return "done"

    scene.offer("pay::charge", flaky)

    @scene.worker.flow("orders::run")
    def run(flow: Flow, payload: Any = None) -> Any:
        return flow.call("pay::charge", max_retries=3)

    run_ = scene.iii.start("orders::run")
    assert run_.result(skip=True) == "done"
    assert [step["failures"] for step in run_.steps] == [2]
    left[0] = 9
    failed = scene.iii.start("orders::run", {"second": 1})
    with pytest.raises(InvocationError, match="busy"):
        failed.result(skip=True)
    assert left[0] == 6


def test_a_body_is_not_kept_while_a_call_takes_long_and_gets_its_result(scene: Scene) -> None:
    gate = Event()
    scene.offer("slow::call", lambda _: gate.wait(20))

    @scene.worker.flow("orders::run")
    def run(flow: Flow, payload: Any = None) -> Any:
        return flow.call("slow::call")

    run_ = scene.iii.start("orders::run")
    scene.iii.advance(2)
    until(lambda: run_.state == "parked")
    gate.set()
    until(lambda: run_.state == "completed")
    assert run_.result() is True
    assert len(scene.called("slow::call")) == 1


def test_a_call_that_ends_between_two_turns_is_not_made_again(scene: Scene) -> None:
    """The next turn begins without knowing of it: its body had died before the call was in the journal."""
    in_call, end_call, in_turn, ask = Event(), Event(), Event(), Event()

    def slow(_: Any) -> str:
        in_call.set()
        return "done" if end_call.wait(20) else "late"

    scene.offer("slow::call", slow)

    @scene.worker.flow("orders::run")
    def run(flow: Flow, payload: Any = None) -> Any:
        if in_call.is_set():
            in_turn.set()
            ask.wait(20)
        return flow.call("slow::call")

    run_ = scene.iii.start("orders::run")
    assert in_call.wait(20)
    runs = scene.iii._core.flow_runs
    assert runs is not None
    [current] = runs.record(lambda tx: [*select_runs(tx.connection, "state = 1")]).result(20)
    runs.transact(lambda tx: tx.queue(_interrupted(tx.running(current.seq, 1)), ModelEvent.WOKEN)).result(20)
    scene.iii.advance(0.3)  # for the body of the first turn to end, which it does not
    until(lambda: bool(run_.state) and in_turn.is_set())
    end_call.set()
    until(lambda: [step["state"] for step in run_.get()["steps"]] == ["done"])
    ask.set()
    until(lambda: run_.state == "completed")
    assert run_.result() == "done"
    assert len(scene.called("slow::call")) == 1


def _interrupted(run: Run) -> Run:
    run.move(ModelEvent.INTERRUPTED, State.PARKED)
    return run


def test_what_a_body_has_read_of_its_journal_is_told_whatever_it_does_next(scene: Scene) -> None:
    @scene.worker.flow("orders::run")
    def run(flow: Flow, payload: Any = None) -> str:
        flow.step("a", lambda: 1)
        flow.sleep(5)
        flow.status("halfway")
        flow.step("b", lambda: 2)
        flow.sleep(5)
        flow.token("go")
        return flow.step("c", lambda: "done")  # type: ignore[no-any-return]

    assert scene.iii.start("orders::run").result(skip=True) == "done"


# Starting


def test_12_two_starts_of_one_id_are_one_run(scene: Scene) -> None:
    @scene.worker.flow("orders::run", id_field="order.id")
    def run(flow: Flow, order: dict[str, Any]) -> str:
        flow.sleep(5)
        return "done"

    first = scene.iii.call("flow::start", {"function_id": "orders::run", "payload": {"order": {"id": 7}}})
    second = scene.iii.call("flow::start", {"function_id": "orders::run", "payload": {"order": {"id": 7}}})
    assert (first, second) == ({"run": "7", "started": True}, {"run": "7", "started": False})


def test_13_another_input_for_the_same_id_is_a_conflict(scene: Scene) -> None:
    @scene.worker.flow("orders::run")
    def run(flow: Flow, n: int) -> int:
        return n

    scene.iii.start("orders::run", id="a", n=1)
    assert refused(scene, "flow::start", function_id="orders::run", payload={"n": 2}, id="a") == "run_conflict"
    assert scene.iii.start("orders::run", id="a", n=1).result() == 1


def test_a_plain_call_waits_for_the_result_and_an_action_for_the_receipt(scene: Scene) -> None:
    @scene.worker.flow("orders::run", timeout="1d")
    def run(flow: Flow, n: int) -> int:
        if n < 0:
            raise InvocationError("negative", "give more")
        return n + 1

    scene.iii.settle()
    assert scene.iii.call("orders::run", n=1) == 2
    with pytest.raises(InvocationError, match="negative: give more"):
        scene.iii.call("orders::run", n=-1)
    request = {"function_id": "orders::run", "payload": {"n": 3}, "action": TriggerAction.of("flow", id="x")}
    assert scene.worker.trigger(request) == {"run": "x", "started": True}  # type: ignore[arg-type]
    assert scene.iii.call("flow::result", {"run": "x"}) == 4


def test_14_the_deadline_of_a_caller_ends_the_waiting_only(scene: Scene) -> None:
    @scene.worker.flow("orders::run", id_field="id")
    def run(flow: Flow, id: str) -> str:
        flow.sleep("1h")
        return "done"

    scene.iii.settle()
    caller = scene.iii.worker("caller")
    request = {"function_id": "orders::run", "payload": {"id": "a"}, "timeout_ms": 200}
    with pytest.raises(InvocationError, match="TIMEOUT"):
        scene.iii._core.wait_moving(caller.trigger_async(request))  # type: ignore[arg-type]
    assert scene.iii.call("flow::get", {"run": "a"})["state"] == "parked"
    scene.iii.advance(HOUR)
    assert scene.iii.call("flow::result", {"run": "a"}) == "done"


def test_a_function_that_is_no_flow_and_a_run_that_is_none_are_named(scene: Scene) -> None:
    scene.offer("pay::charge")
    assert refused(scene, "flow::start", function_id="pay::charge") == "flow_not_found"
    for name in ("get", "result", "retry", "cancel", "export"):
        assert refused(scene, f"flow::{name}", run="nobody") == "run_not_found"


# Events


def waiting(scene: Scene, **options: Any) -> None:
    @scene.worker.flow("orders::run")
    def run(flow: Flow, n: int = 0) -> Any:
        flow.sleep(10)
        return flow.wait("approved", **options)


def test_07_an_event_before_its_wait_is_taken(scene: Scene) -> None:
    waiting(scene)
    run = scene.iii.start("orders::run")
    run.signal("approved", {"by": "ada"})
    assert run.get()["unread"] == ["approved"]
    assert run.result(skip=True) == {"by": "ada"}
    assert run.get()["unread"] == []


def test_08_of_an_event_and_a_timeout_at_once_one_wins_and_a_late_event_stays_unread(scene: Scene) -> None:
    waiting(scene, timeout=30, default="late")
    run = scene.iii.start("orders::run")
    scene.iii.advance(40)
    assert run.result() == "late"
    early = scene.iii.start("orders::run", n=1)
    scene.iii.advance(39.999)
    early.signal("approved", "in time")
    assert early.result() == "in time"


def test_a_wait_without_default_fails_after_its_timeout(scene: Scene) -> None:
    waiting(scene, timeout=30)
    with pytest.raises(InvocationError, match="flow_timeout: no event approved has come in time"):
        scene.iii.start("orders::run").result(skip=True)


def test_09_an_event_that_is_sent_twice_with_one_id_is_one(scene: Scene) -> None:
    waiting(scene)
    run = scene.iii.start("orders::run")
    event = {"run": run.id, "event": "other", "id": "e1"}
    assert scene.iii.call("flow::signal", event) == {"run": run.id, "accepted": True}
    assert scene.iii.call("flow::signal", event) == {"run": run.id, "accepted": False}
    assert run.get()["unread"] == ["other"]


def test_10_an_event_for_an_ended_or_unknown_run_is_refused(scene: Scene) -> None:
    waiting(scene)
    run = scene.iii.start("orders::run")
    run.signal("approved")
    run.result(skip=True)
    assert refused(scene, "flow::signal", run=run.id, event="approved") == "run_ended"
    assert refused(scene, "flow::signal", run="nobody", event="approved") == "run_not_found"


def test_of_several_events_the_first_is_taken_with_its_name_and_all_in_order(scene: Scene) -> None:
    @scene.worker.flow("orders::run")
    def run(flow: Flow, payload: Any = None) -> list[Any]:
        return [flow.wait(["paid", "refused"]), flow.wait(["paid", "refused"]), flow.wait("paid")]

    run_ = scene.iii.start("orders::run")
    for number, event in enumerate(("refused", "paid", "paid")):
        run_.signal(event, number)
    assert run_.result() == [{"event": "refused", "payload": 0}, {"event": "paid", "payload": 1}, 2]


def test_a_token_stands_for_run_and_event_and_no_other_text_does(scene: Scene) -> None:
    tokens: list[str] = []

    @scene.worker.flow("orders::run")
    def run(flow: Flow, payload: Any = None) -> Any:
        tokens.append(flow.token("approved"))
        return flow.wait("approved")

    run_ = scene.iii.start("orders::run")
    other = "B" if tokens[0].startswith("A") else "A"
    for wrong in (tokens[0][:-3], other + tokens[0][1:], "", "é"):
        assert refused(scene, "flow::signal", token=wrong) == "invalid_token"
    scene.iii.call("flow::signal", {"token": tokens[0], "payload": "yes"})
    assert run_.result() == "yes"
    assert tokens[0] == tokens[1]


def test_any_trigger_sends_events_by_its_metadata(scene: Scene) -> None:
    waiting(scene)
    run = scene.iii.start("orders::run", id="order-7")
    metadata = {"event": "approved", "run_field": "key"}
    scene.worker.trigger({"function_id": "flow::signal", "payload": {"key": "order-7", "n": 1}, "metadata": metadata})
    assert run.result(skip=True) == {"key": "order-7", "n": 1}
    with pytest.raises(InvocationError, match="has no key, which names the run"):
        scene.worker.trigger({"function_id": "flow::signal", "payload": {}, "metadata": metadata})


# What a body does wrong


def test_15_a_body_that_swallows_its_park_and_returns_has_not_ended(scene: Scene) -> None:
    turns: list[int] = []

    @scene.worker.flow("orders::run")
    def run(flow: Flow, payload: Any = None) -> str:
        turns.append(1)
        try:
            flow.sleep("1h")
        except BaseException:  # noqa: BLE001 - what this is about
            return "too early"
        return "in time"

    run_ = scene.iii.start("orders::run")
    assert run_.state == "parked"
    assert run_.result(skip=True) == "in time"
    assert len(turns) == 2


def bound(scene: Scene, function_id: str, body: Any, **options: Any) -> Any:
    """Bind a body that the test changes, under the code that the test names."""
    holder = {"body": body}

    def run(flow: Flow, payload: Any = None) -> Any:
        return holder["body"](flow)

    scene.worker.flow(function_id, code="v1", **options)(run)
    return holder


def rebind(scene: Scene, function_id: str, code: str, **config: Any) -> None:
    scene.worker.register_trigger({"type": "flow", "function_id": function_id, "config": {"code": code, **config}})
    scene.iii.settle()


def v1(flow: Flow) -> str:
    flow.step("a", lambda: 1)
    flow.step("b", lambda: 2)
    flow.wait("go")
    return "v1"


def test_a_step_under_way_is_finished_by_old_code_and_the_next_is_made_by_new(scene: Scene) -> None:
    made: list[str] = []

    def reload() -> int:
        scene.worker.register_trigger(
            {"type": "flow", "function_id": "orders::run", "config": {"code": "v2"}}
        )  # answers once the flow worker knows of it
        holder["body"] = new
        return 1

    def old(flow: Flow) -> str:
        flow.step("a", reload)
        flow.step("b", lambda: made.append("old"))
        return "old"

    def new(flow: Flow) -> str:
        flow.step("a", lambda: made.append("a again"))
        flow.step("b", lambda: made.append("new"))
        return "new"

    holder = bound(scene, "orders::run", old)
    assert scene.iii.start("orders::run").result() == "new"
    assert made == ["new"]


def removed(flow: Flow) -> str:
    flow.step("b", lambda: 2)
    flow.wait("go")
    return "removed"


def renamed(flow: Flow) -> str:
    flow.step("x", lambda: 1)
    flow.step("b", lambda: 2)
    flow.wait("go")
    return "renamed"


def swapped(flow: Flow) -> str:
    flow.call("a")
    flow.step("b", lambda: 2)
    flow.wait("go")
    return "swapped"


def shortened(flow: Flow) -> str:
    flow.step("a", lambda: 1)
    return "shortened"


@pytest.mark.parametrize("edited", [removed, renamed, swapped, shortened])
def test_16_a_removed_renamed_or_swapped_step_blocks_the_run_and_17_old_code_goes_on(scene: Scene, edited: Any) -> None:
    holder = bound(scene, "orders::run", v1)
    run = scene.iii.start("orders::run")
    holder["body"] = edited
    rebind(scene, "orders::run", "v2")
    steps = [step["key"] for step in run.steps]
    run.signal("go")
    scene.iii.advance(1)  # where tasks of a branch ask at once, the others have a moment
    assert run.state == "blocked"
    error = run.get()["error"]
    assert error["code"] == "flow_changed"
    for part in ("test_runs.py:", "(code v1)", "(code v2)", "flow fork", 'on_change="continue"', "flow.patched"):
        assert part in error["message"]
    assert [step["key"] for step in run.steps] == steps
    holder["body"] = v1
    rebind(scene, "orders::run", "v3")
    assert run.result() == "v1"


def test_code_that_is_saved_during_a_turn_that_will_be_blocked_is_tried(scene: Scene) -> None:
    holder = bound(scene, "orders::run", v1)
    run = scene.iii.start("orders::run")
    in_turn, gate = Event(), Event()

    def broken(flow: Flow) -> str:
        in_turn.set()
        gate.wait(20)
        return removed(flow)

    holder["body"] = broken
    rebind(scene, "orders::run", "v2")
    run.signal("go")
    until(lambda: bool(run.state) and in_turn.is_set())
    holder["body"] = v1
    rebind(scene, "orders::run", "v3")
    gate.set()
    scene.iii.advance(1)  # as above
    until(lambda: run.state in ("completed", "blocked"))
    assert run.result() == "v1"


def test_edits_on_purpose_are_taken(scene: Scene) -> None:
    holder = bound(scene, "orders::run", v1)
    old, new = scene.iii.start("orders::run"), None

    def patched(flow: Flow) -> list[Any]:
        first = flow.step("first", lambda: 9, was="a")
        asked = flow.patched("ask-twice") and flow.step("asked", lambda: True)
        flow.step("b", lambda: 2)
        flow.wait("go")
        return [first, asked]

    holder["body"] = patched
    rebind(scene, "orders::run", "v2")
    old.signal("go")
    assert old.result() == [1, False]
    new = scene.iii.start("orders::run", {"new": 1})
    new.signal("go")
    assert new.result() == [9, True]


def test_with_continue_recorded_steps_are_skipped_and_listed(scene: Scene) -> None:
    holder = bound(scene, "orders::run", v1)
    run = scene.iii.start("orders::run")
    holder["body"] = removed
    rebind(scene, "orders::run", "v2", on_change="continue")
    run.signal("go")
    assert run.result() == "removed"
    assert [step["key"] for step in run.steps if step.get("leftover")] == ["a"]


def test_18_a_body_that_takes_another_way_by_chance_is_nondeterministic(scene: Scene) -> None:
    ways = iter("abab")
    bound(scene, "orders::run", lambda flow: (flow.step(next(ways), lambda: 1), flow.wait("go")))
    run = scene.iii.start("orders::run")
    run.signal("go")
    scene.iii.advance(1)
    assert run.state == "blocked"
    assert run.get()["error"]["code"] == "flow_nondeterministic"
    assert scene.iii.call("flow::retry", {"run": run.id})["state"] == "queued"
    assert run.state == "completed"


def test_19_a_gather_that_ends_in_another_order_has_the_same_results(scene: Scene) -> None:
    gates = [Event(), Event()]
    scene.offer("slow::call", lambda index: gates[index].wait(20) and index)

    @scene.worker.flow("orders::run")
    def run(flow: Flow, n: int) -> list[Any]:
        return flow.map("slow::call", [0, 1])

    results = []
    for order in ((0, 1), (1, 0)):
        for gate in gates:
            gate.clear()
        run_ = scene.iii.start("orders::run", n=order[0])
        for index in order:
            gates[index].set()
        until(lambda run_=run_: run_.state == "completed" or scene.iii.advance(0.5))
        results.append(run_.result())
    assert results == [[0, 1], [0, 1]]


def test_20_one_name_in_two_tasks_is_ambiguous(scene: Scene) -> None:
    @scene.worker.flow("orders::run")
    async def run(flow: AsyncFlow, payload: Any = None) -> Any:
        return await asyncio.gather(flow.step("a", lambda: 1), flow.step("a", lambda: 2))

    with pytest.raises(InvocationError, match="flow_step_ambiguous"):
        scene.iii.start("orders::run").result()


def test_tasks_of_one_branch_may_ask_for_steps_of_different_names(scene: Scene) -> None:
    gate = Event()
    scene.offer("slow::call", lambda _: gate.wait(20))

    @scene.worker.flow("orders::run")
    async def run(flow: AsyncFlow, payload: Any = None) -> Any:
        return await asyncio.gather(flow.call("slow::call"), flow.step("b", lambda: 2))

    run_ = scene.iii.start("orders::run")
    scene.iii.advance(2)
    until(lambda: run_.state == "parked")
    gate.set()
    until(lambda: run_.state == "completed")
    assert run_.result() == [True, 2]


def test_21_a_result_of_two_megabytes_is_refused_and_not_recorded(scene: Scene) -> None:
    scene.offer("big::call", lambda _: "x" * 2 * 1024 * 1024)

    @scene.worker.flow("orders::run")
    def run(flow: Flow, local: bool) -> Any:
        return flow.step("big", lambda: "x" * 2 * 1024 * 1024) if local else flow.call("big::call")

    for local in (True, False):
        run_ = scene.iii.start("orders::run", local=local)
        with pytest.raises(InvocationError, match="flow_limit"):
            run_.result()
        assert run_.steps == []


class Disk(sqlite3.Connection):
    """A connection to a disk that may have no room."""

    is_full = False

    def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
        if Disk.is_full and sql.startswith(("INSERT", "UPDATE", "DELETE")):
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error
        return super().execute(sql, *arguments)


def test_22_a_step_that_finds_the_disk_full_is_repeated_when_there_is_room(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=Disk))
    monkeypatch.setattr(Disk, "is_full", False)
    made: list[int] = []

    def fill() -> int:
        made.append(len(made))
        Disk.is_full = len(made) == 1
        return len(made)

    with Engine(["flow"]) as iii:
        scene = Scene(iii)

        @scene.worker.flow("orders::run")
        def run(flow: Flow, n: int) -> list[int]:
            return [flow.step("first", lambda: n), flow.step("fill", fill)]

        run_ = iii.start("orders::run", n=7)
        assert made == [0]
        assert refused(scene, "flow::start", function_id="orders::run", payload={"n": 8}) == "storage_full"
        assert refused(scene, "flow::cancel", run=run_.id) == "storage_full"
        iii.advance(5)
        assert (run_.state, [step["key"] for step in run_.steps]) == ("running", ["first"])
        Disk.is_full = False
        iii.advance(5)
        assert run_.result() == [7, 2]
        assert made == [0, 1]


def test_the_limits_of_a_run_hold() -> None:
    with Engine({"flow": {"max_steps": 3, "max_unread_events": 2, "max_value_bytes": 2048}}) as iii:
        scene = Scene(iii)

        @scene.worker.flow("orders::run")
        def run(flow: Flow, n: int) -> None:
            for index in range(n):
                flow.step("s", lambda index=index: index)
            flow.wait("go")

        full = iii.start("orders::run", n=5)
        with pytest.raises(InvocationError, match=r"flow_limit.*3 steps.*flow.again"):
            full.result()
        waiting_ = iii.start("orders::run", n=0)
        for _ in range(2):
            waiting_.signal("other")
        assert refused(scene, "flow::signal", run=waiting_.id, event="other") == "flow_limit"
        assert refused(scene, "flow::signal", run=waiting_.id, event="go", payload="x" * 3000) == "flow_limit"
        big = {"n": 0, "text": "x" * 3000}
        assert refused(scene, "flow::start", function_id="orders::run", payload=big) == "flow_limit"


# Undoing and cancelling


def saga(scene: Scene) -> None:
    scene.offer("pay::charge", lambda payload: {"id": payload})
    scene.offer("pay::refund")
    scene.offer("stock::take", lambda _: "taken")
    scene.offer("stock::give")

    @scene.worker.flow("orders::run")
    def run(flow: Flow, how: str) -> Any:
        flow.call("pay::charge", 1, undo="pay::refund")
        flow.call("stock::take", 2, undo="stock::give")
        flow.step("label", lambda name: name.upper(), "x", undo="pay::refund")
        if how == "raise":
            raise InvocationError("sold_out", "nothing left")
        try:
            flow.wait("go")
        except FlowCancelled:
            flow.step("cleanup", lambda: "tidy")
            if how == "swallow":
                return "all the same"
            raise
        return "done"


UNDONE = [
    ("pay::refund", {"input": ["x"], "result": "X"}),
    ("stock::give", {"input": 2, "result": "taken"}),
    ("pay::refund", {"input": 1, "result": {"id": 1}}),
]


def test_a_body_that_raises_is_undone_latest_first(scene: Scene) -> None:
    saga(scene)
    run = scene.iii.start("orders::run", how="raise")
    with pytest.raises(InvocationError, match="sold_out: nothing left") as error:
        run.result()
    assert error.value.details == {"run": run.id, "state": "failed"}
    assert scene.calls[2:] == UNDONE
    assert refused(scene, "flow::retry", run=run.id) == "not_retryable"


def test_24_a_cancelled_run_cleans_up_is_undone_and_its_callers_hear(scene: Scene) -> None:
    saga(scene)
    run = scene.iii.start("orders::run", how="wait")
    run.cancel("sold out")
    assert run.state == "cancelled"
    assert scene.calls[2:] == UNDONE
    assert [(step["key"], step["state"]) for step in run.steps][-2:] == [("go", "cancelled"), ("cleanup", "done")]
    with pytest.raises(InvocationError, match=r"run_cancelled.*sold out"):
        run.result()
    assert refused(scene, "flow::cancel", run=run.id) == "run_ended"


def test_a_body_that_returns_although_it_was_cancelled_is_completed(scene: Scene) -> None:
    saga(scene)
    run = scene.iii.start("orders::run", how="swallow")
    run.cancel()
    assert run.result() == "all the same"
    assert scene.calls[2:] == []


def test_a_forced_cancel_skips_the_last_turn_and_not_the_undoing(scene: Scene) -> None:
    saga(scene)
    run = scene.iii.start("orders::run", how="swallow")
    run.cancel(force=True)
    assert run.state == "cancelled"
    assert "cleanup" not in [step["key"] for step in run.steps]
    assert scene.calls[2:] == UNDONE


def test_24_a_call_under_way_and_children_are_cancelled_with_the_run(scene: Scene) -> None:
    heard = Event()

    async def forever(_: Any) -> None:
        try:
            await asyncio.Event().wait()
        except asyncio.CancelledError:
            heard.set()
            raise

    scene.worker.register_function("slow::call", forever)

    @scene.worker.flow("orders::child")
    def child(flow: Flow, n: int) -> Any:
        return flow.wait("never")

    @scene.worker.flow("orders::run")
    def run(flow: Flow, n: int) -> Any:
        return flow.gather(lambda flow: flow.call("slow::call"), lambda flow: flow.call("orders::child", {"n": 1}))

    run_ = scene.iii.start("orders::run", n=1)
    scene.iii.advance(2)
    until(lambda: run_.state == "parked")
    runs = {row["function_id"]: row["run"] for row in scene.iii.call("flow::list")["runs"]}
    run_.cancel()
    assert heard.wait(10)
    until(lambda: run_.state == "cancelled")
    assert scene.iii.call("flow::get", {"run": runs["orders::child"]})["state"] == "cancelled"


def test_the_timeout_of_a_flow_cancels_and_then_fails_the_run(scene: Scene) -> None:
    heard: list[str] = []

    @scene.worker.flow("orders::run", timeout="1h")
    def run(flow: Flow, payload: Any = None) -> Any:
        try:
            return flow.wait("never")
        except FlowCancelled:
            heard.append("cancelled")
            raise

    run_ = scene.iii.start("orders::run")
    scene.iii.advance(HOUR)
    assert heard == ["cancelled"]
    with pytest.raises(InvocationError, match="flow_timeout"):
        run_.result()
    assert run_.state == "failed"


def test_a_cleanup_that_takes_too_long_is_ended(scene: Scene) -> None:
    @scene.worker.flow("orders::run")
    def run(flow: Flow, payload: Any = None) -> Any:
        try:
            return flow.wait("never")
        finally:
            flow.sleep("1h")

    run_ = scene.iii.start("orders::run")
    run_.cancel()
    assert run_.state == "parked"
    scene.iii.advance(60)
    assert run_.state == "cancelled"


def test_27_a_charge_that_times_out_is_undone_with_null(scene: Scene) -> None:
    async def forever(_: Any) -> None:
        await asyncio.Event().wait()

    scene.worker.register_function("pay::charge", forever)
    scene.offer("pay::refund")

    @scene.worker.flow("orders::run")
    def run(flow: Flow, payload: Any = None) -> Any:
        return flow.call("pay::charge", {"amount": 1}, undo="pay::refund", max_retries=1, timeout_ms=5000)

    run_ = scene.iii.start("orders::run")
    with pytest.raises(InvocationError, match="TIMEOUT"):
        run_.result(skip=True)
    assert scene.called("pay::refund") == [{"input": {"amount": 1}, "result": None}]


def test_a_step_that_has_answered_with_an_error_is_not_undone(scene: Scene) -> None:
    def broken(_: Any) -> None:
        raise InvocationError("no", "never")

    scene.offer("pay::charge", broken)
    scene.offer("pay::refund")

    @scene.worker.flow("orders::run")
    def run(flow: Flow, payload: Any = None) -> Any:
        return flow.call("pay::charge", undo="pay::refund", max_retries=1)

    run_ = scene.iii.start("orders::run")
    with pytest.raises(InvocationError, match="no: never"):
        run_.result()
    assert scene.called("pay::refund") == []


def test_an_undo_that_fails_for_good_ends_the_run_and_retry_goes_on_there(scene: Scene) -> None:
    broken = [True]

    def give(_: Any) -> None:
        if broken[0]:
            raise InvocationError("closed", "the shop is closed")

    scene.offer("stock::take")
    scene.offer("stock::give", give)

    @scene.worker.flow("orders::run")
    def run(flow: Flow, payload: Any = None) -> Any:
        flow.call("stock::take", 1, undo="stock::give")
        raise InvocationError("sold_out", "nothing left")

    run_ = scene.iii.start("orders::run")
    assert run_.state == "undoing"
    scene.iii.advance(600)
    with pytest.raises(InvocationError, match=r"undo_failed.*stock::give.*closed"):
        run_.result()
    broken[0] = False
    assert scene.iii.call("flow::retry", {"run": run_.id})["state"] == "undoing"
    scene.iii.settle()
    with pytest.raises(InvocationError, match="sold_out"):
        run_.result()


# Queues


def test_a_call_through_a_queue_is_a_job_of_it_with_all_its_limits() -> None:
    config = {"queue_configs": {"mail": {"throttle": {"limit": 1, "period_ms": 60_000}, "max_retries": 1}}}
    with Engine({"flow": {}, "queue": config}) as iii:
        scene = Scene(iii)
        sent: list[tuple[Any, Any, float]] = []

        def send(payload: Any, metadata: Any) -> Any:
            sent.append((payload, metadata["iii.flow"]["key"], iii.now.timestamp()))
            if payload == "broken":
                raise InvocationError("no_address", "nobody there")
            return f"{payload} sent"

        scene.worker.register_function("mail::send", send)

        @scene.worker.flow("orders::run")
        def run(flow: Flow, texts: list[str]) -> list[str]:
            return flow.gather(
                *(
                    lambda flow, text=text: flow.call("mail::send", text, queue="mail", undo="mail::send")
                    for text in texts
                )
            )

        run_ = iii.start("orders::run", id="r", texts=["a", "b", "c"])
        iii.advance(5)
        assert (run_.state, len(sent)) == ("parked", 1)  # and holds no slot while its jobs wait
        assert sorted(run_.result(skip=True)) == ["a sent", "b sent", "c sent"]
        assert {key for _, key, _ in sent} == {f"r/gather/{n}/mail::send" for n in range(3)}
        times = [time for *_, time in sent]
        assert all(later - earlier >= 60 for earlier, later in pairwise(times))
        broken = iii.start("orders::run", id="s", texts=["broken"])
        with pytest.raises(InvocationError, match="no_address"):
            broken.result(skip=True)


# Children, again, retry, fork


def test_a_child_run_is_waited_for_and_its_error_is_the_steps(scene: Scene) -> None:
    @scene.worker.flow("orders::child")
    def child(flow: Flow, n: int) -> int:
        flow.sleep(5)
        if n < 0:
            raise InvocationError("negative", "give more")
        return n * 2

    @scene.worker.flow("orders::run")
    def run(flow: Flow, n: int) -> list[Any]:
        detached = flow.start("orders::child", {"n": 1}, id="own")
        try:
            return [detached, flow.call("orders::child", {"n": n})]
        except InvocationError as error:
            return [detached, error.code]

    assert scene.iii.start("orders::run", n=4).result(skip=True) == [{"run": "own"}, 8]
    assert scene.iii.start("orders::run", n=-4).result(skip=True) == [{"run": "own"}, "negative"]
    assert scene.iii.call("flow::result", {"run": "own"}) == 2


def test_again_begins_an_empty_journal_and_keeps_unread_events(scene: Scene) -> None:
    @scene.worker.flow("orders::run")
    def run(flow: Flow, page: int) -> Any:
        flow.step("read", lambda: page)
        if page < 3:
            flow.again({"page": page + 1})
        return [page, flow.wait("go")]

    run_ = scene.iii.start("orders::run", page=1)
    run_.signal("go", "yes")
    assert run_.result() == [3, "yes"]
    assert [step["key"] for step in run_.steps] == ["read", "go"]


def test_a_failed_run_is_retried_at_its_failed_step_with_a_fresh_budget(scene: Scene) -> None:
    broken = [True]

    def charge(_: Any) -> str:
        if broken[0]:
            raise InvocationError("busy", "try later")
        return "paid"

    scene.offer("stock::take", lambda _: "taken")
    scene.offer("pay::charge", charge)

    @scene.worker.flow("orders::run")
    def run(flow: Flow, payload: Any = None) -> list[Any]:
        return [flow.call("stock::take"), flow.call("pay::charge", max_retries=2)]

    run_ = scene.iii.start("orders::run")
    with pytest.raises(InvocationError, match="busy"):
        run_.result(skip=True)
    broken[0] = False
    assert scene.iii.call("flow::retry", {"run": run_.id})["state"] == "queued"
    assert run_.result() == ["taken", "paid"]
    assert len(scene.called("stock::take")) == 1


def test_a_fork_has_the_steps_before_a_key(scene: Scene) -> None:
    @scene.worker.flow("orders::run")
    def run(flow: Flow, payload: Any = None) -> list[Any]:
        return [flow.call("a::a"), flow.call("b::b"), flow.call("c::c")]

    for name in "abc":
        scene.offer(f"{name}::{name}", lambda _, name=name: name)
    run_ = scene.iii.start("orders::run")
    fork = scene.iii.call("flow::fork", {"run": run_.id, "from": "b::b"})["run"]
    assert scene.iii.call("flow::result", {"run": fork}) == ["a", "b", "c"]
    assert [name for name, _ in scene.calls] == ["a::a", "b::b", "c::c", "b::b", "c::c"]
    assert refused(scene, "flow::fork", run=run_.id, **{"from": "x"}) == "step_not_found"


def test_a_check_calls_the_body_and_makes_no_step(scene: Scene) -> None:
    holder = bound(scene, "orders::run", v1)
    run = scene.iii.start("orders::run")
    assert scene.iii.call("flow::check", {"run": run.id}) == {"ok": True, "error": None, "leftovers": []}
    exported = scene.iii.call("flow::export", {"run": run.id})
    holder["body"] = removed
    for query in ({"run": run.id}, {"journal": exported}):
        with scene.iii._settled():
            answer = scene.iii._core.wait_moving(scene.worker.trigger_async("flow::check", query))
        assert not answer["ok"]
        assert "'a'" in answer["error"]["message"]
    assert run.state == "parked"
    assert refused(scene, "flow::check", journal={"steps": []}) == "invalid_payload"


def test_34_a_payload_that_does_not_fit_fails_the_run_at_its_start(scene: Scene) -> None:
    @scene.worker.flow("orders::run")
    def run(flow: Flow, n: int) -> Any:
        return flow.wait("go")

    with pytest.raises(InvocationError, match="invalid_payload"):
        scene.iii.start("orders::run", n="many").result()


# Looking


def test_runs_are_listed_in_pages_and_by_state_and_function(scene: Scene) -> None:
    @scene.worker.flow("orders::run")
    def run(flow: Flow, n: int) -> Any:
        flow.status({"n": n})
        return n if n < 3 else flow.wait("go")

    for n in range(5):
        scene.iii.start("orders::run", id=f"r{n}", n=n)
    first = scene.iii.call("flow::list", {"limit": 3})
    assert [row["run"] for row in first["runs"]] == ["r4", "r3", "r2"]
    rest = scene.iii.call("flow::list", {"limit": 3, "cursor": first["cursor"]})
    assert ([row["run"] for row in rest["runs"]], rest["cursor"]) == (["r1", "r0"], None)
    parked = scene.iii.call("flow::list", {"state": "parked", "function_id": "orders::run"})["runs"]
    assert [(row["run"], row["status"]) for row in parked] == [("r4", {"n": 4}), ("r3", {"n": 3})]
    assert refused(scene, "flow::list", state="lost") == "invalid_payload"


def test_ended_tells_of_runs_that_have_ended_or_are_blocked(scene: Scene) -> None:
    told: list[tuple[str, str]] = []
    scene.worker.register_function("watch::ended", lambda event: told.append((event["run"], event["state"])))
    scene.worker.register_trigger(
        {"type": "flow:ended", "function_id": "watch::ended", "config": {"states": ["failed", "completed"]}}
    )

    @scene.worker.flow("orders::run")
    def run(flow: Flow, how: str) -> Any:
        if how == "fail":
            raise ValueError("no")
        return flow.wait("go") if how == "wait" else how

    for how in ("fail", "return", "wait"):
        scene.iii.start("orders::run", id=how, how=how)
    scene.iii.call("flow::cancel", {"run": "wait"})
    assert told == [("fail", "failed"), ("return", "completed")]


def test_old_runs_are_forgotten(scene: Scene) -> None:
    @scene.worker.flow("orders::run")
    def run(flow: Flow, n: int) -> int:
        return 1 // n

    scene.iii.start("orders::run", id="good", n=1)
    scene.iii.start("orders::run", id="bad", n=0)
    scene.iii.advance("8d")
    assert [row["run"] for row in scene.iii.call("flow::list")["runs"]] == ["bad"]
    scene.iii.advance("23d")
    assert scene.iii.call("flow::list")["runs"] == []


# The tests of users


def test_a_crash_test_finds_a_body_that_takes_another_way(scene: Scene) -> None:
    scene.offer("pay::charge", lambda _: "paid")
    count = [0]

    @scene.worker.flow("orders::good")
    def good(flow: Flow, items: list[int]) -> list[Any]:
        flow.call("pay::charge")
        flow.sleep("1h")
        return [flow.map(lambda flow, item: flow.step("double", lambda: item * 2), items), flow.wait("go")]

    @scene.worker.flow("orders::bad")
    def bad(flow: Flow, payload: Any = None) -> Any:
        count[0] += 1
        flow.step("a", lambda: 1)
        return count[0]

    assert scene.iii.crash_test("orders::good", {"items": [1, 2]}, events={"go": 5}) == 5
    with pytest.raises(AssertionError, match="behind the step 'a' the run takes another way"):
        scene.iii.crash_test("orders::bad")


def test_a_run_that_waits_for_an_event_says_so(scene: Scene) -> None:
    waiting(scene)
    with pytest.raises(AssertionError, match=r"it is parked, at \['approved'\]"):
        scene.iii.start("orders::run").result(skip=True)


# Races and sizes


def test_25_a_cancel_against_the_last_commit_has_one_end_that_all_are_told(scene: Scene) -> None:
    @scene.worker.flow("orders::run")
    def run(flow: Flow, n: int) -> int:
        return flow.step("last", lambda: n)  # type: ignore[no-any-return]

    scene.iii.settle()
    outcomes = set()
    for n in range(20):
        started = scene.worker.trigger("flow::start", {"function_id": "orders::run", "payload": {"n": n}})["run"]
        with suppress(InvocationError):  # it has ended before
            scene.worker.trigger("flow::cancel", {"run": started})
        scene.iii.settle()
        state = scene.iii.call("flow::get", {"run": started})["state"]
        try:
            told = "completed" if scene.iii.call("flow::result", {"run": started}) == n else "wrong"
        except InvocationError as error:
            told = "cancelled" if error.code == "run_cancelled" else error.code
        assert told == state
        outcomes.add(state)
    assert outcomes <= {"completed", "cancelled"}


def test_32_many_timers_at_once_all_fire(scene: Scene) -> None:
    @scene.worker.flow("orders::run")
    def run(flow: Flow, n: int) -> int:
        flow.sleep_until(flow.now().replace(minute=30))
        return n

    scene.iii.settle()
    runs = [
        scene.worker.trigger("flow::start", {"function_id": "orders::run", "payload": {"n": n}}) for n in range(600)
    ]
    scene.iii.advance("30m")
    results = [scene.iii._test.trigger("flow::result", {"run": started["run"]}) for started in runs]
    assert results == list(range(600))


def test_33_a_long_journal_is_read_in_parts(scene: Scene) -> None:
    made: list[int] = []

    @scene.worker.flow("orders::run")
    def run(flow: Flow, n: int) -> int:
        text = "x" * 2000
        total = sum(len(flow.step("s", lambda index=index: made.append(index) or text)) for index in range(n))
        flow.sleep(5)
        return total

    run_ = scene.iii.start("orders::run", n=400)
    assert run_.result(skip=True) == 400 * 2000
    assert made == list(range(400))


def test_30_a_run_is_on_time_although_its_timer_slept_with_the_machine() -> None:
    steady = [0.0]
    with Engine() as iii:
        worker, store = iii.worker("flow"), iii._core.store(SCHEMA)
        service = register(worker, store, options_from({}), Clock(lambda: 1000.0, lambda: steady[0]))

        async def serve() -> None:
            await service.begin()

        iii._core.serve(serve())
        scene = Scene(iii)

        @scene.worker.flow("orders::run")
        def run(flow: Flow) -> str:
            flow.sleep("1h")
            return "on time"

        run_ = iii.call("flow::start", {"function_id": "orders::run"})["run"]
        iii.advance(WALL_INTERVAL)
        assert iii.call("flow::get", {"run": run_})["state"] == "parked"
        steady[0] += HOUR  # the machine has slept; the timers of the loop have not counted that
        iii.advance(WALL_INTERVAL)
        assert iii.call("flow::result", {"run": run_}) == "on time"
