"""Calling others, with a test playing the engine: results, errors, deadlines, nesting, awaiting."""

from __future__ import annotations

import asyncio

import pytest

from iii import InvocationError, TriggerAction
from tests.support.worker_support import in_thread, next_call


@pytest.mark.parametrize("way", ["trigger", "call"])
def test_a_call_returns_the_result(joined, way):
    worker, engine = joined
    result = in_thread(lambda: getattr(worker, way)({"function_id": "o::f", "payload": {"a": 1}, "metadata": {"m": 1}}))
    call = next_call(engine)
    assert (call["data"], call["metadata"]) == ({"a": 1}, {"m": 1})
    assert "deadline_ms" not in call
    engine.settle(call, result=[1])
    assert result() == [1]


def test_a_call_by_id_and_payload_is_the_short_form(joined):
    worker, engine = joined
    result = in_thread(lambda: worker.call("o::f", {"a": 1}))
    call = next_call(engine)
    engine.settle(call)
    assert call["data"] == {"a": 1}
    assert result() is None


def test_the_payload_is_the_last_key_of_calls_and_answers(joined):
    worker, engine = joined
    worker.register_function("m::outer", lambda data: worker.trigger({"function_id": "m::f", "metadata": 1} | data))
    worker.register_function("m::items", lambda data: list(worker.stream({"function_id": "m::f", "payload": data})))
    trace = {"traceparent": f"00-{'a' * 32}-{'b' * 16}-01", "baggage": "k=v"}

    for request in ({"payload": {"a": 1}, "timeout_ms": 5000}, {"action": {"type": "enqueue", "queue": "q"}}):
        engine.invoke("m::outer", request, deadline_ms=9000, **trace)
        call = next_call(engine)
        assert list(call)[-1] == "data"
        engine.settle(call, result=1)
        assert list(engine.result())[-1] == "result"
    engine.invoke("m::items")
    call = next_call(engine)
    assert list(call)[-1] == "data"
    engine.settle(call, error={"code": "no", "message": "no"})
    assert list(engine.result())[-1] == "error"
    worker.trigger({"function_id": "m::f", "action": TriggerAction.Void()})
    assert list(next_call(engine))[-1] == "data"


def test_an_error_answer_is_raised(joined):
    worker, engine = joined
    result = in_thread(lambda: worker.trigger("o::f"))
    engine.settle(next_call(engine), error={"code": "c", "message": "m", "details": {"d": 1}, "stacktrace": "t"})
    with pytest.raises(InvocationError) as caught:
        result()
    assert (caught.value.code, caught.value.message, caught.value.details) == ("c", "m", {"d": 1})
    assert (caught.value.function_id, caught.value.stacktrace) == ("o::f", "t")


def test_a_void_call_has_no_id_and_returns_at_once(joined):
    worker, engine = joined
    assert worker.trigger({"function_id": "o::f", "action": TriggerAction.Void()}) is None
    call = next_call(engine)
    assert call["action"] == {"type": "void"}
    assert "invocation_id" not in call


def test_an_enqueued_call_returns_its_receipt(joined):
    worker, engine = joined
    result = in_thread(lambda: worker.trigger({"function_id": "o::f", "action": TriggerAction.Enqueue(queue="q")}))
    call = next_call(engine)
    assert call["action"] == {"type": "enqueue", "queue": "q"}
    engine.settle(call, result={"messageReceiptId": "r1"})
    assert result().messageReceiptId == "r1"


def test_without_any_answer_the_sdk_gives_up_and_cancels(joined):
    worker, engine = joined
    result = in_thread(lambda: worker.trigger({"function_id": "o::f", "timeout_ms": 20}))
    call = next_call(engine)
    assert call["deadline_ms"] == 20
    with pytest.raises(InvocationError, match="TIMEOUT: invocation timed out after 20ms"):
        result()
    assert engine.expect("cancel")["invocation_id"] == call["invocation_id"]
    engine.settle(call, result="late")
    engine.send({"type": "ping"})
    engine.expect("pong")


def test_a_payload_json_cannot_hold_fails_before_it_is_sent(joined):
    with pytest.raises(InvocationError, match=r"\$\.a: "):
        joined[0].trigger("o::f", {"a": float("inf")})


@pytest.mark.parametrize(
    "request_", [{"function_id": "m::\ud800"}, {"function_id": "m::f", "metadata": {"x": float("nan")}}]
)
def test_what_stands_before_the_payload_must_be_json_too(joined, request_):
    with pytest.raises(InvocationError) as caught:
        joined[0].trigger(request_)
    assert caught.value.code == "invalid_payload"
    assert len(joined[0]._calls) == 0


