"""The functions of the queue over a real store: fields, aliases, results, codes and edges of the contract."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from iii import InvocationError
from stdlib_workers.attempts import DONE, Outcome, Verdict
from stdlib_workers.queue.__main__ import Declarations, Subscribers
from stdlib_workers.queue.broker import Broker
from stdlib_workers.queue.delivery import StartedJobs
from stdlib_workers.queue.functions import Functions
from stdlib_workers.queue.model import Delivery, QueueConfig
from stdlib_workers.queue.schema import SCHEMA
from stdlib_workers.storage import Store
from tests.support.stand_ins import binding, until

FAILED = Verdict(Outcome.FAILED, {"code": "invocation_failed", "message": "no paper"})


class Bench:
    """The worker's functions without its process: what is started stands in `started` until the test settles it."""

    def __init__(self) -> None:
        self.now = 1000
        self.store = Store(None, SCHEMA)
        self.broker = Broker(self.store, "run", lambda: self.now)
        self.broker.start({"default": QueueConfig(), "jobs": QueueConfig(max_retries=1, concurrency=2)})
        self.started: list[Delivery] = []
        self.broker.scheduler.deliver_to(self._take)
        self.subscribers = Subscribers(self.broker)
        self.handlers: dict[str, Callable[[Any], Any]] = {}
        Functions(self.broker).register(self)  # type: ignore[arg-type]

    def _take(self, jobs: StartedJobs) -> None:
        self.started += jobs.deliveries

    def register_function(self, function_id: str, handler: Callable[[Any], Any], **_: Any) -> None:
        self.handlers[function_id] = handler

    def register_trigger_action(self, name: str, handler: Callable[[Any], Any], **_: Any) -> None:
        self.handlers[f"action {name}"] = handler

    async def call(self, function_id: str, /, **payload: Any) -> Any:
        return await self.handlers[function_id](payload)

    async def refusal(self, function_id: str, payload: Any) -> InvocationError:
        with pytest.raises(InvocationError) as caught:
            await self.handlers[function_id](payload)
        return caught.value

    async def enqueue(self, receipt: str, queue: str = "jobs", **fields: Any) -> Any:
        call = {"queue": queue, "function_id": "jobs::run", "messageReceiptId": receipt, "data": {"id": receipt}}
        return await self.call("engine::queue::enqueue", **call | fields)

    async def settle(self, receipt: str, verdict: Verdict = FAILED) -> None:
        """End the attempt at a job, a second later."""
        self.now += 1000
        delivery = await until(lambda: next((one for one in self.started if one.id == receipt), None))
        self.started.remove(delivery)
        await self.broker.settle(delivery, verdict)

    async def subscribe(self, id: str, function_id: str, namespace: str | None = None, **config: Any) -> None:
        config = {"topic": "orders", **config}
        await self.subscribers.register_trigger(binding(function_id, config, id, namespace=namespace))

    async def bury(self, *receipts: str) -> None:
        """Make dead letters."""
        for receipt in receipts:
            await self.enqueue(receipt)
            await self.settle(receipt)


@pytest.fixture
def bench() -> Iterator[Bench]:
    made = Bench()
    yield made
    made.store.close()


# Intake


async def test_an_enqueue_is_answered_with_the_callers_receipt(bench: Bench) -> None:
    nothing: dict[str, Any] = {"traceparent": None, "baggage": None, "namespace": None}
    assert await bench.enqueue("r1", **nothing) == {"messageReceiptId": "r1"}
    # The engine tells functions who calls; that is no field of the caller's.
    assert await bench.enqueue("r2", _caller_worker_id="w") == {"messageReceiptId": "r2"}
    await until(lambda: len(bench.started) == 2)
    delivery = bench.started[0]
    assert (delivery.id, delivery.function_id, delivery.namespace, delivery.data) == (
        "r1",
        "jobs::run",
        None,
        b'{"id":"r1"}',
    )


