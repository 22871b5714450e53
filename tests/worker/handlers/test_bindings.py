"""What decorators register: one function, one trigger each; and what callers of the function get."""

from __future__ import annotations

import asyncio
import enum
import functools
from collections.abc import AsyncIterator, Callable, Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import pydantic
import pytest

from iii import Header, HttpError, InitOptions, InvocationError, Response
from iii.testing import Engine
from tests.support.worker_support import pair

if TYPE_CHECKING:
    from decimal import Decimal  # found by type checkers alone


@dataclass
class Order:
    item: str
    quantity: int = 1


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine() as made:
        yield made


@pytest.fixture
def jobs(engine: Engine) -> list[Any]:
    """What the queue worker would get."""
    return engine.fake("engine::queue::enqueue").calls


def configs(engine: Engine, trigger_type: str) -> list[Any]:
    return [binding.config for binding in engine.bindings(trigger_type)]


def test_one_function_has_one_registration_and_a_trigger_for_each_decorator(engine: Engine) -> None:
    worker = engine.worker("shop")

    @worker.cron("@daily", arguments={"order": {"item": "tea"}}, timezone="Europe/Berlin", metadata={"by": "clock"})
    @worker.on_state("orders", "last")
    @worker.on_stream("orders", group_id="eu")
    @worker.subscribe("orders.*", condition_function_id="shop::wants")
    @worker.on("doorbell", door="front")
    @worker.queue("orders", retries=5, backoff="2s", timeout=1.5)
    @worker.route("/orders", methods=["post", "PUT"], status=201, cancel=True)
    @worker.websocket("/orders", arguments={"order": {"item": "cup"}})
    def order(order: Order) -> str:
        """Take an order."""
        return order.item

    assert order(Order("cup")) == "cup"
    assert engine.call("shop::order", order={"item": "tea"}) == "tea"
    first, second = configs(engine, "http")
    body = {"order": {"in": "body", "required": True}}
    assert first == {
        "api_path": "/orders",
        "http_method": "POST",
        "status": 201,
        "cancel": True,
        "stream": False,
        "payload": "arguments",
        "arguments": body,
    }
    assert second == {**first, "http_method": "PUT"}
    assert configs(engine, "queue") == [{"queue": "orders", "max_retries": 5, "backoff_ms": 2000, "timeout_ms": 1500}]
    whole = {"payload": "arguments", "arguments": {"order": {"in": "event", "required": True}}}
    assert configs(engine, "subscribe") == [
        {"topic": "orders.*", "condition_function_id": "shop::wants", **whole},
    ]
    assert configs(engine, "doorbell") == [{"door": "front", **whole}]
    part = {"in": "event", "name": "event.data", "required": True}
    assert configs(engine, "stream") == [
        {"stream_name": "orders", "group_id": "eu", "payload": "arguments", "arguments": {"order": part}}
    ]
    assert configs(engine, "state")[0]["key"] == "last"
    (tick,) = engine.bindings("cron")
    assert tick.metadata == {"by": "clock"}
    assert tick.config == {
        "expression": "@daily",
        "timezone": "Europe/Berlin",
        "payload": "arguments",
        "arguments": {"order": {"value": {"item": "tea"}}},
    }
    assert {binding.function_id for kind in ("http", "state", "cron") for binding in engine.bindings(kind)} == {
        "shop::order"
    }


@pytest.mark.parametrize("method", ["get", "post", "put", "patch", "delete"])
def test_each_method_has_its_decorator(engine: Engine, method: str) -> None:
    worker = engine.worker("shop")

    @getattr(worker, method)("/ping")
    def ping() -> str:
        return "pong"

    assert [config["http_method"] for config in configs(engine, "http")] == [method.upper()]


def test_a_function_with_one_dict_gets_it_by_name_and_one_that_takes_the_payload_whole_gets_the_event(
    engine: Engine,
) -> None:
    worker = engine.worker("shop")

    @worker.post("/hook")
    def hook(sent: dict[str, Any]) -> dict[str, Any]:
        return sent

    @worker.post("/plain")
    @worker.function("shop::plain")
    def plain(sent: dict[str, Any]) -> dict[str, Any]:
        return sent

    assert engine.call("shop::hook", sent={"a": 1}) == {"a": 1}
    assert engine.call("shop::plain", {"a": 1}) == {"a": 1}
    first, second = configs(engine, "http")
    assert first["arguments"] == {"sent": {"in": "body", "required": True}}
    assert second == {"api_path": "/plain", "http_method": "POST"}
    assert "stream" not in second


