"""The queue in a real engine: durable, retried, ordered, held; workers and engines that die."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from iii import InvocationError
from tests.support.live_project import Project, project

TOML = """
[engine]
listen = "off"
[workers.queue]
reload = "exclusive"
[workers.queue.config.queue_configs]
quick = { backoff_ms = 10, max_retries = 3, concurrency = 4 }
ordered = { type = "fifo", message_group_field = "group", backoff_ms = 10, concurrency = 4 }
[workers.jobs]
run = "jobs.py"
"""

JOBS = """
def run(payload, metadata=None):
    say("ran", payload["n"], metadata["iii.job"]["attempt"])
    left = payload.get("fail", 0)
    if metadata["iii.job"]["attempt"] <= left:
        raise ValueError(f"failing {payload['n']}")
    if metadata["iii.job"]["attempt"] <= payload.get("die", 0):
        os.kill(os.getpid(), signal.SIGKILL)
    if metadata["iii.job"]["attempt"] <= payload.get("hang", 0):
        threading.Event().wait()

def at_gate(payload):
    say("waits", payload["n"])
    open(os.path.join(os.environ["III_PROJECT"], "gate")).close()

def call_missing(payload):
    worker.trigger("nobody::there", {})

def on_order(payload, metadata=None):
    say("order", payload["n"], metadata["note"])

def on_traced(payload):
    here = current_invocation()
    say("traced", payload["n"], here.traceparent, here.baggage)

def pay(payload, metadata):
    kept = worker.trigger("state::once", {
        "scope": "paid", "key": metadata["iii.job"]["id"], "result": {"by": metadata["iii.job"]["attempt"]},
        "writes": [{"scope": "accounts", "key": "a", "ops": [{"type": "increment", "path": "paid", "by": 5}]}]})
    say("paid", metadata["iii.job"]["attempt"], kept["replayed"], kept["result"]["by"])
    if metadata["iii.job"]["attempt"] == 1:
        os.kill(os.getpid(), signal.SIGKILL)

def is_large(payload):
    return payload["n"] > 9

def on_large(payload):
    say("large", payload["n"])

def audit(payload):
    return worker.trigger({"function_id": "jobs::run", "payload": payload, "action":
                           TriggerAction.Enqueue(queue="quick", delay_ms=20, key="audit", priority=3)})

for name, function in dict(run=run, at_gate=at_gate, call_missing=call_missing, on_order=on_order,
                           on_large=on_large, is_large=is_large, on_traced=on_traced, pay=pay, audit=audit).items():
    worker.register_function("jobs::" + name, function)
worker.register_trigger({"type": "durable:subscriber", "function_id": "jobs::on_order",
                         "config": {"topic": "orders"}, "metadata": {"note": "hello"}})
worker.register_trigger({"type": "durable:subscriber", "function_id": "jobs::on_large",
                         "config": {"topic": "orders", "condition_function_id": "jobs::is_large"}})
