"""The dispatcher between a store and a worker: which ends of calls it writes down, and which it leaves open."""

from __future__ import annotations

import asyncio
from threading import Event
from typing import Any

import orjson
import pytest

from iii import InvocationError
from stdlib_workers.queue.broker import Broker
from stdlib_workers.queue.dispatcher import Dispatcher
from stdlib_workers.queue.model import NewJob, Queue, QueueConfig
from stdlib_workers.queue.options import parse_config, parse_subscriber
from stdlib_workers.queue.schema import SCHEMA
from stdlib_workers.storage import Store
from tests.support.stand_ins import Callee, until


class Stage:
    """A broker on a store in memory, its dispatcher, and the worker they call through."""

    def __init__(self, *, min_overrun: float = 60.0, **config: Any) -> None:
        self.store = Store(None, SCHEMA)
        self.broker = Broker(self.store, "run-1", lambda: 1000)
        self.broker.start({"jobs": QueueConfig(**config)})
        self.callee = Callee()
        self.dispatcher = Dispatcher(self.callee, self.broker, lambda: 1000, min_overrun=min_overrun)  # type: ignore[arg-type]

    async def enqueue(self, **fields: Any) -> None:
        """Take one job in; that starts it."""
        await self.broker.enqueue(self.broker.queues["jobs"], NewJob("job-1", "jobs::run", b"{}", **fields))

    async def counts(self) -> dict[str, Any]:
        """Return the figures of the queue."""
        [figures] = await self.broker.counts([self.broker.queues["jobs"]])
        return figures


async def test_the_end_of_the_engine_is_not_written_down_as_the_jobs_end() -> None:
    stage = Stage()
    told = asyncio.Event()

    def run(_: Any) -> None:
        told.set()
        raise InvocationError("SHUTDOWN", "the connection to the engine has ended")

    stage.callee.functions["jobs::run"] = run
    await stage.enqueue()
    await told.wait()
    figures = await stage.counts()
    assert (figures["running"], figures["failed"]) == (1, 0)
    next_run = Broker(stage.store, "run-2", lambda: 2000)
    assert next_run.start({}) == 1
    [row] = await next_run.peek(next_run.queues["jobs"], 0, 10)
    assert (row["state"], row["attempt"], row["failures"]) == ("ready", 1, 0)
    stage.store.close()


async def test_30_a_delayed_job_is_on_time_though_the_timer_has_not_counted_the_sleep_of_the_machine() -> None:
    now = [1000]
    store = Store(None, SCHEMA)
    broker = Broker(store, "run-1", lambda: now[0])
    broker.start({"default": QueueConfig()})
    callee, ran = Callee(), asyncio.Event()
    callee.functions["jobs::run"] = lambda _: ran.set()
    dispatcher = Dispatcher(callee, broker, lambda: now[0], longest_sleep=0.01)  # type: ignore[arg-type]
    await broker.enqueue(broker.queues["default"], NewJob("job-1", "jobs::run", b"{}", delay_ms=3_600_000))
    await until(lambda: dispatcher._due is not None)
    now[0] += 7_200_000
    async with asyncio.timeout(30):
        await ran.wait()
    store.close()


async def test_an_answer_is_written_down() -> None:
    stage = Stage()
    stage.callee.functions["jobs::run"] = lambda _: None
    await stage.enqueue()
    await until(lambda: stage.callee.requests)
    while (await stage.counts())["depth"]:
        continue
    assert (await stage.counts())["delivered"] == 1
    stage.store.close()


async def test_the_function_gets_the_data_with_the_job_beside_it() -> None:
    stage = Stage(timeout_ms=5000)
    stage.callee.functions["jobs::run"] = lambda _: None
    baggage = "iii.tag.kind=button, iii.tag.hidden=true,tenant=acme,iii.tag.display_name=x,iii.tag.env=test"
    await stage.enqueue(namespace="n", metadata=b'{"note":1}', traceparent="00-a-b-01", baggage=baggage)
    await until(lambda: stage.callee.requests)
    assert stage.callee.requests == [
        {
            "function_id": "jobs::run",
            "payload": {},
            "timeout_ms": 5000,
            "namespace": "n",
            "metadata": {
                "note": 1,
                "iii.job": {
                    "id": "job-1",
                    "queue": "jobs",
                    "attempt": 1,
                    "failures": 0,
                    "max_attempts": 3,
                    "enqueued_at": 1000,
                    "retry_in_ms": 1000,
                },
            },
            "trace": {"traceparent": "00-a-b-01", "baggage": "tenant=acme,iii.tag.env=test"},
            "awaits_end": True,
        }
    ]
    stage.store.close()