@pytest.mark.parametrize(
    ("fields", "code", "said"),
    [
        ({"queue": ""}, "queue_not_set", "queue"),
        ({"queue": " "}, "queue_not_set", "queue"),
        ({"function_id": ""}, "enqueue_error", "function_id"),
        ({"messageReceiptId": " "}, "enqueue_error", "messageReceiptId"),
        ({"messageReceiptId": None}, "enqueue_error", "messageReceiptId"),
        ({"queue": "nowhere"}, "enqueue_error", "define it with queue::define"),
        ({"colour": 1}, "enqueue_error", "unknown field colour"),
        ({"delay_ms": -1}, "enqueue_error", "delay_ms"),
    ],
)
async def test_an_enqueue_that_does_not_fit_is_refused(
    bench: Bench, fields: dict[str, Any], code: str, said: str
) -> None:
    payload = {"queue": "jobs", "function_id": "f", "messageReceiptId": "r", "data": 1}
    error = await bench.refusal("engine::queue::enqueue", payload | fields)
    assert (error.code, said in error.message) == (code, True)
    assert bench.started == []


@pytest.mark.parametrize("payload", [{}, {"topic": ""}, {"topic": " ", "data": 1}, {"topic": 5}, None])
async def test_a_message_needs_a_topic(bench: Bench, payload: Any) -> None:
    assert (await bench.refusal("iii::durable::publish", payload)).code == "topic_not_set"


async def test_a_topic_makes_a_copy_for_each_function_and_namespace(bench: Bench) -> None:
    await bench.subscribe("t1", "a::on")
    # The same three again: they compete for one copy.
    await bench.subscribe("t2", "a::on")
    await bench.subscribe("t3", "b::on")
    await bench.subscribe("t4", "a::on", "other")
    assert await bench.call("iii::durable::publish", queue="orders", data=[1]) is None
    await until(lambda: len(bench.started) == 3)
    targets = [(delivery.namespace, delivery.function_id, delivery.data) for delivery in bench.started]
    assert sorted(targets, key=str) == [
        ("other", "a::on", b"[1]"),
        (None, "a::on", b"[1]"),
        (None, "b::on", b"[1]"),
    ]
    stats = await bench.call("engine::queue::topic_stats", topic="orders")
    assert (stats["depth"], stats["consumer_count"]) == (3, 4)


async def test_a_subscription_without_trigger_keeps_what_comes(bench: Bench) -> None:
    await bench.subscribe("t1", "a::on")
    await bench.subscribers.unregister_trigger(binding(id="t1"))
    await bench.call("iii::durable::publish", topic="orders", data=1)
    assert (await bench.call("engine::queue::topic_stats", topic="orders"))["depth"] == 1
    assert bench.started == []
    removed = await bench.call("iii::queue::unsubscribe", topic="orders", function_id="a::on")
    assert removed == {"topic": "orders", "removed": 1}


async def test_what_nobody_has_subscribed_to_is_kept_for_the_first_and_is_no_topic_yet(bench: Bench) -> None:
    await bench.call("iii::durable::publish", topic="orders", data=1)
    assert [row["name"] for row in await bench.call("engine::queue::list_topics")] == ["default", "jobs"]
    stats = await bench.call("engine::queue::topic_stats", topic="orders")
    assert (stats["depth"], stats["consumer_count"]) == (1, 0)
    await bench.subscribe("t1", "a::on")
    await bench.subscribe("t2", "b::on")
    await until(lambda: bench.started)
    assert [delivery.function_id for delivery in bench.started] == ["a::on"]
    assert [row["name"] for row in await bench.call("engine::queue::list_topics")] == ["default", "jobs", "orders"]