worker.register_trigger({"type": "durable:subscriber", "function_id": "jobs::on_traced", "config": {"topic": "traces"}})
"""


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Project]:
    with project(tmp_path, TOML, {"jobs": JOBS}) as made:
        yield made


def dead(running: Project, queue: str) -> list[dict[str, Any]]:
    return running.call("engine::queue::dlq_messages", {"topic": queue})


def settled(running: Project, queue: str) -> dict[str, Any]:
    """Wait, by the jobs that a last one overtakes, until nothing of the queue is left; return its figures."""
    stats: dict[str, Any] = running.call("engine::queue::topic_stats", {"topic": queue})
    while stats["depth"]:
        stats = running.call("engine::queue::topic_stats", {"topic": queue})
    return stats


def test_a_job_runs_with_its_sidecar_and_its_receipt_is_the_callers(running: Project) -> None:
    receipt = running.enqueue("jobs::run", {"n": 1})
    assert running.wait("ran 1") == ["ran 1 1"]
    assert len(receipt) == 36
    assert settled(running, "default")["delivered"] == 1


def test_a_failing_job_is_tried_again_and_ends_in_the_dead_letters(running: Project) -> None:
    running.enqueue("jobs::run", {"n": 1, "fail": 1}, "quick")
    assert running.wait("ran 1", count=2) == ["ran 1 1", "ran 1 2"]
    receipt = running.enqueue("jobs::run", {"n": 2, "fail": 9}, "quick")
    settled(running, "quick")
    [letter] = dead(running, "quick")
    assert (letter["id"], letter["retries"], letter["error"]) == (receipt, 3, "invocation_failed: failing 2")
    assert all("raise ValueError" in attempt["error"]["stacktrace"] for attempt in letter["attempts"])
    answer = running.call("iii::queue::redrive_message", {"queue": "quick", "message_id": receipt, "data": {"n": 3}})
    assert answer == {"queue": "quick", "message_id": receipt, "redriven": 1}
    assert running.wait("ran 3") == ["ran 3 4"]
    settled(running, "quick")
    assert dead(running, "quick") == []
    with pytest.raises(InvocationError, match="message_not_found"):
        running.call("iii::queue::redrive_message", {"queue": "quick", "message_id": receipt})


def test_q04_q05_a_job_that_kills_its_worker_is_redelivered_and_the_worker_stays_in_service(running: Project) -> None:
    first = running.pid_of("jobs")
    running.enqueue("jobs::run", {"n": 1, "die": 1}, "quick")
    assert running.wait("ran 1", count=2) == ["ran 1 1", "ran 1 2"]
    running.enqueue("jobs::run", {"n": 2, "die": 9}, "quick")
    settled(running, "quick")
    [letter] = dead(running, "quick")
    assert [attempt["error"]["details"]["signal"] for attempt in letter["attempts"]] == [9, 9, 9]
    running.enqueue("jobs::run", {"n": 3}, "quick")
    running.wait("ran 3")
    assert running.pid_of("jobs") != first


def test_q26_a_job_of_nobody_waits_without_spending_attempts(running: Project) -> None:
    running.enqueue("late::run", {"n": 1}, "quick")
    running.enqueue("jobs::run", {"n": 2}, "quick")
    running.wait("ran 2")
    stats = running.call("engine::queue::topic_stats", {"topic": "quick"})
    assert (stats["held"], stats["dlq_depth"], stats["failed"]) == (1, 0, 0)
    (running.folder / "late.py").write_text((running.folder / "jobs.py").read_text().replace("jobs::", "late::"))
    toml = running.folder / "iii.toml"
    running.stop()
    toml.write_text(TOML + '[workers.late]\nrun = "late.py"\n')
    running.start()
    running.wait("ran 1 1")


def test_a_missing_inner_function_is_the_jobs_own_failure(running: Project) -> None:
    running.enqueue("jobs::call_missing", {}, "quick")
    settled(running, "quick")
    [letter] = dead(running, "quick")
    assert "nobody::there" in letter["error"]


def test_q07_a_group_keeps_its_order_over_retries_and_deaths(running: Project) -> None:
    for n in range(8):
        running.enqueue("jobs::run", {"n": n, "group": "ab"[n % 2], "fail": n == 2, "die": n == 3}, "ordered")
    settled(running, "ordered")
    ran = [line.split()[1] for line in running.said("ran ")]
    for group in ("0246", "1357"):
        order = [n for n in ran if n in group]
        assert sorted(order) == order
        assert set(order) == set(group)


def test_q01_an_engine_that_is_killed_loses_nothing_and_spends_nothing(running: Project) -> None:
    running.enqueue("jobs::run", {"n": 1, "hang": 1}, "quick")
    running.wait("ran 1 1")
    running.enqueue("jobs::run", {"n": 2}, delay_ms=300)
    running.kill()
    running.start()
    running.wait("ran 1 2")
    running.wait("ran 2 1")
    assert settled(running, "quick") | {"failed": 0, "dlq_depth": 0, "delivered": 1} == settled(running, "quick")


def test_a_job_that_ends_while_everything_stops_is_done(running: Project) -> None:
    gate = running.folder / "gate"
    os.mkfifo(gate)
    running.enqueue("jobs::at_gate", {"n": 1}, "quick")
    running.wait("waits 1")
    running.process.terminate()
    running.wait("waiting for")
    gate.write_text("")
    running.process.wait(30)
    running.stop()
    gate.unlink()
    running.start()
    assert settled(running, "quick")["delivered"] == 1
    assert running.said("waits ") == ["waits 1"]


def test_an_effect_with_its_record_happens_once_though_the_job_runs_twice(tmp_path: Path) -> None:
    with project(tmp_path, TOML + "[workers.state]\n", {"jobs": JOBS}) as running:
        running.enqueue("jobs::pay", {}, "quick")
        settled(running, "quick")
        assert running.wait("paid ", count=2) == ["paid 1 False 1", "paid 2 True 1"]
        assert running.call("state::get", {"scope": "accounts", "key": "a"}) == {"paid": 5}


def test_a_queue_worker_that_is_killed_goes_on_where_it_was(running: Project) -> None:
    running.call("iii::queue::pause", {"queue": "quick"})
    receipts = [running.enqueue("jobs::run", {"n": n}, "quick") for n in range(5)]
    os.kill(running.pid_of("queue"), signal.SIGKILL)
    running.wait("killed by SIGKILL")
    peeked = running.call("iii::queue::peek", {"queue": "quick"})["messages"]
    assert [message["id"] for message in peeked] == receipts
    assert running.said("ran ") == []
    assert running.call("iii::queue::resume", {"queue": "quick"})["changed"]
    running.wait("ran ", count=5)


def test_every_subscriber_of_a_topic_gets_a_copy_unless_its_condition_says_no(running: Project) -> None:
    for n in (1, 10):
        assert running.call("iii::durable::publish", {"topic": "orders", "data": {"n": n}}) is None
    assert running.wait("order ", count=2) == ["order 1 hello", "order 10 hello"]
    running.wait("large 10")
    assert settled(running, "orders")["delivered"] == 4
    assert running.said("large ") == ["large 10"]


def test_a_trace_goes_on_through_a_queue_and_a_topic(running: Project) -> None:
    trace = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01", "baggage": "tenant=acme"}
    running.call("jobs::on_traced", {"n": 1}, action={"type": "enqueue", "queue": "quick"}, **trace)
    running.call("iii::durable::publish", {"topic": "traces", "data": {"n": 2}}, **trace)
    # The engine adds the function that is called to the baggage of a call.
    expected = " ".join(trace.values()) + ",iii.function.id=jobs::on_traced"
    assert [running.wait(f"traced {n}") for n in (1, 2)] == [[f"traced {n} {expected}"] for n in (1, 2)]


def test_options_of_an_enqueue_reach_the_queue(running: Project) -> None:
    running.call("iii::queue::pause", {"queue": "quick"})
    first = running.call("jobs::audit", {"n": 1})
    assert running.call("jobs::audit", {"n": 1}) == first
    [message] = running.call("iii::queue::peek", {"queue": "quick"})["messages"]
    assert (message["id"], message["priority"]) == (first["messageReceiptId"], 3)
    assert running.call("iii::queue::cancel", {"message_id": message["id"]})["canceled"]
    running.enqueue("jobs::run", {"n": 2}, "quick")
    assert running.call("iii::queue::purge", {"queue": "quick"}) == {"queue": "quick", "purged": 1}
    with pytest.raises(InvocationError, match="message_not_found"):
        running.call("iii::queue::cancel", {"message_id": message["id"]})


def test_q26_refusals_name_their_reason(running: Project) -> None:
    for queue, options, reason in (
        ("nowhere", {}, "queue_not_found"),
        ("ordered", {}, "invalid_options"),
        ("quick", {"group": "a"}, "invalid_options"),
        ("quick", {"delay": 5}, "invalid_options"),
    ):
        with running.connect() as connection:
            action = {"type": "enqueue", "queue": queue, **options}
            error = connection.request("jobs::run", {}, 20_000, action=action)["error"]
        assert (error["code"], error["details"]["reason"]) == ("enqueue_error", reason)


def test_a_defined_queue_outlives_a_restart(running: Project) -> None:
    defined = {"queue": "mine", "config": {"concurrency": 2}}
    assert running.call("queue::define", defined) == {"queue": "mine", "changed": True}
    assert running.call("queue::define", defined) == {"queue": "mine", "changed": False}
    running.stop()
    running.start()
    running.enqueue("jobs::run", {"n": 1}, "mine")
    running.wait("ran 1")
    names = {row["name"] for row in running.call("engine::queue::list_topics")}
    assert names == {"default", "quick", "ordered", "mine", "orders", "traces"}


OVERRUN = """
import time
def slow(payload):
    say("begins", payload["n"])
    time.sleep(payload.get("seconds", 0))
    say("ends", payload["n"])