async def test_metadata_that_is_no_object_arrives_as_it_is() -> None:
    stage = Stage()
    stage.callee.functions["jobs::run"] = lambda _: None
    await stage.enqueue(metadata=b"[1]", baggage="iii.tag.hidden=true")
    await until(lambda: stage.callee.requests)
    [request] = stage.callee.requests
    assert (request["metadata"], request["trace"]["baggage"]) == ([1], None)
    stage.store.close()


@pytest.mark.parametrize(
    ("verdict", "runs"), [(False, False), (None, True), (0, True), ("", True), ({}, True), (True, True)]
)
async def test_only_an_explicit_false_of_the_condition_blocks_and_the_job_counts_as_done(
    verdict: Any, runs: bool
) -> None:
    stage = Stage(condition_function_id="jobs::ask")
    stage.callee.functions |= {"jobs::run": lambda _: None, "jobs::ask": lambda _: verdict}
    await stage.enqueue()
    await until(lambda: stage.callee.payloads("jobs::ask") == [{}])
    while (await stage.counts())["depth"]:
        continue
    assert stage.callee.payloads("jobs::run") == ([{}] if runs else [])
    assert (await stage.counts())["delivered"] == 1
    stage.store.close()


async def test_a_condition_that_fails_spends_an_attempt() -> None:
    def ask(_: Any) -> None:
        raise InvocationError("invocation_failed", "broken")

    stage = Stage(condition_function_id="jobs::ask", max_retries=1)
    stage.callee.functions |= {"jobs::run": lambda _: None, "jobs::ask": ask}
    await stage.enqueue()
    await until(lambda: stage.callee.requests)
    while (await stage.counts())["depth"]:
        continue
    figures = await stage.counts()
    assert (figures["delivered"], figures["failed"], figures["dlq_depth"]) == (0, 1, 1)
    assert stage.callee.payloads("jobs::run") == []
    stage.store.close()


async def test_jobs_that_come_together_go_in_and_start_together() -> None:
    stage = Stage(concurrency=3)
    gate = Event()
    stage.store.run(lambda _: gate.wait(10))
    queue = stage.broker.queues["jobs"]
    waiting = [stage.broker.enqueue(queue, NewJob(f"job-{n % 5}", "jobs::run", b"{}")) for n in range(6)]
    tasks = [asyncio.ensure_future(each) for each in waiting]
    started: list[list[str]] = []
    stage.broker.scheduler.deliver_to(lambda jobs: started.append([delivery.id for delivery in jobs.deliveries]))
    await asyncio.sleep(0)
    gate.set()
    assert await asyncio.gather(*tasks) == [f"job-{n % 5}" for n in range(6)]
    assert [job for jobs in started for job in jobs] == ["job-0", "job-1", "job-2"]
    assert (await stage.counts())["depth"] == 5
    stage.store.close()


async def test_a_queue_that_was_removed_starts_nothing() -> None:
    stage = Stage()
    await stage.store.run(lambda connection: connection.execute("DELETE FROM queues"))
    await stage.enqueue()
    assert stage.callee.requests == []
    stage.store.close()


async def test_a_job_whose_result_cannot_be_kept_is_done() -> None:
    def run(_: Any) -> None:
        details = {"returned": True}
        raise InvocationError("result_not_serializable", "$.connection: object", "jobs::run", details=details)

    stage = Stage(backoff_ms=1)
    stage.callee.functions["jobs::run"] = run
    await stage.enqueue()
    await until(lambda: stage.callee.requests)
    while (await stage.counts())["depth"]:
        continue
    figures = await stage.counts()
    assert (figures["delivered"], figures["failed"], figures["dlq_depth"]) == (1, 0, 0)
    assert len(stage.callee.requests) == 1
    stage.store.close()