def test_the_id_may_be_given_and_a_second_one_is_refused(engine: Engine) -> None:
    worker = engine.worker("shop")

    @worker.get("/a")
    @worker.get("/b", function_id="tea::pour")
    def pour() -> str:
        return "tea"

    assert engine.call("tea::pour") == "tea"
    with pytest.raises(ValueError, match=r"is tea::pour already; give function_id='x::y' to the lowest decorator"):
        worker.get("/c", function_id="x::y")(pour)


def test_the_worker_of_an_id_is_named_by_its_options_then_by_the_engine_then_by_its_script(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def ping() -> str:
        return "pong"

    monkeypatch.setenv("III_WORKER_NAME", "named")
    for options, name in ((InitOptions(worker_name="own"), "own"), (None, "named")):
        with pair(options=options) as (worker, wire):
            worker.get("/ping")(ping)
            assert wire.expect("registerfunction")["id"] == f"{name}::ping"
    monkeypatch.delenv("III_WORKER_NAME")
    monkeypatch.setattr("sys.modules", {**__import__("sys").modules})
    with pair() as (worker, wire):
        worker.get("/ping")(ping)
        assert wire.expect("registerfunction")["id"] == f"{worker._function_prefix()}::ping"
        assert ":" not in worker._function_prefix()


def test_partials_bound_methods_and_callables_are_functions_too(engine: Engine) -> None:
    worker = engine.worker("shop")

    class Till:
        def open(self, amount: int) -> int:
            return amount

        def __call__(self, amount: int) -> int:
            return -amount

    worker.post("/open")(Till().open)
    worker.post("/call", function_id="shop::call")(Till())
    worker.post("/ten", function_id="shop::ten")(functools.partial(lambda amount, more: amount + more, more=10))
    assert engine.call("shop::open", amount=5) == 5
    assert engine.call("shop::call", amount=5) == -5
    assert engine.call("shop::ten", amount=5) == 15


def unresolved(value: Decimal) -> None: ...


def unresolved_result() -> Decimal: ...


class Till:
    def open(self, amount: int) -> None: ...


def by_position(amount: int, /) -> None: ...
def takes_path(file: Path) -> None: ...
def takes_callables(hooks: list[Callable[[int], int]]) -> None: ...


@pytest.mark.parametrize(
    ("function", "said"),
    [
        (unresolved, r"test_bindings.py:\d+: unresolved\(\): the annotation 'Decimal' of value cannot be resolved"),
        (unresolved_result, r"the annotation 'Decimal' of the result cannot be resolved: NameError"),
        (Till.open, r"test_bindings.py:\d+: open\(\): there is no self .* decorator\(object.method\)"),
        (by_position, "amount can be given by position only"),
        (takes_path, r"test_bindings.py:\d+: takes_path\(\): file is a Path, and no JSON becomes one"),
        (takes_callables, r"takes_callables\(\): hooks is a collections.abc.Callable\[\[int\], int\], and no JSON"),
        (Order, r"Order\(\): Order is a class; decorate a function that makes one"),
        (lambda: None, "has no name; give function_id='service::name'"),
        (7, "7 cannot be called"),
    ],
)
def test_what_is_no_function_for_a_decorator_is_refused_with_its_place(
    engine: Engine, function: Any, said: str
) -> None:
    worker = engine.worker("shop")
    for decorate in (worker.post("/x"), worker.queue("x")):
        with pytest.raises(TypeError, match=said):
            decorate(function)
    assert configs(engine, "http") == []
    assert worker._receiver.functions == {}


def test_a_function_that_takes_any_keyword_is_refused_where_arguments_go_by_name(engine: Engine) -> None:
    worker = engine.worker("shop")

    def wrapper(*args: int, **options: int) -> int:
        return len(options)

    for decorate in (worker.get("/x"), worker.cron("* * * * *"), worker.on_state("x"), worker.subscribe("x")):
        with pytest.raises(TypeError, match=r"wrapper\(\): it takes any keyword, .* functools.wraps"):
            decorate(wrapper)
    assert worker.queue("x")(wrapper)(a=1) == 1
    assert engine.call("shop::wrapper", a=1, b=2) == 2


class Cents(int): ...


class Access(enum.Flag):
    READ = 1
    WRITE = 2


def test_numbers_of_a_class_of_ones_own_are_made(engine: Engine) -> None:
    worker = engine.worker("shop")

    @worker.post("/prices")
    def price(cents: Cents, access: Access) -> list[str]:
        return [type(cents).__name__, str(access)]

    assert engine.call("shop::price", cents=3.0, access=3) == ["Cents", str(Access.READ | Access.WRITE)]
    for wrong in ({"cents": "x", "access": 1}, {"cents": 1, "access": "READ"}):
        with pytest.raises(InvocationError, match="must be an integer"):
            engine.call("shop::price", **wrong)


@dataclass
class Rated:
    stars: int

    def __post_init__(self) -> None:
        if self.stars > 5:
            raise ValueError("stars go to 5")


class Booked(pydantic.BaseModel):
    seats: list[int]

    @pydantic.field_validator("seats")
    @classmethod
    def judge(cls, seats: list[int]) -> list[int]:
        if 13 in seats:
            raise ValueError("there is no seat 13")
        return seats


def test_what_a_class_refuses_by_itself_is_said_in_its_words() -> None:
    with Engine(["http"]) as engine:
        worker = engine.worker("shop")

        @worker.post("/rated")
        def rate(rated: Rated) -> None: ...

        @worker.post("/booked")
        def book(booked: Booked) -> None: ...

        refused = engine.http.post("/rated", json={"stars": 6})
        assert (refused.status_code, refused.json()["error"]["message"]) == (422, "body: stars go to 5")
        refused = engine.http.post("/booked", json={"seats": [1, 13]})
        said = "body.seats: Value error, there is no seat 13"
        assert (refused.status_code, refused.json()["error"]["message"]) == (422, said)
        with pytest.raises(InvocationError, match=r"shop::book: booked\.seats: Value error, there is no seat 13$"):
            engine.call("shop::book", booked={"seats": [13]})


def test_a_binding_in_plain_data_says_whether_its_function_yields_as_far_as_that_is_known(engine: Engine) -> None:
    worker = engine.worker("shop")

    def bind(function_id: str, **config: Any) -> Any:
        config = {"api_path": function_id, "payload": "arguments", "arguments": {}, **config}
        worker.register_trigger({"type": "http", "function_id": function_id, "config": config})
        return configs(engine, "http")[-1].get("stream")

    def value() -> int:
        return 1

    def items() -> Iterator[int]:
        yield 1

    def either():  # type: ignore[no-untyped-def]
        return 1

    for function in (value, items, either):
        worker.function(f"shop::{function.__name__}")(function)
    assert [bind("shop::value"), bind("shop::items"), bind("shop::either")] == [False, True, None]
    assert bind("shop::value", stream=True) is True
    assert bind("shop::value", payload="event", arguments=None) is None
    assert bind("other::function") is None


def test_a_mistake_of_a_parameter_names_file_and_line_and_registers_nothing(engine: Engine) -> None:
    worker = engine.worker("shop")

    def order(order: Order) -> None: ...

    with pytest.raises(TypeError, match=rf"{__file__}:\d+: order\(\): order would be the body"):
        worker.get("/orders")(order)
    assert worker._receiver.functions == {}


def test_an_unresolved_annotation_of_a_typed_function_is_an_error_and_of_a_plain_one_none(engine: Engine) -> None:
    worker = engine.worker("shop")
    with pytest.raises(TypeError, match=r"shop::f: the annotation 'Decimal' of value cannot be resolved"):
        worker.function("shop::f")(unresolved)
    worker.register_function("shop::f", unresolved)
    assert engine.call("shop::f", 1) is None


def test_an_annotation_that_is_no_python_is_not_called_a_missing_import(engine: Engine) -> None:
    @dataclass
    class Broken:
        size: Any

    def take(value: Any) -> None: ...

    def take_broken(broken: Broken) -> None: ...

    worker = engine.worker("shop")
    Broken.__annotations__["size"] = take.__annotations__["value"] = "int |"
    for function, place in ((take, "of value"), (take_broken, r"of Broken.size .*")):
        words = rf"{place} cannot be resolved: SyntaxError: .*; write a type as Python has them$"
        with pytest.raises(TypeError, match=words):
            worker.function("shop::f")(function)


def test_classes_of_a_function_that_still_runs_are_found(engine: Engine) -> None:
    worker = engine.worker("shop")

    class Size(str):
        pass

    @dataclass
    class Box:
        size: Size

    @worker.post("/boxes")
    def pack(box: Box) -> str:
        return type(box.size).__name__

    assert engine.call("shop::pack", box={"size": "small"}) == "Size"
    with pytest.raises(InvocationError, match=r"box\.size must be a string"):
        engine.call("shop::pack", box={"size": 5})


def test_generators_of_both_kinds_stream(engine: Engine) -> None:
    worker = engine.worker("shop")

    @worker.get("/count")
    def count(to: int = 2) -> Iterator[int]:
        yield from range(to)

    @worker.get("/acount")
    async def acount(to: int = 2) -> AsyncIterator[int]:
        for number in range(to):
            yield number

    assert list(worker.stream("shop::count", {"to": 3})) == [0, 1, 2]
    assert list(worker.stream("shop::acount", {"to": 3})) == [0, 1, 2]


def yields() -> Any:
    yield 1


async def yields_later() -> Any:
    yield 1


def returns_iterator() -> Iterator[int]:
    return iter([1])


def returns_anything() -> Any: ...


def returns_untold():  # type: ignore[no-untyped-def]
    ...


def returns_nothing() -> None: ...


def returns_either() -> Order | Response: ...  # type: ignore[empty-body]


async def returns_later() -> Any: ...


@pytest.mark.parametrize(
    ("function", "streams"),
    [
        (yields, True),
        (yields_later, True),
        (functools.partial(yields), True),
        (returns_iterator, True),
        (returns_anything, None),
        (returns_untold, None),
        (returns_nothing, False),
        (returns_either, False),
        (returns_later, False),
    ],
)
def test_the_http_worker_learns_whether_a_function_yields(
    engine: Engine, function: Any, *, streams: bool | None
) -> None:
    worker = engine.worker("shop")
    worker.get("/x", function_id="shop::x")(function)
    worker.subscribe("x")(function)
    assert [config.get("stream") for config in configs(engine, "http") + configs(engine, "subscribe")] == [
        streams,
        None,
    ]


def test_a_wrong_result_names_the_function_and_a_response_beside_a_model_fits(engine: Engine) -> None:
    worker = engine.worker("shop")

    @worker.get("/a")
    def wrong() -> int:
        return "many"  # type: ignore[return-value]

    @worker.get("/b")
    def either(plain: bool) -> Order | Response:
        return Order("tea") if plain else Response("no tea", status=418)

    with pytest.raises(InvocationError, match="shop::wrong returned what its response format does not admit"):
        engine.call("shop::wrong")
    assert engine.call("shop::either", plain=True) == {"item": "tea", "quantity": 1}
    assert engine.call("shop::either", plain=False)["status_code"] == 418


def test_the_caller_of_a_function_that_answers_with_an_error_learns_the_status(engine: Engine) -> None:
    worker = engine.worker("shop")

    @worker.get("/orders/{id}")
    def order(id: int) -> Order:
        raise HttpError(404, f"no order {id}", details={"id": id})

    @worker.get("/pass")
    def passed_on() -> Any:
        return worker.trigger("shop::order", {"id": 7})

    with pytest.raises(InvocationError) as caught:
        engine.call("shop::order", id=7)
    error = caught.value
    assert (error.code, error.message, error.details) == ("not_found", "no order 7", {"id": 7, "http_status": 404})
    assert error.stacktrace is None
    with pytest.raises(InvocationError) as caught:
        engine.call("shop::passed_on")
    assert (caught.value.code, caught.value.details) == ("not_found", {"id": 7})
    assert caught.value.stacktrace is not None


def test_a_text_class_arrives_as_itself_and_a_place_is_a_text(engine: Engine) -> None:
    worker = engine.worker("shop")
    seen: list[Any] = []

    class UserId(str):
        pass

    @worker.get("/seen")
    def see(user: UserId, agent: Header, count: Annotated[int, "How many.", Header()], other: UserId | int = 0) -> None:
        seen.extend([user, agent, count, other])

    engine.call("shop::see", user="ada", agent="curl", count=3, other=5)
    assert [type(value) for value in seen] == [UserId, Header, int, int]
    assert seen == ["ada", "curl", 3, 5]
    with pytest.raises(InvocationError, match="user"):
        engine.call("shop::see", user=5, agent="curl", count=3)


# Queues


def test_enqueue_makes_a_job_of_a_call(engine: Engine, jobs: list[Any]) -> None:
    worker = engine.worker("shop")

    @worker.queue("mail")
    def mail(to: str, text: str = "Hello", metadata: Any = None) -> str:
        """Send a mail."""
        return f"{text} {to}"

    assert mail("ada", text="Hi") == "Hi ada"
    assert (mail.__name__, mail.__doc__, mail.queue, mail.function_id) == (
        "mail",
        "Send a mail.",
        "mail",
        "shop::mail",
    )
    assert repr(mail) == "<QueuedFunction shop::mail in mail>"
    mail.enqueue("ada", text="Hi", delay="10s", key="k1", priority=3)
    mail.using(delay=0.5, group="g").enqueue(to="bob")
    sent = [{key: job.get(key) for key in ("function_id", "data", "queue", "delay_ms", "key")} for job in jobs]
    assert sent == [
        {
            "function_id": "shop::mail",
            "data": {"to": "ada", "text": "Hi"},
            "queue": "mail",
            "delay_ms": 10000,
            "key": "k1",
        },
        {"function_id": "shop::mail", "data": {"to": "bob"}, "queue": "mail", "delay_ms": 500, "key": None},
    ]
    assert [engine.call(job["function_id"], job["data"]) for job in jobs] == ["Hi ada", "Hello bob"]


def test_enqueue_has_an_async_twin(engine: Engine, jobs: list[Any]) -> None:
    worker = engine.worker("shop")

    @worker.queue("mail")
    async def mail(to: str) -> str:
        return to

    async def both() -> str:
        await mail.enqueue_async(to="ada", group="g")
        return await mail("ada")

    assert asyncio.run(both()) == "ada"
    assert jobs[0]["group"] == "g"


def test_a_parameter_goes_before_an_option_of_its_name(engine: Engine, jobs: list[Any]) -> None:
    worker = engine.worker("shop")

    @worker.queue("doors")
    def unlock(key: str, **more: Any) -> None: ...

    unlock.using(key="once").enqueue(key="brass", color="red")
    assert (jobs[0]["data"], jobs[0]["key"]) == ({"key": "brass", "color": "red"}, "once")


@pytest.mark.parametrize(
    ("args", "kwargs", "said"),
    [
        ((), {}, "mail.enqueue needs 'to'; its arguments are to, text"),
        (("a", "b", "c"), {}, "mail.enqueue has too many"),
        (("a",), {"to": "b"}, "mail.enqueue takes no argument 'to'"),
        (("a",), {"txt": "b"}, "mail.enqueue takes no argument 'txt'"),
        (("a",), {"metadata": 1}, "mail.enqueue takes no argument 'metadata'"),
    ],
)
def test_arguments_that_do_not_fit_are_refused_before_there_is_a_job(
    engine: Engine, jobs: list[Any], args: Any, kwargs: Any, said: str
) -> None:
    @engine.worker("shop").queue("mail")
    def mail(to: str, text: str = "", metadata: Any = None) -> None: ...

    with pytest.raises(TypeError, match=said):
        mail.enqueue(*args, **kwargs)
    assert jobs == []


@pytest.mark.parametrize("duration", ["10", "soon", -1, True, float("nan"), float("inf")])
def test_what_is_no_duration_is_refused(engine: Engine, duration: Any) -> None:
    worker = engine.worker("shop")
    with pytest.raises(ValueError, match="duration"):
        worker.queue("mail", backoff=duration)

    @worker.queue("mail")
    def mail() -> None: ...

    with pytest.raises(ValueError, match="duration"):
        mail.enqueue(delay=duration)


def test_a_function_that_takes_its_payload_whole_is_enqueued_with_it(engine: Engine, jobs: list[Any]) -> None:
    worker = engine.worker("shop")

    @worker.queue("mail")
    @worker.function("shop::mail")
    def mail(payload: dict[str, Any]) -> dict[str, Any]:
        return payload

    mail.enqueue({"to": "ada"})
    assert [engine.call(job["function_id"], job["data"]) for job in jobs] == [{"to": "ada"}]
