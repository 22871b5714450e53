"""Being called, with a test playing the engine: results, errors, handlers side by side, cancelling."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest

from iii import InvocationError, current_invocation
from iii.worker.runtime.threads import ThreadPool
from tests.support.worker_support import BOUND, pair


def test_a_handler_answers_with_its_result(joined):
    worker, engine = joined
    worker.register_function("m::add", lambda p: {"c": p["a"] + p["b"]})
    assert engine.call("m::add", {"a": 1, "b": 2}) == {
        "type": "invocationresult",
        "invocation_id": "i1",
        "function_id": "m::add",
        "result": {"c": 3},
    }


def test_ids_of_any_characters_come_back_as_they_were(joined):
    worker, engine = joined
    worker.register_function('m::"\\é', lambda p: p)
    answer = engine.call('m::"\\é', 7, 'call "1" \\ é')
    assert (answer["function_id"], answer["result"]) == ('m::"\\é', 7)


def test_two_calls_of_one_id_are_both_answered(joined):
    worker, engine = joined
    both = threading.Barrier(2)
    worker.register_function("m::meet", lambda p: both.wait(BOUND) >= 0)
    worker.register_function("m::f", lambda p: p)
    engine.invoke("m::meet", invocation_id="twice")
    engine.invoke("m::meet", invocation_id="twice")
    assert [engine.result("twice")["result"] for _ in range(2)] == [True, True]
    assert engine.call("m::f", 7)["result"] == 7


def test_a_result_may_be_nested_as_deep_as_a_message_lets_it(joined):
    worker, engine = joined
    worker.register_function("m::nest", nested)
    assert engine.call("m::nest", 64)["result"] == nested(64)
    assert "nested" in engine.call("m::nest", 65)["error"]["message"]


def nested(levels):
    return 1 if levels == 0 else [nested(levels - 1)]


def test_a_function_that_returns_nothing_answers_without_a_result(joined):
    worker, engine = joined
    worker.register_function("m::f", lambda p: None)
    assert engine.call("m::f") == {"type": "invocationresult", "invocation_id": "i1", "function_id": "m::f"}


def test_an_async_handler_answers_with_its_result(joined):
    worker, engine = joined

    async def add(payload):
        await asyncio.sleep(0)
        return payload + 1

    worker.register_function("m::add", add)
    assert engine.call("m::add", 1)["result"] == 2


def test_decorated_functions_take_arguments_sync_and_async(joined):
    worker, engine = joined

    @worker.function("m::sub")
    def sub(a: int, b: int = 1):
        return a - b

    @worker.function("m::asub")
    async def asub(a: int, *, metadata=None):
        return [a, metadata]

    assert sub(5) == 4
    assert engine.call("m::sub", {"a": 5})["result"] == 4
    assert engine.call("m::asub", {"a": 5}, metadata={"k": 1})["result"] == [5, {"k": 1}]
    assert engine.call("m::sub", {"b": 5})["error"]["code"] == "invalid_payload"


def test_the_sidecar_reaches_who_asks_for_it(joined):
    worker, engine = joined
    worker.register_function("m::with", lambda p, metadata: metadata)
    worker.register_function("m::without", lambda p: p)
    assert engine.call("m::with", 1, metadata={"k": 2})["result"] == {"k": 2}
    assert "result" not in engine.call("m::with", 1)
    assert engine.call("m::without", 1, metadata={"k": 2})["result"] == 1


def test_a_raised_exception_is_the_callers_error_with_the_users_traceback(joined):
    worker, engine = joined
    worker.register_function("m::bad", lambda p: 1 / 0)
    error = engine.call("m::bad")["error"]
    assert (error["code"], error["message"]) == ("invocation_failed", "division by zero")
    assert error["details"] == {"exception": "ZeroDivisionError"}
    assert "runner.py" not in error["stacktrace"]


@pytest.mark.parametrize("error", [SystemExit(3), KeyboardInterrupt()])
def test_a_handler_cannot_end_the_worker(joined, error):
    worker, engine = joined

    def leave(payload):
        raise error

    worker.register_function("m::leave", leave)
    worker.register_function("m::ok", lambda p: 1)
    assert engine.call("m::leave")["error"]["code"] == "invocation_failed"
    assert engine.call("m::ok")["result"] == 1


def test_a_raised_invocation_error_keeps_its_code_and_details(joined):
    worker, engine = joined

    def refuse(payload):
        raise InvocationError("sold_out", "none left", details={"left": 0})

    worker.register_function("m::buy", refuse)
    assert engine.call("m::buy")["error"] == {"code": "sold_out", "message": "none left", "details": {"left": 0}}


def test_the_error_of_an_inner_call_is_passed_on_with_a_trace(joined):
    worker, engine = joined

    def buy(payload):
        raise InvocationError("function_not_found", "Function m::stock not found", "m::stock", invocation_id="inner")

    worker.register_function("m::buy", buy)
    assert "in buy" in engine.call("m::buy")["error"]["stacktrace"]


def test_a_result_json_cannot_hold_is_named_by_its_path(joined):
    worker, engine = joined
    worker.register_function("m::nan", lambda p: {"a": [1, 2, 3, float("nan")]})
    error = engine.call("m::nan")["error"]
    assert error["code"] == "result_not_serializable"
    assert error["message"].startswith("$.a[3]: ")


def test_an_unknown_function_is_answered(joined):
    assert joined[1].call("m::none")["error"]["code"] == "function_not_found"


def test_a_line_that_cannot_be_read_is_answered_and_the_next_one_works(joined):
    worker, engine = joined
    worker.register_function("m::f", lambda p: p)
    engine.send_raw(b'{"type":"invokefunction","invocation_id":"bad","function_id":"m::f","data":"\xff"}\n')
    error = engine.result("bad")["error"]
    assert error["code"] == "invalid_json"
    assert error["details"]["offset"] > 0
    assert engine.call("m::f", 7)["result"] == 7


def test_unknown_messages_are_ignored_and_ping_is_answered(joined):
    _, engine = joined
    engine.send({"type": "novelty", "x": 1}, {"no": "type"}, {"type": "ping"})
    engine.expect("pong")


def test_context_variables_do_not_leak_from_one_invocation_to_the_next(joined):
    worker, engine = joined
    seen = []

    def handler(payload):
        seen.append(current_invocation().invocation_id)
        return current_invocation().remaining_ms is not None

    worker.register_function("m::f", handler)
    assert engine.call("m::f", None, "i1", deadline_ms=1000)["result"] is True
    assert engine.call("m::f", None, "i2")["result"] is False
    assert seen == ["i1", "i2"]
    assert current_invocation() is None


def test_a_stuck_handler_does_not_hold_up_others(joined):
    worker, engine = joined
    release = threading.Event()
    worker.register_function("m::stuck", lambda p: release.wait(BOUND))
    worker.register_function("m::ok", lambda p: p)
    engine.invoke("m::stuck", None, "s")
    assert [engine.call("m::ok", n, f"i{n}")["result"] for n in range(50)] == list(range(50))
    release.set()
    assert engine.result("s")["result"] is True


def test_many_handlers_may_wait_for_each_other(joined):
    worker, engine = joined
    barrier = threading.Barrier(40)
    worker.register_function("m::meet", lambda p: barrier.wait(BOUND) >= 0)
    for n in range(40):
        engine.invoke("m::meet", None, f"i{n}")
    assert all(engine.result(f"i{n}")["result"] for n in range(40))


def test_a_thousand_calls_at_once_are_all_answered(joined):
    worker, engine = joined
    worker.register_function("m::double", lambda p: p * 2)
    for n in range(1000):
        engine.invoke("m::double", n, f"i{n}")
    assert [engine.result(f"i{n}")["result"] for n in range(1000)] == [n * 2 for n in range(1000)]


def test_beyond_the_last_thread_calls_are_refused_not_lost():
    with pair(ThreadPool(limit=4)) as (worker, engine):
        release = threading.Event()
        worker.register_function("m::stuck", lambda p: release.wait(BOUND))
        for n in range(10):
            engine.invoke("m::stuck", None, f"i{n}")
        refused = engine.expect("invocationresult")
        assert refused["error"]["code"] == "overloaded"
        assert refused["error"]["retryable"] is True
        release.set()
        engine.seen.append(refused)
        outcomes = [engine.result(f"i{n}") for n in range(10)]
        assert sum("result" in outcome for outcome in outcomes) >= 2


def test_spare_threads_leave_when_idle():
    thread_pool = ThreadPool(idle_timeout=0.01)
    threads = []
    ran = threading.Event()
    assert thread_pool.run(lambda: (threads.append(threading.current_thread()), ran.set()))
    assert ran.wait(BOUND)
    threads[0].join(BOUND)
    assert thread_pool.size == 0


def test_a_closed_crew_keeps_no_thread():
    thread_pool = ThreadPool()
    threads = []
    meet = threading.Barrier(4)
    for _ in range(3):
        assert thread_pool.run(lambda: (threads.append(threading.current_thread()), meet.wait(BOUND)))
    meet.wait(BOUND)
    thread_pool.close()
    for thread in threads:
        thread.join(BOUND)
    assert thread_pool.size == 0


def test_cancel_reaches_an_async_handler_as_an_exception(joined):
    worker, engine = joined
    started = threading.Event()
    ended = threading.Event()

    async def forever(payload):
        started.set()
        try:
            await asyncio.Event().wait()
        finally:
            ended.set()

    worker.register_function("m::forever", forever)
    engine.invoke("m::forever")
    assert started.wait(BOUND)
    engine.send({"type": "cancel", "invocation_id": "i1"})
    assert engine.result()["error"]["code"] == "cancelled"
    assert ended.is_set()


def test_cancel_is_a_flag_for_a_sync_handler(joined):
    worker, engine = joined

    def patient(payload):
        end = time.monotonic() + BOUND
        while not current_invocation().cancelled and time.monotonic() < end:
            threading.Event().wait(0.001)
        return current_invocation().cancelled

    worker.register_function("m::patient", patient)
    engine.invoke("m::patient")
    engine.send({"type": "cancel", "invocation_id": "i1"}, {"type": "cancel", "invocation_id": "other"})
    assert engine.result()["result"] is True


@pytest.mark.parametrize("awaits_end", [True, False])
def test_a_handler_that_has_seen_its_cancellation_and_returns_has_given_up(joined, awaits_end):
    worker, engine = joined

    def patient(payload):
        while not current_invocation().cancelled:
            threading.Event().wait(0.001)
        return "half"

    async def stubborn(payload):
        try:
            await asyncio.sleep(BOUND)
        except asyncio.CancelledError:
            return "half"

    worker.register_function("m::patient", patient)
    worker.register_function("m::stubborn", stubborn)
    for name in ("m::patient", "m::stubborn"):
        engine.invoke(name, invocation_id=name, **({"awaits_end": True} if awaits_end else {}))
        engine.send({"type": "ping"})
        engine.expect("pong")
        engine.send({"type": "cancel", "invocation_id": name})
        answer = engine.result(name)
        if name == "m::stubborn" and "error" in answer:
            assert answer["error"]["code"] == "cancelled"  # it had not begun
        elif awaits_end:
            assert answer["error"]["code"] == "cancelled"
        else:
            assert answer["result"] == "half"


def test_a_handler_that_finishes_its_work_without_a_look_has_done_it(joined):
    worker, engine = joined
    goes_on = threading.Event()
    worker.register_function("m::deaf", lambda payload: goes_on.wait(BOUND))
    engine.invoke("m::deaf", awaits_end=True, deadline_ms=10_000)
    engine.send({"type": "cancel", "invocation_id": "i1"}, {"type": "ping"})
    engine.expect("pong")
    goes_on.set()
    assert engine.result()["result"] is True


def test_an_int_parameter_gets_an_int_of_either_kind_of_handler(joined):
    worker, engine = joined
    worker.register_function("m::whole", lambda_with_int)

    @worker.function("m::typed")
    def typed(n: int, times: int = 1):
        return list(range(n)) * times

    assert engine.call("m::typed", {"n": 3.0, "times": 2.0})["result"] == [0, 1, 2, 0, 1, 2]
    assert engine.call("m::whole", 3.0, "w")["result"] == [0, 1, 2]
    for name, payload in (("m::typed", {"n": 3.5}), ("m::whole", 3.5)):
        error = engine.call(name, payload, name)["error"]
        assert (error["code"], error["message"]) == ("invalid_payload", f"{name}: n: 3.5 is not an integer")


def lambda_with_int(n: int):
    return list(range(n))