@pytest.mark.parametrize(
    ("code", "failed"), [("cancelled", 1), ("invocation_stopped", 1), (None, 0)], ids=["cancelled", "replaced", "late"]
)
async def test_a_job_over_its_timeout_keeps_its_group_until_its_handler_has_ended(
    code: str | None, failed: int
) -> None:
    stage = Stage(type="fifo", message_group_field="g", max_retries=1, timeout_ms=1)
    ends = asyncio.Event()

    async def run(payload: Any) -> None:
        if payload == {}:
            await asyncio.sleep(0.01)  # over the timeout
            await ends.wait()
            if code:
                raise InvocationError(code, "the caller gave up", "jobs::run", details={"reason": "restart"})

    stage.callee.functions["jobs::run"] = run
    await stage.enqueue(group="a")
    queue = stage.broker.queues["jobs"]
    await stage.broker.enqueue(queue, NewJob("job-2", "jobs::run", b"2", group="a"))
    await until(lambda: stage.callee.requests)
    await asyncio.sleep(0.02)  # longer than the timeout
    figures = await stage.counts()
    assert (figures["running"], figures["behind"], stage.callee.payloads("jobs::run")) == (1, 1, [{}])
    ends.set()
    await until(lambda: len(stage.callee.requests) == 2)
    while (await stage.counts())["depth"]:
        continue
    figures = await stage.counts()
    assert (figures["failed"], figures["dlq_depth"], figures["delivered"]) == (failed, failed, 2 - failed)
    if failed:
        [letter] = await stage.broker.letters([queue], 0, 10)
        assert letter["error"] == "TIMEOUT: jobs::run: invocation timed out after 1ms"
    stage.store.close()


async def test_a_handler_that_goes_on_for_ever_has_its_worker_replaced(capsys: pytest.CaptureFixture[str]) -> None:
    stage = Stage(max_retries=1, timeout_ms=1, min_overrun=0.001)
    replaced = asyncio.Event()

    async def run(_: Any) -> None:
        await replaced.wait()
        raise InvocationError("invocation_stopped", "restarted", "jobs::run", details={"reason": "restart"})

    stage.callee.functions |= {
        "jobs::run": run,
        "engine::functions::info": lambda payload: {"worker_name": f"owner of {payload['function_id']}"},
        "engine::workers::restart": lambda _: replaced.set(),
    }
    await stage.enqueue()
    await replaced.wait()
    assert stage.callee.payloads("engine::workers::restart") == [{"name": "owner of jobs::run"}]
    while (await stage.counts())["depth"]:
        continue
    assert (await stage.counts())["dlq_depth"] == 1
    assert "is restarted" in capsys.readouterr().err
    stage.store.close()


ARGUMENTS = {"id": {"in": "event", "name": "order.id", "required": True}, "by": {"value": "ada"}}


async def subscribe(stage: Stage, **config: Any) -> None:
    topic, queue_config = parse_subscriber(
        {"topic": "orders", "payload": "arguments", "arguments": ARGUMENTS, **config}
    )
    await stage.broker.bind(Queue(0, "topic:orders>jobs::run", queue_config, topic, None, "jobs::run"), "t1")


async def publish(stage: Stage, data: Any) -> None:
    await stage.broker.publish("orders", lambda queue: NewJob("job-1", "jobs::run", orjson.dumps(data)))


async def test_a_subscriber_gets_the_arguments_in_a_message_and_its_condition_the_message() -> None:
    stage = Stage()
    stage.callee.functions |= {"jobs::run": lambda _: None, "jobs::is_wanted": lambda _: True}
    await subscribe(stage, condition_function_id="jobs::is_wanted")
    await publish(stage, {"order": {"id": 7}})
    await until(lambda: stage.callee.payloads("jobs::run"))
    assert stage.callee.payloads("jobs::is_wanted") == [{"order": {"id": 7}}]
    assert stage.callee.payloads("jobs::run") == [{"id": 7, "by": "ada"}]
    stage.store.close()


async def test_a_message_without_an_argument_is_a_failed_attempt_that_says_why(
    capsys: pytest.CaptureFixture[str],
) -> None:
    stage = Stage()
    stage.callee.functions["jobs::run"] = lambda _: None
    await subscribe(stage, queue_config={"maxRetries": 1})
    await publish(stage, {"order": {}})
    queue = stage.broker.queues["topic:orders>jobs::run"]
    while not (letters := await stage.broker.letters([queue], 0, 10)):
        continue
    assert "event.order.id: expected a value, got nothing" in str(letters[0])
    assert stage.callee.requests == []
    assert capsys.readouterr().err.count("event.order.id: expected a value, got nothing") == 1
    stage.store.close()


def test_a_named_queue_has_no_arguments() -> None:
    with pytest.raises(ValueError, match="unknown key `arguments`"):
        parse_config("jobs", {"arguments": {}})
