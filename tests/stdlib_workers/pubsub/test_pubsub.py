"""`publish` and `subscribe`: who gets what, and that nobody waits for anybody."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from iii import InvocationError
from stdlib_workers.events import Bindings
from stdlib_workers.pubsub.broadcast import MAX_IN_FLIGHT, Broadcast, Subscription
from stdlib_workers.pubsub.options import check_options
from stdlib_workers.pubsub.topics import topic_matcher
from tests.support.stand_ins import Callee, binding, until


def make(callee: Callee) -> tuple[Broadcast, Bindings[Subscription]]:
    bindings = Bindings(Subscription)
    return Broadcast(callee, bindings), bindings


@pytest.mark.parametrize(
    ("pattern", "fitting", "others"),
    [
        ("orders", ["orders"], ["order", "orders.new", "Orders", ""]),
        ("orders.*", ["orders.new", "orders."], ["orders", "orders.new.eu", "x.new"]),
        ("orders.>", ["orders.new", "orders.new.eu"], ["orders", "order.new"]),
        ("*.new", ["orders.new", "users.new"], ["orders.old", "new", "a.b.new"]),
        ("a.*.c.>", ["a.b.c.d", "a.x.c.d.e"], ["a.b.c", "a.b.d.e"]),
        (">", ["a", "a.b"], []),
        ("a.>.c", ["a.>.c"], ["a.b.c"]),
        ("a*", ["a*"], ["ab"]),
    ],
)
def test_patterns(pattern: str, fitting: list[str], others: list[str]) -> None:
    matches = topic_matcher(pattern)
    assert [topic for topic in [*fitting, *others] if matches(topic)] == fitting


async def test_every_subscriber_gets_the_raw_data_and_its_metadata() -> None:
    callee = Callee(a__f=lambda _: None, b__f=lambda _: None)
    broadcast, bindings = make(callee)
    await bindings.register_trigger(binding("a::f", {"topic": "t"}, "1", metadata={"m": 1}, namespace="n"))
    await bindings.register_trigger(binding("b::f", {"topic": "*"}, "2"))
    assert await broadcast.publish({"topic": "t", "data": [1]}) is None
    await until(lambda: len(callee.requests) == 2)
    first = next(request for request in callee.requests if request["function_id"] == "a::f")
    assert first == {"function_id": "a::f", "payload": [1], "metadata": {"m": 1}, "namespace": "n"}
    assert callee.payloads("b::f") == [[1]]


async def test_q20_a_slow_subscriber_holds_up_neither_publisher_nor_others() -> None:
    gate = asyncio.Event()

    async def slow(_: Any) -> None:
        await gate.wait()

    callee = Callee(slow__f=slow, fast__f=lambda _: None)
    broadcast, bindings = make(callee)
    await bindings.register_trigger(binding("slow::f", {"topic": "t"}, "1"))
    await bindings.register_trigger(binding("fast::f", {"topic": "t"}, "2"))
    for number in range(MAX_IN_FLIGHT + 5):
        await broadcast.publish({"topic": "t", "data": number})
        await asyncio.sleep(0)
    await until(lambda: len(callee.payloads("fast::f")) == MAX_IN_FLIGHT + 5)
    slow_one = next(iter(bindings))
    assert (slow_one.in_flight, slow_one.dropped) == (MAX_IN_FLIGHT, 5)
    assert callee.payloads("slow::f") == list(range(MAX_IN_FLIGHT))
    gate.set()
    await until(lambda: slow_one.in_flight == 0)
    assert slow_one.dropped == 0


async def test_failures_are_the_subscribers_own() -> None:
    def fail(_: Any) -> None:
        raise InvocationError("invocation_failed", "no")

    callee = Callee(a__f=fail, c__f=lambda _: None)
    broadcast, bindings = make(callee)
    for number, name in enumerate(("a::f", "missing::f", "c::f")):
        await bindings.register_trigger(binding(name, {"topic": "t"}, str(number)))
    await broadcast.publish({"topic": "t", "data": None})
    await until(lambda: callee.payloads("c::f") == [None])


async def test_a_condition_that_fails_skips_its_own_subscriber() -> None:
    callee = Callee(a__f=lambda _: None, b__f=lambda _: None)
    broadcast, bindings = make(callee)
    await bindings.register_trigger(binding("a::f", {"topic": "t", "condition_function_id": "a::missing"}, "1"))
    await bindings.register_trigger(binding("b::f", {"topic": "t"}, "2"))
    await broadcast.publish({"topic": "t", "data": 1})
    await until(lambda: callee.payloads("b::f") and all(not one.in_flight for one in bindings))
    assert callee.payloads("a::f") == []


async def test_what_nobody_wants_is_published_all_the_same_and_not_kept() -> None:
    callee = Callee(a__f=lambda _: None)
    broadcast, bindings = make(callee)
    await broadcast.publish({"topic": "t", "data": 1, "_caller_worker_id": "w"})
    await bindings.register_trigger(binding("a::f", {"topic": "t"}, "1"))
    await broadcast.publish({"topic": "t", "data": 2})
    await until(lambda: callee.payloads("a::f") == [2])


async def test_the_same_id_again_replaces_the_subscription() -> None:
    callee = Callee(a__f=lambda _: None, b__f=lambda _: None)
    broadcast, bindings = make(callee)
    await bindings.register_trigger(binding("a::f", {"topic": "t"}, "1"))
    await bindings.register_trigger(binding("b::f", {"topic": "t"}, "1"))
    await broadcast.publish({"topic": "t", "data": 1})
    await until(lambda: callee.payloads("b::f") == [1])
    assert callee.payloads("a::f") == []


def test_a_topic_that_is_no_text_refuses_the_subscription() -> None:
    with pytest.raises(InvocationError) as caught:
        Subscription(binding(config={"topic": 5}))
    assert caught.value.code == "trigger_registration_failed"


async def test_a_condition_decides_for_its_own_subscriber() -> None:
    callee = Callee(a__f=lambda _: None, a__no=lambda data: data > 1, b__f=lambda _: None)
    broadcast, bindings = make(callee)
    await bindings.register_trigger(binding("a::f", {"topic": "t", "condition_function_id": "a::no"}, "1"))
    await bindings.register_trigger(binding("b::f", {"topic": "t"}, "2"))
    for number in (1, 2):
        await broadcast.publish({"topic": "t", "data": number})
    await until(lambda: callee.payloads("a::f") == [2] and callee.payloads("b::f") == [1, 2])


async def test_unregistering_one_subscriber_leaves_the_others() -> None:
    callee = Callee(a__f=lambda _: None, b__f=lambda _: None)
    broadcast, bindings = make(callee)
    await bindings.register_trigger(binding("a::f", {"topic": "t"}, "1"))
    await bindings.register_trigger(binding("b::f", {"topic": "t"}, "2"))
    await bindings.unregister_trigger(binding(id="1"))
    await broadcast.publish({"topic": "t", "data": 1})
    await until(lambda: callee.payloads("b::f") == [1])
    assert callee.payloads("a::f") == []


@pytest.mark.parametrize("config", [None, {}, {"topic": ""}])
async def test_a_binding_without_topic_stands_and_never_fires(config: Any) -> None:
    callee = Callee(a__f=lambda _: None, b__f=lambda _: None)
    broadcast, bindings = make(callee)
    await bindings.register_trigger(binding("a::f", config, "1"))
    await bindings.register_trigger(binding("b::f", {"topic": "t"}, "2"))
    await broadcast.publish({"topic": "t", "data": 1})
    await until(lambda: callee.payloads("b::f"))
    assert callee.payloads("a::f") == []


@pytest.mark.parametrize(
    ("payload", "code"),
    [
        ({"topic": "", "data": 1}, "topic_not_set"),
        ({"topic": "t"}, "deserialization_error"),
        ({"data": 1}, "deserialization_error"),
        ({"topic": 5, "data": 1}, "deserialization_error"),
        (None, "deserialization_error"),
    ],
)
async def test_what_cannot_be_published(payload: Any, code: str) -> None:
    broadcast, _ = make(Callee())
    with pytest.raises(InvocationError) as caught:
        await broadcast.publish(payload)
    assert caught.value.code == code


def test_options() -> None:
    check_options({})
    check_options({"adapter": {"name": "local", "config": None}})
    for config in ({"adapter": {"name": "redis"}}, {"topic": 1}, {"adapter": {"name": "local", "config": {"a": 1}}}):
        with pytest.raises(ValueError, match="pubsub: "):
            check_options(config)
