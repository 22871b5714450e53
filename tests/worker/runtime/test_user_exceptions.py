"""Whatever user code raises, wherever it runs, ends one call with an error that names it, and nothing else."""

from __future__ import annotations

import asyncio

import pytest

from iii import InvocationError, TriggerHandler
from iii.worker.codec.limits import MAX_LINE
from tests.support.worker_support import pair


class WithoutText(Exception):
    def __str__(self):
        raise RuntimeError("no text")


class ExitsInRepr(Exception):
    def __str__(self):
        raise SystemExit(3)

    __repr__ = __str__


class TextOfAnotherType(Exception):
    def __str__(self):
        return 5  # noqa: PLE0307 - the mistake that is tested


class WithoutNotes(Exception):
    @property
    def __notes__(self):
        raise RuntimeError("no notes")


class Endless(Exception):
    def __str__(self):
        return "x" * (MAX_LINE + 1)


class UnencodableError(InvocationError):
    def __init__(self):
        super().__init__("odd", "message", details={"object": WithoutEnd()})


class WithoutEnd:
    """Raises whatever is asked of it."""

    def __iter__(self):
        raise SystemExit(4)

    def model_dump(self, **_):
        raise KeyError("no dump")

    def __repr__(self):
        raise RuntimeError("no repr")


class BrokenItems(dict):
    def items(self):
        raise GeneratorExit


def raising(error):
    def handler(_):
        raise error

    return handler


def recursing(payload):
    return recursing(payload)


def cancelled_by_itself(_):
    raise asyncio.CancelledError


@pytest.fixture
def checked():
    """A worker; at the end it must still answer sync and async calls."""
    with pair() as (worker, engine):
        yield worker, engine

        async def echo(payload):
            return payload

        worker.register_function("alive::sync", lambda payload: payload)
        worker.register_function("alive::async", echo)
        assert engine.call("alive::sync", 1, "s")["result"] == 1
        assert engine.call("alive::async", 2, "a")["result"] == 2


ERRORS = [
    WithoutText(),
    ExitsInRepr(),
    TextOfAnotherType(),
    WithoutNotes("text"),
    Endless(),
    BaseException("base"),
    SystemExit(3),
    KeyboardInterrupt(),
    GeneratorExit(),
    StopIteration(1),
    StopAsyncIteration(),
    MemoryError(),
    RecursionError(),
    asyncio.CancelledError(),
    TimeoutError(),
    ExceptionGroup("many", [ValueError("one"), WithoutText()]),
    BaseExceptionGroup("more", [SystemExit(1)]),
    ValueError("\ud800"),
    ValueError("x" * (MAX_LINE + 1)),
    UnicodeDecodeError("utf-8", b"\xff", 0, 1, "bad"),
    InvocationError(7, WithoutText(), details={"n": float("nan")}),  # type: ignore[arg-type]
]


@pytest.mark.parametrize("error", ERRORS, ids=lambda error: type(error).__name__)
def test_an_exception_of_a_handler_is_the_answer_to_its_call(checked, error):
    worker, engine = checked

    async def raising_async(_):
        raise error

    worker.register_function("m::sync", raising(error))
    worker.register_function("m::async", raising_async)
    code = "7" if isinstance(error, InvocationError) else "invocation_failed"
    for name in ("m::sync", "m::async"):
        answer = engine.call(name, invocation_id=name)["error"]
        assert answer["code"] == code, answer
        assert answer["message"]
        assert len(answer["message"]) < 100_000


def test_the_details_of_an_error_may_be_anything(checked):
    worker, engine = checked
    worker.register_function("m::f", raising(UnencodableError()))
    assert engine.call("m::f")["error"] == {"code": "odd", "message": "message"}


def test_endless_recursion_is_one_failed_call(checked):
    worker, engine = checked
    worker.register_function("m::f", recursing)
    assert engine.call("m::f")["error"]["details"] == {"exception": "RecursionError"}


@pytest.mark.parametrize(
    "result", [WithoutEnd(), BrokenItems(a=object()), {"a": WithoutEnd()}, {1, WithoutEnd()}, object()]
)
def test_a_result_whose_methods_raise_is_one_failed_call_of_a_function_that_has_returned(checked, result):
    worker, engine = checked

    async def answer(_):
        return result

    worker.register_function("m::sync", lambda _: result)
    worker.register_function("m::async", answer)
    for name in ("m::sync", "m::async"):
        error = engine.call(name, invocation_id=name)["error"]
        assert error["code"] == "result_not_serializable"
        assert error["details"] == {"returned": True}


