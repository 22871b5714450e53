"""One tree across processes: http, a worker, the queue with a retry, state and its trigger; a cron run is another."""

from __future__ import annotations

import json
import os
import signal
import time
from collections import Counter
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

from tests.support.live_project import BOUND, Project, project

TOML = """
[engine]
listen = "off"
[workers.eye]
run = "eye.py"
[workers.state]
after = ["eye"]
[workers.queue]
after = ["eye"]
[workers.cron]
after = ["eye"]
[workers.http]
after = ["eye"]
[workers.http.config]
port = 0
[workers.shop]
run = "shop.py"
after = ["state", "queue", "cron", "http"]
env = { SHOP_TOKEN = "canary-4711-secret" }
"""

EYE = """
import json

@worker.function("eye::take")
def take(batch):
    for span in batch["spans"]:
        say("SPAN", json.dumps(span))
    for log in batch["logs"]:
        if log["service_name"] == "shop":
            say("LOG", json.dumps(log))

worker.register_trigger({"type": "telemetry", "function_id": "eye::take", "config": {"window_ms": 20}})
"""

SHOP = """
from iii import Logger
attempts = []

@worker.function("shop::order")
def order(request):
    with worker.span("prices", {"items": 2}) as span:
        worker.trigger({"function_id": "shop::pack", "payload": {"n": 1}, "action": TriggerAction.Enqueue(queue="q")})
        span.event("asked")
    print("token", os.environ["SHOP_TOKEN"])
    return {"status_code": 200, "body": "ok"}

@worker.function("shop::pack")
def pack(job):
    attempts.append(job)
    if len(attempts) == 1:
        raise ValueError("not yet: " + os.environ["SHOP_TOKEN"])
    Logger().info("packing", {"n": 1})
    worker.trigger("state::set", {"scope": "orders", "key": "1", "value": "packed"})

@worker.function("shop::packed")
def packed(event):
    say("packed")

@worker.function("shop::tick")
def tick(payload):
    say("tick")

route = {"api_path": "/o", "http_method": "GET"}
worker.register_trigger({"type": "http", "function_id": "shop::order", "config": route})
worker.register_trigger({"type": "state", "function_id": "shop::packed", "config": {"scope": "orders"}})
worker.register_trigger({"type": "cron", "function_id": "shop::tick", "config": {"expression": "@every 1s"}})
worker.trigger("queue::define", {"queue": "q", "config": {"max_retries": 3, "backoff_ms": 10}})
"""


def spans_of(running: Project) -> list[dict[str, Any]]:
    return [json.loads(line.removeprefix("SPAN ")) for line in running.said("SPAN ")]


def wait_for(running: Project, *names: str) -> list[dict[str, Any]]:
    """Wait until spans of all these names have been told, each as often as it is named; return all spans."""
    seen = len(running.said("SPAN "))
    until = time.monotonic() + BOUND
    while not Counter(names) <= Counter(span["name"] for span in spans_of(running)):
        assert time.monotonic() < until, [span["name"] for span in spans_of(running)]
        running.wait("SPAN ", count=seen + 1)
        seen = len(running.said("SPAN "))
    return spans_of(running)


def tree(spans: list[dict[str, Any]], parent: str | None = None) -> list[Any]:
    """Return `[name, status, ...children]` of the spans below a parent, in the order they began; roots for None."""
    ids = {span["span_id"] for span in spans}
    below = [span for span in spans if (span["parent_span_id"] if span["parent_span_id"] in ids else None) == parent]
    below.sort(key=lambda span: int(span["start_time_unix_nano"]))
    return [[span["name"], span["status"], *tree(spans, span["span_id"])] for span in below]


def port_of(running: Project) -> int:
    line = running.wait("http://127.0.0.1:")[-1]
    return int(line.rsplit("http://127.0.0.1:", 1)[1].split("/")[0].split()[0])


def get(url: str, traceparent: str) -> None:
    """Ask for a page, which is not there before the http worker has its route."""
    until = time.monotonic() + BOUND
    while True:
        try:
            with urlopen(Request(url, headers={"traceparent": traceparent}), timeout=BOUND) as response:
                assert response.status == 200
                return
        except HTTPError as error:
            error.close()
            if error.code != 404 or time.monotonic() > until:
                raise


def test_a_request_is_one_tree_through_queue_state_and_trigger_and_a_cron_run_another(tmp_path: Path) -> None:
    with project(tmp_path, TOML, {"eye": EYE, "shop": SHOP}) as running:
        port = port_of(running)
        trace_id = "4bf92f3577b34da6a3ce929d0e0e4736"
        traceparent = f"00-{trace_id}-00f067aa0ba902b7-01"
        get(f"http://127.0.0.1:{port}/o", traceparent)
        running.wait("packed")
        packs = ("call shop::pack", "call shop::pack", "call shop::packed")  # the second attempt ends last of all
        # The span of the request comes from another process than those of the calls, and often last of all.
        spans = wait_for(running, *packs, "GET /o", "call shop::order", "prices", "call shop::tick")
        # A request that came before the route was there has a span without one.
        ours = [span for span in spans if span["trace_id"] == trace_id and span["name"] != "GET"]
        assert tree(ours) == [
            [
                "GET /o",
                "unset",
                [
                    "call shop::order",
                    "ok",
                    [
                        "prices",
                        "ok",
                        [
                            "enqueue shop::pack → q",
                            "ok",
                            ["call shop::pack", "error"],
                            ["call shop::pack", "ok", ["call state::set", "ok", ["call shop::packed", "ok"]]],
                        ],
                    ],
                ],
            ]
        ]
        triggers = {span["name"]: span["attributes"].get("iii.trigger.type") for span in spans}
        assert (triggers["call shop::order"], triggers["call shop::packed"]) == ("http", "state")
        running.wait('"body": "packing"')
        logs = [json.loads(line.partition("@ LOG ")[2]) for line in running.lines if "@ LOG " in line]
        log = next(log for log in logs if log["body"] == "packing")
        packing = [span for span in ours if (span["name"], span["status"]) == ("call shop::pack", "ok")]
        assert (log["trace_id"], log["span_id"]) == (trace_id, packing[0]["span_id"])
        ticks = [span for span in spans if span["name"] == "call shop::tick"]
        assert len({span["trace_id"] for span in ticks} | {trace_id}) == len(ticks) + 1
        assert ticks[0]["attributes"]["iii.trigger.type"] == "cron"
        assert "canary-4711" not in "\n".join(running.lines)
        assert "[REDACTED]" in next(span for span in ours if span["status"] == "error")["status_description"]


def test_a_subscriber_that_dies_holds_no_call_up_and_gets_batches_again(tmp_path: Path) -> None:
    toml = '[engine]\nlisten = "off"\n[workers.eye]\nrun = "eye.py"\n[workers.shop]\nrun = "shop.py"\n'
    shop = '@worker.function("shop::add")\ndef add(payload):\n    return payload\n'
    with project(tmp_path, toml, {"eye": EYE, "shop": shop}) as running:
        assert running.call("shop::add", 1) == 1
        wait_for(running, "call shop::add")
        seen = len(running.said("SPAN "))
        killed = running.pid_of("eye")
        os.kill(killed, signal.SIGKILL)
        for number in range(200):
            assert running.call("shop::add", number) == number
        running.wait("SPAN ", count=seen + 100)
        assert running.pid_of("eye") != killed
