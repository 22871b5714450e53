"""A worker joined in memory to a test that plays the engine: every behavior a caller or a script can see."""

from __future__ import annotations

import asyncio
import threading
import time

import pytest
from support import BOUND, pair

from iii import InitOptions, InvocationError, TriggerAction, TriggerConfig, TriggerHandler, current_invocation
from iii.errors import RegistrationRejectedError
from iii.worker.crew import Crew


@pytest.fixture
def joined():
    with pair() as both:
        yield both


def answer(engine, call, **body):
    engine.send(
        {
            "type": "invocationresult",
            "invocation_id": call["invocation_id"],
            "function_id": call["function_id"],
            **body,
        }
    )


# Registering


def test_the_first_line_introduces_the_worker():
    with pair(options=InitOptions(worker_name="shop", namespace="eu")) as (_, engine):
        first = engine.expect("invokefunction")
    assert first["function_id"] == "engine::workers::register"
    assert first["action"] == {"type": "void"}
    assert "invocation_id" not in first
    assert (first["data"]["name"], first["data"]["namespace"], first["data"]["runtime"]) == ("shop", "eu", "python")


def test_a_function_is_announced_with_what_is_known_of_it(joined):
    worker, engine = joined

    def add(payload: dict) -> int:
        """Add."""

    worker.register_function("m::add", add, metadata={"tier": 1}, response_format={"type": "integer"})
    message = engine.expect("registerfunction")
    assert message["description"] == "Add."
    assert message["metadata"] == {"tier": 1}
    assert message["response_format"] == {"type": "integer"}
    assert message["source"]["file"] == __file__


@pytest.mark.parametrize("function_id", ["", "  ", None])
def test_a_blank_id_is_refused(joined, function_id):
    with pytest.raises(ValueError, match="service::name"):
        joined[0].register_function(function_id, print)


def test_a_handler_that_cannot_be_called_is_refused(joined):
    with pytest.raises(TypeError, match="callable"):
        joined[0].register_function("m::f", 5)


def test_an_id_is_taken_until_it_is_withdrawn(joined):
    worker, engine = joined
    function = worker.register_function("m::f", lambda p: 1)
    with pytest.raises(ValueError, match="already"):
        worker.register_function("m::f", lambda p: 2)
    function.unregister()
    assert engine.expect("unregisterfunction") == {"type": "unregisterfunction", "id": "m::f"}
    worker.register_function("m::f", lambda p: 3)
    assert engine.call("m::f")["result"] == 3


def test_a_trigger_is_bound_and_withdrawn_by_the_same_id(joined):
    worker, engine = joined
    trigger = worker.register_trigger({"type": "cron", "function_id": "m::f", "config": {"expression": "* * * * *"}})
    bound = engine.expect("registertrigger")
    assert (bound["id"], bound["trigger_type"], bound["function_id"]) == (trigger.id, "cron", "m::f")
    trigger.unregister()
    assert engine.expect("unregistertrigger")["id"] == trigger.id


def test_an_action_is_a_function_with_a_name_for_callers(joined):
    worker, engine = joined
    worker.register_trigger_action("delay", lambda request: request["action"]["seconds"], options_format={})
    action = engine.expect("registeraction")
    assert action["id"] == "delay"
    assert engine.call(action["function_id"], {"action": {"type": "delay", "seconds": 5}})["result"] == 5


# Being called


def test_a_handler_answers_with_its_result(joined):
    worker, engine = joined
    worker.register_function("m::add", lambda p: {"c": p["a"] + p["b"]})
    assert engine.call("m::add", {"a": 1, "b": 2}) == {
        "type": "invocationresult",
        "invocation_id": "i1",
        "function_id": "m::add",
        "result": {"c": 3},
    }


def test_nothing_is_a_result_too(joined):
    worker, engine = joined
    worker.register_function("m::f", lambda p: None)
    assert engine.call("m::f")["result"] is None


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
    assert engine.call("m::with", 1)["result"] is None
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


# Handlers side by side


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
    with pair(Crew(limit=4)) as (worker, engine):
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
    crew = Crew(idle_seconds=0.01)
    threads = []
    ran = threading.Event()
    assert crew.run(lambda: (threads.append(threading.current_thread()), ran.set()))
    assert ran.wait(BOUND)
    threads[0].join(BOUND)
    assert crew.size == 0


def test_a_closed_crew_keeps_no_thread():
    crew = Crew()
    threads = []
    meet = threading.Barrier(4)
    for _ in range(3):
        assert crew.run(lambda: (threads.append(threading.current_thread()), meet.wait(BOUND)))
    meet.wait(BOUND)
    crew.close()
    for thread in threads:
        thread.join(BOUND)
    assert crew.size == 0


