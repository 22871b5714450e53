"""Flow control in a real engine: callers that wait, limits over kills, batches, and what is shown of them."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from iii.errors import EngineNotRunning
from tests.stdlib_workers.queue.test_end_to_end import settled
from tests.support.live_project import Project, project

TOML = """
[engine]
listen = "off"
[workers.queue]
reload = "exclusive"
[workers.queue.config.queue_configs]
quick = { backoff_ms = 10, max_retries = 2 }
limited = { rate_limit = { limit = 3, period_ms = 600_000, field = "who" } }
ordered = { type = "fifo", message_group_field = "group" }
keyed = { concurrency_key = { field = "who", limit = 1 }, backoff_ms = 10 }
throttled = { throttle = { limit = 1, period_ms = 600_000 } }
batches = { batch = { max_size = 3, max_wait_ms = 600_000 }, backoff_ms = 10, max_retries = 1 }
debounced = { debounce = { period_ms = 400, field = "who" } }
[workers.jobs]
run = "jobs.py"
"""

JOBS = """
def run(payload, metadata=None):
    say("ran", payload["n"], metadata["iii.job"]["attempt"])
    if payload.get("fail"):
        raise ValueError(f"failing {payload['n']}")
    if payload.get("hang"):
        threading.Event().wait()
    return {"twice": payload["n"] * 2}

def at_gate(payload):
    say("waits", payload["n"])
    with open(os.path.join(os.environ["III_PROJECT"], "gate")) as gate:
        gate.read()
    return payload["n"]

def ask(payload):
    return worker.trigger({"function_id": "jobs::run", "payload": payload, "action":
                           TriggerAction.Enqueue(wait=True, **payload["options"])})

def all_of(payload, metadata):
    numbers = [each["n"] for each in payload]
    say("batch", *numbers, len(metadata["iii.job"]["batch"]))
    if len(numbers) > 1 and any(each.get("poison") for each in payload):
        raise ValueError("all of it")
    return {"failed": [index for index, each in enumerate(payload) if each.get("poison")]}

for name, function in dict(run=run, at_gate=at_gate, ask=ask, all_of=all_of).items():
    worker.register_function("jobs::" + name, function)