async def test_dead_letters_of_all_subscribers_of_a_topic_are_one_list(bench: Bench) -> None:
    for id, function_id in (("t1", "a::on"), ("t2", "b::on")):
        await bench.subscribe(id, function_id, max_retries=1)
    await bench.call("iii::durable::publish", topic="orders", data=1)
    await until(lambda: len(bench.started) == 2)
    for delivery in tuple(bench.started):
        await bench.settle(delivery.id)
    letters = await bench.call("engine::queue::dlq_messages", topic="orders")
    assert sorted(letter["function_id"] for letter in letters) == ["a::on", "b::on"]
    assert letters[0]["failed_at"] > letters[1]["failed_at"]
    assert await bench.call("engine::queue::dlq_topics") == [
        {"topic": "orders", "broker_type": "builtin", "message_count": 2}
    ]
    assert await bench.call("iii::queue::redrive", topic="orders") == {"queue": "orders", "redriven": 2}


async def test_a_subscription_with_concurrency_0_is_paused(bench: Bench) -> None:
    await bench.subscribe("t1", "a::on", queue_config={"concurrency": 0})
    await bench.call("iii::durable::publish", topic="orders", data=1)
    assert (await bench.call("engine::queue::topic_stats", topic="orders"))["ready"] == 1
    await bench.subscribe("t1", "a::on", queue_config={"concurrency": 1})
    await until(lambda: len(bench.started) == 1)


async def test_a_queue_is_defined_once_and_by_its_trimmed_name(bench: Bench) -> None:
    assert await bench.call("queue::define", queue=" mine ") == {"queue": "mine", "changed": True}
    assert await bench.call("queue::define", queue="mine", config={}) == {"queue": "mine", "changed": False}
    changed = await bench.call("queue::define", queue="mine", config={"concurrency": 1}, _caller_worker_id="w")
    assert changed == {"queue": "mine", "changed": True}
    assert await bench.enqueue("r1", "mine") == {"messageReceiptId": "r1"}


@pytest.mark.parametrize(
    ("payload", "said"),
    [
        ({}, "name"),
        ({"queue": " "}, "blank"),
        ({"queue": "topic:x"}, "topic"),
        ({"queue": "q", "config": {"max_retry": 1}}, "max_retries"),
        ({"queue": "q", "config": {"type": "fifo"}}, "message_group_field"),
        ({"queue": "q", "config": 5}, "config"),
        ({"queue": "q", "concurrency": 5}, "unknown field concurrency"),
    ],
)
async def test_a_definition_that_cannot_be_is_refused(bench: Bench, payload: Any, said: str) -> None:
    error = await bench.refusal("queue::define", payload)
    assert (error.code, said in error.message) == ("invalid_config", True)


# Administration


async def test_topics_are_listed_once_with_the_named_queues(bench: Bench) -> None:
    await bench.subscribe("t1", "a::on")
    await bench.subscribe("t2", "b::on")
    rows = await bench.call("engine::queue::list_topics")
    assert rows == [
        {"name": "default", "broker_type": "function_queue", "subscriber_count": 10},
        {"name": "jobs", "broker_type": "function_queue", "subscriber_count": 2},
        {"name": "orders", "broker_type": "builtin", "subscriber_count": 2},
    ]


async def test_a_topic_that_nobody_knows_has_zeros(bench: Bench) -> None:
    stats = await bench.call("engine::queue::topic_stats", queue="nowhere")
    assert {"depth": 0, "consumer_count": 0, "dlq_depth": 0, "delivered": 0, "failed": 0, "config": None}.items() <= (
        stats.items()
    )
    assert await bench.call("engine::queue::dlq_messages", queue="nowhere") == []


async def test_depth_counts_what_waits_and_what_runs(bench: Bench) -> None:
    for number in range(4):
        await bench.enqueue(f"r{number}")
    await bench.enqueue("later", delay_ms=5000)
    await bench.settle("r0", DONE)
    await bench.settle("r1")
    stats = await bench.call("engine::queue::topic_stats", topic="jobs")
    figures = {"depth": 3, "running": 2, "delayed": 1, "dlq_depth": 1, "delivered": 1, "failed": 1, "consumer_count": 2}
    assert figures.items() <= stats.items()