# Cancelling


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


# Calling


def in_thread(function):
    """Run `function` on a thread; returns a function that waits for its result or exception."""
    outcome = []

    def work():
        try:
            outcome.append((function(), None))
        except BaseException as error:  # noqa: BLE001 - the exception is the result here
            outcome.append((None, error))

    thread = threading.Thread(target=work)
    thread.start()

    def result():
        thread.join(BOUND)
        value, error = outcome[0]
        if error is not None:
            raise error
        return value

    return result


def next_call(engine):
    """The next call of somebody else's function; the first line of every worker is not one."""
    while True:
        call = engine.expect("invokefunction")
        if call["function_id"] != "engine::workers::register":
            return call


@pytest.mark.parametrize("way", ["trigger", "call"])
def test_a_call_returns_the_result(joined, way):
    worker, engine = joined
    result = in_thread(lambda: getattr(worker, way)({"function_id": "o::f", "payload": {"a": 1}, "metadata": {"m": 1}}))
    call = next_call(engine)
    assert (call["data"], call["metadata"]) == ({"a": 1}, {"m": 1})
    assert "deadline_ms" not in call
    answer(engine, call, result=[1])
    assert result() == [1]


def test_a_call_by_id_and_payload_is_the_short_form(joined):
    worker, engine = joined
    result = in_thread(lambda: worker.call("o::f", {"a": 1}))
    call = next_call(engine)
    answer(engine, call)
    assert call["data"] == {"a": 1}
    assert result() is None


def test_an_error_answer_is_raised(joined):
    worker, engine = joined
    result = in_thread(lambda: worker.trigger("o::f"))
    answer(engine, next_call(engine), error={"code": "c", "message": "m", "details": {"d": 1}, "stacktrace": "t"})
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
    answer(engine, call, result={"messageReceiptId": "r1"})
    assert result().messageReceiptId == "r1"


def test_without_any_answer_the_sdk_gives_up_and_cancels(joined):
    worker, engine = joined
    result = in_thread(lambda: worker.trigger({"function_id": "o::f", "timeout_ms": 20}))
    call = next_call(engine)
    assert call["deadline_ms"] == 20
    with pytest.raises(InvocationError, match="TIMEOUT: invocation timed out after 20ms"):
        result()
    assert engine.expect("cancel")["invocation_id"] == call["invocation_id"]
    answer(engine, call, result="late")
    engine.send({"type": "ping"})
    engine.expect("pong")


def test_a_payload_json_cannot_hold_fails_before_it_is_sent(joined):
    with pytest.raises(InvocationError, match=r"\$\.a: "):
        joined[0].trigger("o::f", {"a": float("inf")})


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
    answer(engine, call, result=10)
    assert engine.result("i7")["result"] == 11


def test_others_run_while_a_handler_waits_for_its_call(joined):
    worker, engine = joined
    worker.register_function("m::outer", lambda p: worker.trigger("o::inner"))
    worker.register_function("m::ok", lambda p: p)
    engine.invoke("m::outer", None, "outer")
    call = next_call(engine)
    assert [engine.call("m::ok", n, f"i{n}")["result"] for n in range(20)] == list(range(20))
    answer(engine, call, result="done")
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
        answer(engine, waiting[depth - 1], result=engine.result(f"r{depth}")["result"])
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
        answer(engine, call, result=call["data"] * 2)
    assert engine.result("fan")["result"] == [n * 2 for n in range(50)]


def test_calls_may_be_awaited_on_a_loop_of_ones_own(joined):
    worker, engine = joined
    result = in_thread(lambda: asyncio.run(worker.call_async({"function_id": "o::f", "timeout_ms": 5000})))
    answer(engine, next_call(engine), result=5)
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
        answer(engine, call, result=call["data"])
    assert [result() for result in results] == list(range(40))


def test_one_call_after_the_other_and_calls_from_outside_do_not_disturb_each_other(joined):
    worker, engine = joined
    worker.register_function("m::ok", lambda p: p)
    result = in_thread(lambda: [worker.trigger("o::echo", n) for n in range(300)])
    for n in range(300):
        call = next_call(engine)
        if n % 3 == 0:
            engine.invoke("m::ok", n, f"i{n}")
        answer(engine, call, result=call["data"])
        if n % 3 == 0:
            assert engine.result(f"i{n}")["result"] == n
    assert result() == list(range(300))


# Trigger types


class Recorder(TriggerHandler):
    def __init__(self):
        self.bound: list[TriggerConfig] = []
        self.unbound = threading.Event()

    def register_trigger(self, config):
        if config.config == "bad":
            raise ValueError("bad config")
        self.bound.append(config)

    def unregister_trigger(self, config):
        self.unbound.set()