def test_a_payload_over_the_limit_fails_before_it_is_sent(joined):
    with pytest.raises(InvocationError, match="payload_too_large"):
        joined[0].trigger("o::f", "x" * (16 * 1024 * 1024))


def test_a_blocking_call_inside_a_handler_names_its_caller(joined):
    worker, engine = joined
    worker.register_function("m::outer", lambda p: worker.trigger("o::inner", p) + 1)
    engine.invoke("m::outer", 1, "i7", deadline_ms=5000)
    call = next_call(engine)
    assert call["caller"] == {"function_id": "m::outer", "invocation_id": "i7"}
    assert 0 < call["deadline_ms"] <= 5000
    engine.settle(call, result=10)
    assert engine.result("i7")["result"] == 11


def test_others_run_while_a_handler_waits_for_its_call(joined):
    worker, engine = joined
    worker.register_function("m::outer", lambda p: worker.trigger("o::inner"))
    worker.register_function("m::ok", lambda p: p)
    engine.invoke("m::outer", None, "outer")
    call = next_call(engine)
    assert [engine.call("m::ok", n, f"i{n}")["result"] for n in range(20)] == list(range(20))
    engine.settle(call, result="done")
    assert engine.result("outer")["result"] == "done"


def test_a_function_may_call_itself_a_hundred_deep(joined):
    worker, engine = joined
    worker.register_function("m::down", lambda n: worker.trigger("m::down", n - 1) + 1 if n else 0)
    engine.invoke("m::down", 100, "top")
    waiting = []
    for _ in range(100):
        waiting.append(next_call(engine))
        engine.invoke("m::down", waiting[-1]["data"], f"r{len(waiting)}")
    for depth in range(100, 0, -1):
        engine.settle(waiting[depth - 1], result=engine.result(f"r{depth}")["result"])
    assert engine.result("top")["result"] == 100


def test_an_async_handler_awaits_many_calls_at_once(joined):
    worker, engine = joined

    async def fan(payload):
        return await asyncio.gather(*(worker.trigger_async("o::f", n) for n in range(50)))

    worker.register_function("m::fan", fan)
    engine.invoke("m::fan", None, "fan")
    calls = [next_call(engine) for _ in range(50)]
    assert calls[0]["caller"]["function_id"] == "m::fan"
    for call in reversed(calls):
        engine.settle(call, result=call["data"] * 2)
    assert engine.result("fan")["result"] == [n * 2 for n in range(50)]


def test_calls_may_be_awaited_on_a_loop_of_ones_own(joined):
    worker, engine = joined
    result = in_thread(lambda: asyncio.run(worker.call_async({"function_id": "o::f", "timeout_ms": 5000})))
    engine.settle(next_call(engine), result=5)
    assert result() == 5


def test_an_awaited_call_without_answer_times_out_and_is_cancelled(joined):
    worker, engine = joined
    result = in_thread(lambda: asyncio.run(worker.trigger_async({"function_id": "o::f", "timeout_ms": 10})))
    call = next_call(engine)
    with pytest.raises(InvocationError, match="TIMEOUT"):
        result()
    assert engine.expect("cancel")["invocation_id"] == call["invocation_id"]


def test_a_cancelled_await_tells_the_engine(joined):
    worker, engine = joined

    async def give_up():
        task = asyncio.ensure_future(worker.trigger_async("o::f"))
        await asyncio.sleep(0)
        task.cancel()
        with pytest.raises(asyncio.CancelledError):
            await task

    asyncio.run(give_up())
    assert engine.expect("cancel")["invocation_id"] == next_call(engine)["invocation_id"]


def test_a_blocking_call_on_the_sdks_loop_is_refused(joined):
    worker, engine = joined

    async def wrong(payload):
        worker.trigger("o::f")

    worker.register_function("m::wrong", wrong)
    assert engine.call("m::wrong")["error"]["details"] == {"exception": "RuntimeError"}


def test_forty_threads_calling_at_once_get_their_own_answers(joined):
    worker, engine = joined
    results = [in_thread(lambda n=n: worker.trigger("o::echo", n)) for n in range(40)]
    for _ in range(40):
        call = next_call(engine)
        engine.settle(call, result=call["data"])
    assert [result() for result in results] == list(range(40))


def test_one_call_after_the_other_and_calls_from_outside_do_not_disturb_each_other(joined):
    worker, engine = joined
    worker.register_function("m::ok", lambda p: p)
    result = in_thread(lambda: [worker.trigger("o::echo", n) for n in range(300)])
    for n in range(300):
        call = next_call(engine)
        if n % 3 == 0:
            engine.invoke("m::ok", n, f"i{n}")
        engine.settle(call, result=call["data"])
        if n % 3 == 0:
            assert engine.result(f"i{n}")["result"] == n
    assert result() == list(range(300))