async def test_dead_letters_are_listed_newest_first_and_in_pages(bench: Bench) -> None:
    assert await bench.call("engine::queue::dlq_topics") == []
    await bench.bury("r1", "r2", "r3")
    assert await bench.call("engine::queue::dlq_topics") == [
        {"topic": "jobs", "broker_type": "function_queue", "message_count": 3}
    ]
    letters = await bench.call("engine::queue::dlq_messages", topic="jobs")
    assert [letter["id"] for letter in letters] == ["r3", "r2", "r1"]
    expected = {
        "id": "r3",
        "payload": {"id": "r3"},
        "error": "invocation_failed: no paper",
        "failed_at": bench.now,
        "retries": 1,
        "size_bytes": len(b'{"id":"r3"}'),
    }
    assert expected.items() <= letters[0].items()
    page = await bench.call("engine::queue::dlq_messages", queue="jobs", offset=1, limit=1)
    assert [letter["id"] for letter in page] == ["r2"]


async def test_fifty_dead_letters_are_a_page(bench: Bench) -> None:
    await bench.bury(*(f"r{number}" for number in range(51)))
    assert len(await bench.call("engine::queue::dlq_messages", topic="jobs")) == 50


async def test_all_dead_letters_are_delivered_again_oldest_first_with_their_budget(bench: Bench) -> None:
    await bench.bury("r1", "r2")
    assert await bench.call("iii::queue::redrive", topic="jobs") == {"queue": "jobs", "redriven": 2}
    assert await bench.call("iii::queue::redrive", queue="jobs") == {"queue": "jobs", "redriven": 0}
    await until(lambda: len(bench.started) == 2)
    assert [(delivery.id, delivery.spent) for delivery in bench.started] == [("r1", 0), ("r2", 0)]


async def test_one_dead_letter_is_delivered_again_or_forgotten(bench: Bench) -> None:
    await bench.bury("r1", "r2")
    named = {"queue": "jobs", "message_id": "r1"}
    assert await bench.call("iii::queue::redrive_message", **named, data="new") == {**named, "redriven": 1}
    await until(lambda: [delivery.data for delivery in bench.started] == [b'"new"'])
    other = {"topic": "jobs", "message_id": "r2"}
    assert await bench.call("iii::queue::discard_message", **other) == {
        "queue": "jobs",
        "message_id": "r2",
        "redriven": 1,
    }
    for name in ("redrive_message", "discard_message"):
        # One that is delivered again is as little dead as one that is gone.
        for payload in (named, other):
            assert (await bench.refusal(f"iii::queue::{name}", payload)).code == "message_not_found"


async def test_a_paused_queue_is_looked_at_and_emptied(bench: Bench) -> None:
    assert await bench.call("iii::queue::pause", queue="jobs") == {"queue": "jobs", "paused": True, "changed": True}
    assert (await bench.call("iii::queue::pause", queue="jobs"))["changed"] is False
    for number in range(3):
        await bench.enqueue(f"r{number}")
    found = (await bench.call("iii::queue::peek", queue="jobs", offset=1, limit=1))["messages"]
    assert [(message["id"], message["state"], message["payload"]) for message in found] == [
        ("r1", "ready", {"id": "r1"})
    ]
    canceled = await bench.call("iii::queue::cancel", messageReceiptId="r1")
    assert canceled == {"message_id": "r1", "canceled": True, "state": "ready"}
    assert await bench.call("iii::queue::purge", queue="jobs") == {"queue": "jobs", "purged": 2}
    assert await bench.call("iii::queue::resume", queue="jobs") == {"queue": "jobs", "paused": False, "changed": True}
    assert bench.started == []


async def test_what_runs_is_not_canceled(bench: Bench) -> None:
    await bench.enqueue("r1")
    await until(lambda: bench.started)
    canceled = await bench.call("iii::queue::cancel", message_id="r1")
    assert canceled == {"message_id": "r1", "canceled": False, "state": "running"}


ADMINISTRATIVE = ("redrive", "redrive_message", "discard_message", "pause", "resume", "purge", "peek")