class AsyncRecorder(Recorder):
    async def register_trigger(self, config):
        await asyncio.sleep(0)
        super().register_trigger(config)

    async def unregister_trigger(self, config):
        super().unregister_trigger(config)


@pytest.mark.parametrize("make", [Recorder, AsyncRecorder])
def test_a_provider_accepts_refuses_and_releases_bindings(joined, make):
    worker, engine = joined
    provider = make()
    kind = worker.register_trigger_type({"id": "tick", "description": "Ticks"}, provider)
    assert engine.expect("registertriggertype")["description"] == "Ticks"
    bind = {"type": "registertrigger", "trigger_type": "tick", "function_id": "o::f"}
    engine.send({**bind, "id": "t1", "config": {"s": 1}, "metadata": {"m": 1}, "namespace": "eu"})
    assert "error" not in engine.expect("triggerregistrationresult", id="t1")
    assert (provider.bound[0].config, provider.bound[0].namespace) == ({"s": 1}, "eu")
    engine.send({**bind, "id": "t2", "config": "bad"})
    error = engine.expect("triggerregistrationresult", id="t2")["error"]
    assert error == {"code": "trigger_registration_failed", "message": "bad config"}
    engine.send({"type": "unregistertrigger", "id": "t1", "trigger_type": "tick"})
    assert provider.unbound.wait(BOUND)
    kind.unregister()
    assert engine.expect("unregistertriggertype")["id"] == "tick"


def test_a_binding_of_an_unknown_type_is_refused(joined):
    _, engine = joined
    engine.send({"type": "registertrigger", "id": "t", "trigger_type": "no", "function_id": "f"})
    assert engine.expect("triggerregistrationresult")["error"]["code"] == "trigger_type_not_found"


# The connection


def test_the_worker_learns_its_id(joined):
    worker, engine = joined
    engine.send({"type": "workerregistered", "worker_id": "w-1", "reattach_token": "t"})
    assert worker.worker_id == "w-1"


@pytest.mark.parametrize(("text", "config"), [(None, {}), ("", {}), ('{"port":1}', {"port": 1}), ("[", {})])
def test_the_config_table_is_read_from_the_environment(joined, monkeypatch, text, config):
    monkeypatch.delenv("III_CONFIG", raising=False)
    if text is not None:
        monkeypatch.setenv("III_CONFIG", text)
    assert joined[0].config == config


def test_listeners_hear_the_state_now_and_its_changes():
    states = []
    with pair() as (worker, _):
        worker.add_connection_state_listener(states.append)
        off = worker.add_connection_state_listener(lambda state: states.append(f"other {state}"))
        off()
    assert states == ["connected", "other connected", "disconnected"]


def test_the_end_of_the_wire_fails_outstanding_and_later_calls():
    with pair() as (worker, engine):
        result = in_thread(lambda: worker.trigger("o::f"))
        next_call(engine)
    with pytest.raises(InvocationError, match="SHUTDOWN"):
        result()
    with pytest.raises(InvocationError, match="SHUTDOWN"):
        worker.trigger("o::f")


def test_a_rejected_worker_says_so_on_every_call(joined):
    worker, engine = joined
    result = in_thread(lambda: worker.trigger("o::f"))
    next_call(engine)
    engine.send({"type": "registrationrejected", "code": "WORKER_NAMESPACE_CONFLICT", "namespace": "default"})
    with pytest.raises(InvocationError, match="WORKER_NAMESPACE_CONFLICT"):
        result()
    assert worker.get_connection_state() == "failed"
    with pytest.raises(RegistrationRejectedError):
        worker.trigger("o::f")


def test_a_rejected_function_leaves_the_worker_alone(joined, capsys):
    worker, engine = joined
    worker.register_function("m::f", lambda p: p)
    engine.send(
        {
            "type": "registrationrejected",
            "code": "FUNCTION_NAMESPACE_CONFLICT",
            "namespace": "default",
            "function_id": "m::g",
            "owner_worker_id": "w",
        }
    )
    assert engine.call("m::f", 1)["result"] == 1
    assert "m::g" in capsys.readouterr().err


def test_stop_lets_running_handlers_finish():
    with pair() as (worker, engine):
        release = threading.Event()
        worker.register_function("m::slow", lambda p: release.wait(BOUND))
        engine.invoke("m::slow")
        engine.send({"type": "stop", "deadline_ms": 10_000}, {"type": "ping"})
        engine.expect("pong")
        release.set()
        assert engine.result()["result"] is True
        assert worker._dispatcher.ended.wait(BOUND)


def test_a_worker_shows_itself_in_one_line(joined):
    worker, _ = joined
    worker.register_function("m::f", print)
    assert repr(worker) == "<Worker unnamed connected, 1 functions, 0 running>"
