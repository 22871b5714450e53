"""The telemetry exporter: who may bind it, what its batches hold, and that a slow subscriber holds up no call."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Awaitable, Callable
from typing import Any

import pytest

from iii.engine.supervision.reports import LogLine, Notice, Reporter
from iii.engine.supervision.run import Run
from iii.engine.telemetry.exporter import TelemetryExporter
from iii.engine.telemetry.metrics import WorkerMetrics
from iii.engine.tracing.bounded_queue import BoundedQueue
from iii.redaction import Redactor
from tests.support.routing import Net

BOUND = 20.0


class Exporting(Net):
    """A net with an exporter, and a worker `eye` whose function `eye::take` gets the `batches`."""

    def __init__(self) -> None:
        super().__init__()
        self.now = asyncio.get_running_loop().time()
        self.followers: list[Reporter] = []
        self.exporter = TelemetryExporter(
            self.router, lambda: None, follow=self._follow, worker_metrics=WorkerMetrics()
        )
        self.eye = self.serving("eye", "eye::take")
        self.caller = self.serving("calc")
        self.callee = self.serving("math", "math::add")
        self.batches: list[dict[str, Any]] = []
        self.number = 0

    def _follow(self, follower: Reporter) -> Callable[[], None]:
        self.followers.append(follower)
        return lambda: self.followers.remove(follower)

    def want(self, id: str = "b1", **config: Any) -> None:
        self.bind(self.eye, id, "telemetry", "eye::take", config={"window_ms": 5, **config}, metadata={"key": 1})
        self.turn()

    def turn(self) -> None:
        self.exporter.peer.flush()

    def calls(self, count: int = 1) -> None:
        for _ in range(count):
            self.number += 1
            self.call(self.caller, "math::add", f"n{self.number}")
            self.answer(self.callee, f"n{self.number}")

    def report(self, report: Any) -> None:
        for follower in self.followers:
            follower(report)

    async def batch(self, **answer: Any) -> dict[str, Any]:
        """Wait for a batch, and answer it."""
        message = await until(
            lambda: next((m for m in self.got(self.eye) if m.get("function_id") == "eye::take"), None)
        )
        assert message["metadata"] == {"key": 1}
        self.answer(self.eye, message["invocation_id"], **answer)
        self.turn()
        batch: dict[str, Any] = message["data"]
        self.batches.append(batch)
        return batch


async def until(found: Callable[[], Any]) -> Any:
    async with asyncio.timeout(BOUND):
        while (value := found()) is None:
            await asyncio.sleep(0.001)  # between two looks
    return value


def run(scene: Callable[[Exporting], Awaitable[None]]) -> None:
    """Play a scene on a loop of its own."""

    async def main() -> None:
        net = Exporting()
        try:
            await scene(net)
        finally:
            net.exporter.close()

    asyncio.run(main())


def line(text: str, worker: str = "math") -> LogLine:
    return LogLine(Run(worker, 0, 1), 1_000.5, text)


def test_nothing_is_recorded_without_a_subscriber() -> None:
    async def scene(net: Exporting) -> None:
        assert net.router.calls.tracer is None
        assert net.followers == []
        net.want()
        assert net.router.calls.tracer is not None
        assert len(net.followers) == 1
        net.send(net.eye, "unregistertrigger", id="b1", trigger_type="telemetry")
        net.turn()
        assert net.router.calls.tracer is None
        assert net.followers == []

    run(scene)


def test_a_batch_holds_spans_records_frames_counts_and_the_time() -> None:
    async def scene(net: Exporting) -> None:
        net.want()
        net.calls()
        net.report(line("hello"))
        net.exporter.take_frame("OTLP", b'{"resourceSpans":[]}')
        batch = await net.batch()
        assert [span["name"] for span in batch["spans"]] == ["call math::add"]
        assert [log["body"] for log in batch["logs"]] == ["hello"]
        assert batch["otlp"] == [["OTLP", '{"resourceSpans":[]}']]
        assert batch["dropped"] == {"spans": 0, "logs": 0, "otlp": 0}
        assert batch["calls"] == {
            "total": 1,
            "success": 1,
            "error": 0,
            "deferred": 0,
            "by_function": {"math::add": 1},
        }
        assert batch["time_unix_nano"] > 1_700_000_000 * 10**9

    run(scene)


@pytest.mark.parametrize(
    ("config", "named"),
    [
        ({"sampling": {"default": 2}}, "$.sampling.default"),
        ({"sampling": {"rules": [{"operation": "x"}]}}, "rate"),
        ({"sampling": {"max_traces_per_second": 0}}, "max_traces_per_second"),
        ({"max_batch": 0}, "$.max_batch"),
        ({"span": True}, "span"),
        ({"payload": "arguments", "arguments": {"spans": {"in": "query"}}}, 'got "query"'),
        ([], "object"),
    ],
)
def test_a_wrong_config_is_refused_by_its_key(config: Any, named: str) -> None:
    async def scene(net: Exporting) -> None:
        net.bind(net.eye, "b1", "telemetry", "eye::take", config=config)
        net.turn()
        answer = net.one(net.eye)
        assert answer["type"] == "triggerregistrationresult"
        assert answer["error"]["code"] == "trigger_registration_failed"
        assert named in answer["error"]["message"]
        assert net.router.calls.tracer is None

    run(scene)


def test_a_client_may_not_take_what_everybody_does() -> None:
    async def scene(net: Exporting) -> None:
        stranger = net.peer("stranger")
        net.bind(stranger, "b1", "telemetry", "eye::take", config={})
        net.turn()
        assert "only a worker of this project" in net.one(stranger)["error"]["message"]
        assert net.router.calls.tracer is None

    run(scene)


def test_a_config_of_null_means_the_defaults() -> None:
    async def scene(net: Exporting) -> None:
        net.bind(net.eye, "b1", "telemetry", "eye::take", config=None)
        net.turn()
        assert net.router.calls.tracer is not None

    run(scene)


def test_the_latest_binding_gets_the_batches_and_the_one_before_again_when_it_goes() -> None:
    async def scene(net: Exporting) -> None:
        net.register(net.eye, "eye::other")
        net.want("b1")
        net.bind(net.eye, "b2", "telemetry", "eye::other", config={"window_ms": 5, "spans": False})
        net.turn()
        assert net.router.calls.tracer is None
        net.send(net.eye, "unregistertrigger", id="b2", trigger_type="telemetry")
        net.turn()
        net.calls()
        assert len((await net.batch())["spans"]) == 1

    run(scene)


def test_a_batch_waits_for_the_answer_to_the_one_before() -> None:
    async def scene(net: Exporting) -> None:
        net.want(max_batch=3)
        net.calls(5)
        message = await until(lambda: next(iter(net.got(net.eye)), None))
        assert len(message["data"]["spans"]) == 3
        await asyncio.sleep(0.03)  # several windows
        assert net.got(net.eye) == []
        net.answer(net.eye, message["invocation_id"])
        net.turn()
        assert len((await net.batch())["spans"]) == 2

    run(scene)


def test_what_a_failed_batch_held_counts_as_dropped() -> None:
    async def scene(net: Exporting) -> None:
        net.want()
        net.calls(2)
        net.report(line("one"))
        await net.batch(error={"code": "bad", "message": "no"})
        net.calls()
        batch = await net.batch()
        assert batch["dropped"] == {"spans": 2, "logs": 1, "otlp": 0}

    run(scene)


def test_a_subscriber_that_is_gone_costs_no_call_anything_and_its_drop_is_told() -> None:
    async def scene(net: Exporting) -> None:
        net.want()
        assert net.router.calls.tracer is not None
        net.router.calls.tracer.pause_at = 50
        net.router.peer_table.detach(net.eye)
        net.router.peer_table.refuse_calls("eye", {"state": "failed"})
        for _ in range(5):
            net.calls(100)
            await asyncio.sleep(0.01)  # time in which a batch could leave
        assert len(net.router.calls.tracer.finished) <= 100
        assert net.router.calls.in_flight == {}

    run(scene)


def test_a_subscriber_that_hangs_holds_up_no_call() -> None:
    async def scene(net: Exporting) -> None:
        net.want(max_batch=10)
        assert net.router.calls.tracer is not None
        net.router.calls.tracer.pause_at = 40
        net.calls(10)
        message = await until(lambda: next(iter(net.got(net.eye)), None))
        net.calls(200)
        for number in range(20_000):
            net.report(line(f"line {number}"))
        assert net.got(net.eye) == []
        assert len(net.router.calls.tracer.finished) == 40
        net.answer(net.eye, message["invocation_id"])
        net.turn()
        batch = await net.batch()
        assert batch["dropped"]["spans"] == 200 - 40
        assert batch["dropped"]["logs"] == 10_000
        assert batch["calls"]["total"] == 210

    run(scene)


def test_the_calls_that_got_no_span_for_want_of_room_are_counted_once_room_or_not() -> None:
    async def scene(net: Exporting) -> None:
        net.want(max_batch=10, sampling={"default": 1.0})
        tracer = net.router.calls.tracer
        assert tracer is not None
        tracer.pause_at = 40
        for _ in range(8):
            net.calls(60)
            await net.batch()
        while sum(batch["dropped"]["spans"] + len(batch["spans"]) for batch in net.batches) < 480:
            await net.batch()
        assert sum(len(batch["spans"]) for batch in net.batches) == tracer.ended < 480
        assert sum(batch["dropped"]["spans"] for batch in net.batches) == 480 - tracer.ended

    run(scene)


def test_where_few_traces_are_recorded_few_are_told_as_left_out() -> None:
    async def scene(net: Exporting) -> None:
        net.want(max_batch=10, sampling={"default": 0.25})
        assert net.router.calls.tracer is not None
        net.router.calls.tracer.pause_at = 0
        net.calls(400)
        assert (await net.batch())["dropped"]["spans"] == 100

    run(scene)


def test_counts_are_told_even_when_nothing_else_is() -> None:
    async def scene(net: Exporting) -> None:
        net.want(sampling={"default": 0.0})
        net.calls(3)
        net.void(net.caller, "math::add")
        net.call(net.caller, "no::body", "x")
        net.report(Notice("so that there is a batch at once"))
        batch = await net.batch()
        assert batch["spans"] == []
        counts = batch["calls"]
        assert (counts["total"], counts["success"], counts["error"], counts["deferred"]) == (5, 3, 1, 1)
        assert counts["by_function"] == {"math::add": 3}

    run(scene)


def test_what_the_subscriber_the_command_line_and_the_engine_do_is_not_counted() -> None:
    async def scene(net: Exporting) -> None:
        net.want(sampling={"default": 0.0})
        local = net.peer("local", is_local=True)
        for caller, fields in ((net.eye, {}), (local, {"traceparent": f"00-{'1' * 32}-{'2' * 16}-00"})):
            net.call(caller, "math::add", "x", **fields)
            net.answer(net.callee, "x")
            net.call(caller, "math::add", "x", **fields)
            net.answer(net.callee, "x", error={"code": "E", "message": "no"})
            net.call(caller, "no::body", "x", **fields)
            net.void(caller, "math::add", **fields)
        engine = net.router.peer_table.peers[net.exporter.peer.id]
        net.register(engine, "engine::own::list")
        net.call(net.caller, "engine::own::list", "y")
        net.answer(engine, "y")
        # What the engine calls by itself: events, checks of registrations, auth functions.
        net.call(engine, "math::add", "z")
        net.answer(net.callee, "z", error={"code": "E", "message": "no"})
        net.void(engine, "math::add")
        net.calls(2)
        net.report(Notice("so that there is a batch at once"))
        counts = (await net.batch())["calls"]
        assert counts == {"total": 2, "success": 2, "error": 0, "deferred": 0, "by_function": {"math::add": 2}}

    run(scene)


def test_a_worker_observes_only_while_it_is_bound() -> None:
    async def scene(net: Exporting) -> None:
        net.want()
        assert net.eye.owner.is_observer
        net.send(net.eye, "unregistertrigger", id="b1")
        net.turn()
        assert not net.eye.owner.is_observer

    run(scene)


def test_frames_that_are_no_text_or_too_long_are_dropped() -> None:
    async def scene(net: Exporting) -> None:
        net.want()
        net.exporter.take_frame("LOGS", b"\xff")
        net.exporter.take_frame("MTRC", b"x" * (9 * 1024 * 1024))
        net.exporter.take_frame("MTRC", b"{}")
        batch = await net.batch()
        assert batch["otlp"] == [["MTRC", "{}"]]
        assert batch["dropped"]["otlp"] == 2

    run(scene)


def test_what_the_subscriber_writes_is_not_delivered_to_it() -> None:
    async def scene(net: Exporting) -> None:
        net.want()
        net.report(line("mine", "eye"))
        net.report(line("theirs"))
        assert [log["body"] for log in (await net.batch())["logs"]] == ["theirs"]

    run(scene)


def test_declared_secrets_are_in_no_part_of_a_batch() -> None:
    async def scene(net: Exporting) -> None:
        net.exporter.redact = Redactor(["canary-4711"])
        net.want(payloads=1000)
        net.call(net.caller, "math::add", "a", data={"x": "canary-4711"})
        traceparent = net.one(net.callee)["traceparent"]
        span = {"trace_id": traceparent[3:35], "span_id": "1" * 16, "parent_span_id": None, "name": "work"}
        times = {"start_time_unix_nano": 1, "end_time_unix_nano": 2}
        failed = {"status": "error", "status_description": "canary-4711", "attributes": {"a": "canary-4711"}}
        net.send(net.callee, "telemetry", spans=[{**span, **times, **failed}])
        net.answer(net.callee, "a", error={"code": "bad", "message": "it was canary-4711"})
        batch = await net.batch()
        assert {span["name"] for span in batch["spans"]} == {"work", "call math::add"}
        assert "canary" not in json.dumps(batch)
        assert json.dumps(batch).count("[REDACTED]") == 4

    run(scene)


SPAN = {
    "trace_id": "a" * 32,
    "span_id": "b" * 16,
    "parent_span_id": None,
    "name": "work",
    "start_time_unix_nano": 1,
    "end_time_unix_nano": 2,
}


def test_a_flood_of_spans_leaves_half_of_each_batch_to_calls_and_is_counted() -> None:
    async def scene(net: Exporting) -> None:
        net.want(max_batch=40)
        assert net.router.calls.tracer is not None
        net.router.calls.tracer.worker_spans = BoundedQueue(20_000, 400_000)
        net.calls(60)
        offered = 0
        while not net.router.calls.tracer.worker_spans.dropped:
            net.send(net.callee, "telemetry", spans=[SPAN] * 500)
            offered += 500
        batches = [await net.batch() for _ in range(3)]
        names = [[span["name"] for span in batch["spans"]] for batch in batches]
        assert [each.count("work") for each in names] == [10, 10, 10]
        assert [each.count("call math::add") for each in names] == [30, 30, 0]
        while sum(map(len, names)) + sum(batch["dropped"]["spans"] for batch in batches) < offered + 60:
            batches.append(await net.batch())
            names.append([span["name"] for span in batches[-1]["spans"]])
        assert sum(each.count("work") for each in names) == offered - 500

    run(scene)


def test_spans_of_traces_that_are_not_recorded_do_not_keep_others_back() -> None:
    async def scene(net: Exporting) -> None:
        net.want(max_batch=40, sampling={"parent_based": True})
        net.send(net.callee, "telemetry", spans=[{**SPAN, "flags": 0}] * 3000)
        net.send(net.callee, "telemetry", spans=[{**SPAN, "flags": 1}])
        batch = await net.batch()
        assert ([span["name"] for span in batch["spans"]], batch["dropped"]["spans"]) == (["work"], 0)

    run(scene)


def test_spans_of_workers_come_under_the_workers_name_if_their_trace_is_recorded() -> None:
    async def scene(net: Exporting) -> None:
        net.want(sampling={"default": 1.0, "parent_based": True})
        good = {**SPAN, "flags": 1}
        wrong = [{**good, "trace_id": "x"}, {**good, "attributes": {"a": []}}, 5, {**good, "end_time_unix_nano": -1}]
        net.send(net.callee, "telemetry", spans=[good, *wrong, {**good, "flags": 0, "name": "unsampled"}])
        net.send(net.callee, "telemetry", spans="nonsense")
        batch = await net.batch()
        assert [(span["name"], span["service_name"]) for span in batch["spans"]] == [("work", "math")]
        assert batch["dropped"]["spans"] == len(wrong)

    run(scene)


def test_a_batch_gives_arguments() -> None:
    async def scene(net: Exporting) -> None:
        net.want(payload="arguments", arguments={"spans": {"in": "event", "name": "spans"}, "by": {"value": "ada"}})
        net.calls()
        batch = await net.batch()
        assert batch.keys() == {"spans", "by"}
        assert batch["by"] == "ada"

    run(scene)