def test_a_cancelled_error_that_a_handler_raises_itself_is_not_blamed_on_the_caller(checked):
    worker, engine = checked

    async def awaits_a_cancelled_task(_):
        task = asyncio.get_running_loop().create_task(asyncio.sleep(10))
        task.cancel()
        await task

    worker.register_function("m::f", awaits_a_cancelled_task)
    assert engine.call("m::f")["error"]["details"] == {"exception": "CancelledError"}


@pytest.mark.parametrize("kind", [SystemExit, KeyboardInterrupt])
def test_a_task_that_exits_leaves_the_loop_to_the_other_handlers(checked, kind, capfd):
    worker, engine = checked

    async def exits():
        raise kind(3)

    tasks = []

    async def starts_it(_):
        tasks.append(asyncio.get_running_loop().create_task(exits()))
        return 1

    async def waits(_):
        await asyncio.sleep(0)
        return 2

    worker.register_function("m::starts", starts_it)
    worker.register_function("m::waits", waits)
    assert engine.call("m::starts")["result"] == 1
    assert engine.call("m::waits", invocation_id="i2")["result"] == 2
    assert isinstance(tasks[0].exception(), kind)


def test_a_handler_that_stops_its_loop_stops_no_other(checked):
    worker, engine = checked

    async def stops(_):
        asyncio.get_running_loop().stop()
        return 1

    worker.register_function("m::f", stops)
    assert engine.call("m::f")["result"] == 1
    assert engine.call("m::f", invocation_id="i2")["result"] == 1


def test_a_generator_that_refuses_to_close_is_one_failed_call(checked):
    worker, engine = checked

    def generate(_):
        try:
            while True:
                yield 1
        finally:
            raise SystemExit(5)

    worker.register_function("m::f", generate)
    engine.invoke("m::f", stream=True, window=1)
    engine.expect("invocationitem")
    engine.send({"type": "cancel", "invocation_id": "i1"})
    assert engine.result()["error"]["details"] == {"exception": "SystemExit"}


class Exiting(TriggerHandler):
    """A provider whose every answer is to leave."""

    def register_trigger(self, config):
        raise WithoutText if config.id == "b0" else SystemExit(1)

    def unregister_trigger(self, config):
        raise SystemExit(2)


class ExitingAsync(Exiting):
    async def register_trigger(self, config):
        raise SystemExit(1)


@pytest.mark.parametrize("provider", [Exiting(), ExitingAsync()])
def test_a_provider_that_exits_refuses_one_binding(checked, provider, capfd):
    worker, engine = checked
    worker.register_trigger_type({"id": "door"}, provider)
    for number in range(3):
        binding = {"id": f"b{number}", "trigger_type": "door", "function_id": "m::f", "config": {}}
        engine.send({"type": "registertrigger", **binding})
        assert engine.expect("triggerregistrationresult", id=f"b{number}")["error"]["message"]
        engine.send({"type": "unregistertrigger", **binding})


def test_a_listener_of_the_state_that_raises_keeps_no_other_from_hearing(capfd):
    heard = []

    def listen(state):
        if state != "connected":
            raise SystemExit(1)

    with pair() as (worker, _):
        worker.add_connection_state_listener(listen)
        worker.add_connection_state_listener(heard.append)
    assert heard == ["connected", "disconnected"]


def test_a_stop_is_not_held_up_by_a_listener_that_raises(capfd):
    with pair() as (worker, engine):

        def listen(seconds):
            raise WithoutText

        worker.before_stop(listen)
        engine.send({"type": "stop", "deadline_ms": 10_000})
        assert worker._dispatcher.ended.wait(20)


@pytest.mark.parametrize(
    "message",
    [
        {"type": "stop", "deadline_ms": "soon"},
        {"type": "itemstaken", "invocation_id": "i9", "count": "many"},
        {"type": "registertrigger"},
        {"type": "error", "error": 5},
        {"type": "triggerregistrationresult", "error": [1]},
        {"type": "invocationresult", "invocation_id": ["a"]},
        {"type": "registrationrejected", "code": "FUNCTION_NAMESPACE_CONFLICT", "function_id": {"a": 1}},
    ],
)
def test_a_message_of_another_form_than_the_protocol_costs_itself(checked, message, capfd):
    _, engine = checked
    engine.send(message)


def test_a_span_outlives_what_its_attributes_and_its_exception_say(checked):
    worker, engine = checked

    def work(_):
        with worker.span("s", {"o": WithoutEnd(), "n": float("nan"), 5: 1}):
            raise WithoutText

    worker.register_function("m::f", work)
    trace = {"traceparent": f"00-{'1' * 32}-{'2' * 16}-01"}
    assert engine.call("m::f", **trace)["error"]["details"] == {"exception": "WithoutText"}
    attributes = engine.expect("telemetry")["spans"][0]["attributes"]
    assert attributes == {"o": attributes["o"], "n": "nan", "5": 1}