"""


@pytest.fixture
def running(tmp_path: Path) -> Iterator[Project]:
    with project(tmp_path, TOML, {"jobs": JOBS}) as made:
        yield made


def ask(running: Project, queue: str, payload: Any, function_id: str = "jobs::run", **options: Any) -> dict[str, Any]:
    """Enqueue a call and return the message that answers it."""
    with running.connect() as connection:
        action = {"type": "enqueue", "queue": queue, **options}
        return dict(connection.request(function_id, payload, 20_000, action=action))


def wait_for(running: Project, payload: Any, queue: str = "quick", **options: Any) -> Any:
    """Enqueue a call, wait for it, and return its result, or the code and message of its error."""
    answer = ask(running, queue, payload, wait=True, **options)
    return f"{answer['error']['code']}: {answer['error']['message']}" if "error" in answer else answer["result"]


def test_a_caller_that_waits_gets_the_result_or_the_error_of_the_last_attempt(running: Project) -> None:
    assert wait_for(running, {"n": 4}) == {"twice": 8}
    assert wait_for(running, {"n": 5, "fail": True}) == "invocation_failed: failing 5"
    assert running.said("ran 5") == ["ran 5 1", "ran 5 2"]
    assert running.call("jobs::ask", {"n": 6, "options": {"queue": "quick", "key": "six"}}) == {"twice": 12}
    assert wait_for(running, {"n": 7}, key="six") == {"twice": 12}
    running.enqueue("jobs::run", {"n": 8}, "quick", key="eight")
    settled(running, "quick")
    assert "result_not_kept" in wait_for(running, {"n": 8}, key="eight")
    for wrong in ("yes", 2):
        assert "wait must be true or false" in ask(running, "quick", {}, wait=wrong)["error"]["message"]


def test_40_a_caller_that_dies_while_it_waits_repeats_by_key_and_gets_the_result(running: Project) -> None:
    gate = running.folder / "gate"
    os.mkfifo(gate)

    def wait() -> None:
        try:
            answers.append(ask(running, "quick", {"n": 1}, "jobs::at_gate", wait=True, key="once"))
        except EngineNotRunning:
            answers.append({"error": "the engine is gone"})

    answers: list[dict[str, Any]] = []
    asking = [Thread(target=wait) for _ in range(2)]
    asking[0].start()
    running.wait("waits 1")
    running.kill()
    asking[0].join(30)
    assert "error" in answers.pop()  # whoever waited is told, and asks again
    running.start()
    asking[1].start()
    running.wait("waits 1", count=2)
    gate.write_text("")
    asking[1].join(30)
    assert answers.pop()["result"] == 1
    os.kill(running.pid_of("queue"), signal.SIGKILL)
    running.wait("killed by SIGKILL")
    wait()
    assert answers.pop()["result"] == 1
    assert len(running.said("waits 1")) == 2


def test_a_caller_is_told_that_its_job_was_removed(running: Project) -> None:
    running.call("iii::queue::pause", {"queue": "quick"})
    answers: list[str] = []
    asking = Thread(target=lambda: answers.append(wait_for(running, {"n": 1})))
    asking.start()
    while not running.call("iii::queue::peek", {"queue": "quick"})["messages"]:
        pass
    assert running.call("iii::queue::purge", {"queue": "quick"})["purged"] == 1
    asking.join(30)
    assert "job_removed" in answers[0]


def test_a_job_that_waits_for_one_behind_itself_is_told_so(running: Project) -> None:
    inner = {"n": 1, "group": "a", "who": "a", "options": {"queue": "ordered"}}
    found = ask(running, "ordered", inner, "jobs::ask", wait=True)["error"]
    assert (found["code"], "this job holds the group 'a' of queue ordered" in found["message"]) == (
        "deadlock_detected",
        True,
    )
    other = {**inner, "options": {"queue": "ordered", "group": "b"}}
    assert ask(running, "ordered", other, "jobs::ask", wait=True, group="c")["result"] == {"twice": 2}
    keyed = {**inner, "options": {"queue": "keyed"}}
    assert ask(running, "keyed", keyed, "jobs::ask", wait=True)["error"]["code"] == "deadlock_detected"


def test_36_a_rate_window_outlives_a_killed_engine(running: Project) -> None:
    for n in range(2):
        running.enqueue("jobs::run", {"n": n, "who": "a"}, "limited")
    running.kill()
    running.start()
    running.enqueue("jobs::run", {"n": 2, "who": "a"}, "limited", key="third")
    running.kill()
    running.start()
    error = ask(running, "limited", {"n": 3, "who": "a"})["error"]
    assert (error["code"], error["details"]["reason"]) == ("enqueue_error", "rate_limited")
    assert 0 < error["details"]["retry_after_ms"] <= 600_001
    running.enqueue("jobs::run", {"n": 2, "who": "a"}, "limited", key="third")  # a repeat is free
    running.enqueue("jobs::run", {"n": 4, "who": "b"}, "limited")
    running.wait("ran 4")


def test_37_slots_of_a_key_are_the_rows_that_run_also_after_a_kill(running: Project) -> None:
    for n in range(3):
        running.enqueue("jobs::run", {"n": n, "who": "a", "hang": True}, "keyed")
    running.wait("ran 0 1")
    running.enqueue("jobs::run", {"n": 7, "who": "b"}, "keyed")
    running.wait("ran 7")
    jobs = running.call("iii::queue::peek", {"queue": "keyed"})["messages"]
    assert [(job["state"], job["waits_for"]) for job in jobs] == [
        ("running", None),
        ("limited", "concurrency_key"),
        ("behind", "concurrency_key"),
    ]
    for _ in range(2):
        running.kill()
        running.start()
        while running.call("engine::queue::topic_stats", {"topic": "keyed"})["running"] != 1:
            pass
    assert running.call("iii::queue::purge", {"queue": "keyed"})["purged"] == 2


def test_a_throttle_counts_its_starts_over_a_kill(running: Project) -> None:
    for n in range(2):
        running.enqueue("jobs::run", {"n": n}, "throttled")
    running.wait("ran 0")
    running.kill()
    running.start()
    running.enqueue("jobs::run", {"n": 5}, "quick")
    running.wait("ran 5")
    [job] = running.call("iii::queue::peek", {"queue": "throttled"})["messages"]
    assert job["waits_for"] == "throttle"
    assert running.said("ran 1") == []


def test_39_a_batch_is_one_call_and_its_poison_is_found(running: Project) -> None:
    for n in range(3):
        running.enqueue("jobs::all_of", {"n": n, "poison": n == 1}, "batches")
    assert settled(running, "batches") | {"delivered": 2, "dlq_depth": 1} == settled(running, "batches")
    assert running.said("batch ")[0] == "batch 0 1 2 3"
    assert sorted(running.said("batch ")[1:]) == ["batch 0 1", "batch 1 1", "batch 2 1"]


def test_35_a_debounced_job_runs_once_with_the_last_payload_over_a_kill(running: Project) -> None:
    receipts = {running.enqueue("jobs::run", {"n": n, "who": "a"}, "debounced") for n in range(5)}
    running.kill()
    running.start()
    running.wait("ran 4")
    assert len(receipts) == 1
    assert settled(running, "debounced")["delivered"] == 1
    assert running.said("ran ") == ["ran 4 1"]