@pytest.mark.parametrize(
    ("function_id", "payload", "code"),
    [
        *[(f"iii::queue::{name}", {"message_id": "m"}, "queue_not_set") for name in ADMINISTRATIVE],
        *[(f"iii::queue::{name}", {"queue": " ", "message_id": "m"}, "queue_not_set") for name in ADMINISTRATIVE],
        *[(f"iii::queue::{name}", {"queue": "x", "message_id": "m"}, "queue_not_found") for name in ADMINISTRATIVE],
        ("iii::queue::redrive_message", {"queue": "jobs"}, "message_id_not_set"),
        ("iii::queue::discard_message", {"queue": "jobs", "message_id": ""}, "message_id_not_set"),
        ("iii::queue::cancel", {}, "message_id_not_set"),
        ("iii::queue::cancel", {"message_id": "x"}, "message_not_found"),
        ("iii::queue::unsubscribe", {"function_id": "f"}, "topic_not_set"),
        ("iii::queue::unsubscribe", {"topic": "t"}, "function_id_not_set"),
        ("engine::queue::topic_stats", {}, "topic_required"),
        ("engine::queue::topic_stats", {"topic": ""}, "topic_required"),
        ("engine::queue::dlq_messages", {"offset": 1}, "topic_required"),
        ("engine::queue::dlq_messages", {"topic": "jobs", "offset": -1}, "deserialization_error"),
        ("engine::queue::dlq_messages", {"topic": "jobs", "limit": "5"}, "deserialization_error"),
        ("engine::queue::dlq_messages", [1], "deserialization_error"),
        ("queue::define", "mine", "deserialization_error"),
    ],
)
async def test_a_call_that_does_not_fit_has_the_contracts_code(
    bench: Bench, function_id: str, payload: Any, code: str
) -> None:
    assert (await bench.refusal(function_id, payload)).code == code


async def test_an_enqueue_waits_for_a_queue_that_is_being_defined(bench: Bench) -> None:
    declarations = Declarations(bench.broker, {})
    declared = binding("jobs::run", {"queue": "declared", "max_retries": 1})
    answers = await asyncio.gather(
        declarations.register_trigger(declared),
        bench.enqueue("r1", queue="declared"),
        bench.call("queue::define", queue="defined"),
        bench.enqueue("r2", queue="defined"),
    )
    assert [answers[1], answers[3]] == [{"messageReceiptId": "r1"}, {"messageReceiptId": "r2"}]
    assert bench.broker.queues["declared"].config.max_retries == 1


async def test_a_call_with_the_action_has_its_receipt_from_the_engine(bench: Bench) -> None:
    call = {"function_id": "jobs::run", "data": 1, "messageReceiptId": "r1", "action": {"type": "enqueue"}}
    assert (await bench.refusal("action enqueue", call)).details == {"reason": "queue_not_found"}
    call["action"] = {"type": "enqueue", "queue": "default"}
    answers = await asyncio.gather(*(bench.handlers["action enqueue"](call) for _ in range(2)))
    assert answers == [{"messageReceiptId": "r1"}] * 2


# Queues that functions bring along


async def test_a_function_brings_its_queue_along_and_changes_it(bench: Bench) -> None:
    declarations = Declarations(bench.broker, {})
    await declarations.register_trigger(binding("shop::mail", {"queue": "mail", "max_retries": 5}))
    assert bench.broker.queues["mail"].config.max_retries == 5
    await declarations.register_trigger(binding("shop::mail", {"queue": "mail", "max_retries": 2}, "t2"))
    assert bench.broker.queues["mail"].config.max_retries == 2
    declarations.unregister_trigger(binding(id="t2"))
    assert bench.broker.queues["mail"].config.max_retries == 2
    await bench.enqueue("r1", "mail")
    await until(lambda: bench.started)