def unkept(payload):
    say("charged", payload["n"])
    return {"connection": object()}

worker.register_function("jobs::slow", slow)
worker.register_function("jobs::unkept", unkept)
"""
OVERRUN_TOML = """
[engine]
listen = "off"
[workers.queue.config.queue_configs]
ordered = { type = "fifo", message_group_field = "group", backoff_ms = 10, max_retries = 3, timeout_ms = 200 }
[workers.jobs]
run = "jobs.py"
"""


def test_a_job_over_its_timeout_holds_its_group_and_is_done_when_it_ends(tmp_path: Path) -> None:
    with project(tmp_path, OVERRUN_TOML, {"jobs": OVERRUN}) as running:
        running.enqueue("jobs::slow", {"group": "A", "n": 1, "seconds": 1}, "ordered")
        running.enqueue("jobs::slow", {"group": "A", "n": 2}, "ordered")
        assert settled(running, "ordered")["delivered"] == 2
        running.wait("ends 2")
        assert [line.rpartition("@ ")[2] for line in running.lines if "@ " in line] == [
            *("begins 1", "ends 1", "begins 2", "ends 2")
        ]


def test_a_job_whose_result_is_no_json_runs_once(tmp_path: Path) -> None:
    with project(tmp_path, OVERRUN_TOML, {"jobs": OVERRUN}) as running:
        running.enqueue("jobs::unkept", {"group": "A", "n": 1}, "ordered")
        assert settled(running, "ordered") | {"delivered": 1, "failed": 0} == settled(running, "ordered")
        running.wait("of queue ordered, done: it is not run again")
        running.wait("$.connection: object is not JSON")
        assert running.said("charged ") == ["charged 1"]


def test_a_job_that_a_dead_queue_has_begun_ends_before_it_begins_again(tmp_path: Path) -> None:
    toml = OVERRUN_TOML.replace("timeout_ms = 200", "timeout_ms = 30000")
    with project(tmp_path, toml, {"jobs": OVERRUN}) as running:
        running.enqueue("jobs::slow", {"group": "A", "n": 1, "seconds": 1}, "ordered")
        running.enqueue("jobs::slow", {"group": "A", "n": 2}, "ordered")
        running.wait("begins 1")
        os.kill(running.pid_of("queue"), signal.SIGKILL)
        running.wait("ends 2")
        assert [line.rpartition("@ ")[2] for line in running.lines if "@ " in line] == [
            *("begins 1", "ends 1", "begins 1", "ends 1", "begins 2", "ends 2")
        ]