async def test_a_function_without_options_takes_the_queue_that_is_there(bench: Bench) -> None:
    declarations = Declarations(bench.broker, {})
    await declarations.register_trigger(binding("shop::mail", {"queue": "mail", "concurrency": 1}))
    await declarations.register_trigger(binding("shop::digest", {"queue": "mail"}, "t2"))
    await declarations.register_trigger(binding("shop::digest", {"queue": "digests"}, "t3"))
    assert bench.broker.queues["mail"].config.concurrency == 1
    assert bench.broker.queues["digests"].config == QueueConfig()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({}, "a queue's name must be a string"),
        ({"queue": "mail", "retrys": 5}, "queue mail: unknown key `retrys`"),
        ({"queue": "mail", "concurrency": 0}, "concurrency must be a whole number from 1"),
        ({"queue": "jobs", "concurrency": 3}, "queue jobs has another config in iii.toml"),
        ({"queue": "taken", "concurrency": 3}, "queue taken has other options at shop::other"),
    ],
)
async def test_a_queue_that_cannot_be_declared_refuses_its_binding(bench: Bench, config: Any, said: str) -> None:
    declarations = Declarations(bench.broker, {"jobs": QueueConfig(max_retries=1, concurrency=2)})
    await declarations.register_trigger(binding("shop::other", {"queue": "taken", "concurrency": 2}, "t9"))
    with pytest.raises(ValueError, match=said):
        await declarations.register_trigger(binding("shop::mail", config))
    await declarations.register_trigger(
        binding("shop::third", {"queue": "jobs", "max_retries": 1, "concurrency": 2}, "t3")
    )


async def test_a_queue_that_has_left_the_file_is_orphaned_until_it_is_deleted(bench: Bench) -> None:
    await bench.call("queue::define", queue="made")
    await bench.bury("dead")
    await bench.enqueue("later", key="once", delay_ms=60_000)
    after = Broker(bench.store, "run-2", lambda: bench.now)
    after.start({"default": QueueConfig()})
    bench.broker = after
    bench.handlers.clear()
    Functions(after).register(bench)  # type: ignore[arg-type]
    rows = {row["name"]: row["orphaned"] for row in (await bench.call("iii::queue::list"))["queues"]}
    assert rows == {"default": False, "jobs": True, "made": False}
    declared = await bench.refusal("iii::queue::delete", {"queue": "default"})
    assert (declared.code, "iii.toml declares the queue 'default'" in declared.message) == ("queue_in_use", True)
    assert await bench.call("iii::queue::delete", queue="jobs") == {"queue": "jobs", "deleted": 2}
    assert (await bench.refusal("iii::queue::delete", {"queue": "jobs"})).code == "queue_not_found"
    await bench.call("queue::define", queue="jobs", config={"max_retries": 1})
    # Nothing of the old queue is left: neither its letters nor its keys.
    assert await bench.call("engine::queue::dlq_messages", topic="jobs") == []
    receipt = await bench.enqueue("again", key="once", delay_ms=60_000)
    assert receipt == {"messageReceiptId": "again"}
    assert await bench.call("iii::queue::delete", queue="jobs") == {"queue": "jobs", "deleted": 1}


async def test_a_queue_with_a_running_job_is_not_deleted(bench: Bench) -> None:
    await bench.call("queue::define", queue="made")
    await bench.enqueue("runs", queue="made")
    await until(lambda: bench.started or None)
    refusal = await bench.refusal("iii::queue::delete", {"queue": "made"})
    assert (refusal.code, "1 jobs of the queue 'made' run" in refusal.message) == ("queue_in_use", True)
    await bench.settle("runs", DONE)
    assert await bench.call("iii::queue::delete", queue="made") == {"queue": "made", "deleted": 0}


async def test_a_function_that_brings_an_orphaned_queue_along_adopts_it(bench: Bench) -> None:
    after = Broker(bench.store, "run-2", lambda: bench.now)
    after.start({})
    config = after.queues["jobs"].config
    assert after.is_orphaned(after.queues["jobs"])
    await Declarations(after, {}).register_trigger(binding("jobs::run", {"queue": "jobs"}, "b"))
    assert not after.is_orphaned(after.queues["jobs"])
    assert (after.queues["jobs"].config.max_retries, config.max_retries) == (1, 1)
