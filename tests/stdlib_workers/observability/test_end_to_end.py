"""Observability under a real engine: one tree of everything, secrets, crashes, triggers, OTLP both ways."""

from __future__ import annotations

import json
import os
import re
import signal
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable
from pathlib import Path
from typing import Any, TypeVar

import pytest
from prometheus_client.parser import text_string_to_metric_families
from websockets.sync.client import connect

from iii.errors import InvocationError
from tests.support.collector import collector
from tests.support.live_project import BOUND, ROOT, Project, project
from tests.support.observed import NOW, metric, metrics_request

T = TypeVar("T")
OBSERVED = """
[workers.observability]
[workers.observability.config]
prometheus = { port = 0 }
"""
SHOP = """[engine]
listen = "off"
[workers.state]
[workers.cron]
[workers.queue.config.queue_configs.mail]
max_retries = 3
backoff_ms = 10
[workers.http.config]
port = 0
[workers.shop]
run = "shop.py"
after = ["http", "queue", "state", "cron", "observability"]
"""
SHOP_WORKER = """
from iii import Logger
log = Logger()
failed = []

def order(request):
    log.info("ordering", {"item": 5})
    mail = {"function_id": "shop::mail", "payload": {"to": "ann"}, "action": TriggerAction.Enqueue(queue="mail")}
    worker.trigger(mail)
    return {"status_code": 200, "body": {"ok": True}}

def mail(payload):
    if not failed:
        failed.append(1)
        raise ValueError("the mail server is away")
    worker.trigger("state::set", {"scope": "mails", "key": payload["to"], "value": 1})
    (job,) = worker.trigger("cron::list", {})["jobs"]
    worker.trigger("cron::run", {"job": job["job"]})
    say("mailed")

def tick(payload): return worker.trigger("state::get", {"scope": "mails", "key": "ann"})

for name, function in (("order", order), ("mail", mail), ("tick", tick)):
    worker.register_function(f"shop::{name}", function)
route = {"api_path": "/order", "http_method": "POST"}
worker.register_trigger({"type": "http", "function_id": "shop::order", "config": route})
worker.register_trigger({"type": "cron", "function_id": "shop::tick", "config": {"expression": "@every 1h"}})
"""


def eventually(ask: Callable[[], T]) -> T:
    """Return the first truthy answer: what happened becomes visible a moment later."""
    deadline = time.monotonic() + BOUND
    while not (found := ask()):
        assert time.monotonic() < deadline, "it did not become visible in time"
        time.sleep(0.05)  # between two looks
    return found


def iii(running: Project, *words: str) -> str:
    """Run `iii WORDS...` in the project and return what it printed."""
    environment = {key: value for key, value in os.environ.items() if not key.startswith("III_")}
    command = [sys.executable, "-m", "cli.main", *words]
    python = {"PYTHONPATH": str(ROOT), "PYTHONUTF8": "1"}
    done = subprocess.run(
        command,
        check=False,
        cwd=running.folder,
        env=environment | python,
        capture_output=True,
        text=True,
        timeout=BOUND,
    )
    assert done.returncode == 0, done.stderr
    return done.stdout


def address_of(running: Project, what: str) -> str:
    """Return the address in the line that says `what`."""
    return "http://" + running.wait(what)[-1].rpartition("http://")[2]


def route_of(running: Project, path: str) -> str:
    """Return the URL of a route once it is bound."""
    said = eventually(lambda: [line for line in running.said("http://") if re.search(r"\bhttp +\| http://", line)])[0]
    routes = eventually(lambda: running.call("http::openapi")["paths"])
    assert path in routes
    return f"http://{said.rpartition('http://')[2]}{path}"


def post(url: str, body: Any, **headers: str) -> Any:
    fields = {"content-type": "application/json", **headers}
    request = urllib.request.Request(url, json.dumps(body).encode(), fields, method="POST")
    with urllib.request.urlopen(request, timeout=BOUND) as answer:
        return json.loads(answer.read() or b"null")


def spans_named(running: Project, name: str, **query: Any) -> list[dict[str, Any]]:
    found: list[dict[str, Any]] = running.call("engine::traces::list", {"name": name, **query})["spans"]
    return [span for span in found if span["name"] == name and not span.get("pending")]


def drawn(spans: list[dict[str, Any]]) -> list[Any]:
    return [[span["name"], span["status"], drawn(span["children"])] for span in spans]


TREE = [
    [
        "POST /order",
        "unset",
        [
            [
                "call shop::order",
                "ok",
                [
                    [
                        "enqueue shop::mail → mail",
                        "ok",
                        [
                            ["call shop::mail", "error", []],
                            [
                                "call shop::mail",
                                "ok",
                                [
                                    ["call state::set", "ok", []],
                                    ["call cron::list", "ok", []],
                                    [
                                        "call cron::run",
                                        "ok",
                                        [["call shop::tick", "ok", [["call state::get", "ok", []]]]],
                                    ],
                                ],
                            ],
                        ],
                    ]
                ],
            ]
        ],
    ]
]


def finished_tree(running: Project, trace_id: str) -> Any:
    roots = running.call("engine::traces::tree", {"trace_id": trace_id})["roots"]
    return roots if drawn(roots) == TREE and "pending" not in json.dumps(roots) else None


def test_one_tree_of_http_worker_queue_with_a_retry_state_and_cron_and_its_life_after_a_crash(tmp_path: Path) -> None:
    with project(tmp_path, SHOP + OBSERVED, {"shop": SHOP_WORKER}) as running:
        assert post(route_of(running, "/order"), {"a": 1}) == {"ok": True}
        running.wait("mailed")
        (root,) = eventually(lambda: spans_named(running, "POST /order"))
        trace = root["trace_id"]
        (request,) = eventually(lambda: finished_tree(running, trace))
        (order,) = request["children"]
        assert dict(order["attributes"])["iii.trigger.type"] == "http"

        lines = iii(running, "trace", trace).splitlines()
        assert lines[0].startswith(f"trace {trace}  10 spans  5 services")
        assert "! invocation_failed: the mail server is away" in "\n".join(lines)
        names = [
            match[0]
            for line in lines[1:]
            if (match := re.match(r"[^a-z!]*(?:call \S+|POST \S+|enqueue \S+ → \S+)", line))
        ]
        assert names == NAMES
        (record,) = running.call("engine::logs::list", {"trace_id": trace, "severity_text": "info"})["logs"]
        assert (record["body"], record["attributes"]["item"], record["service_name"]) == ("ordering", 5, "shop")
        assert trace in iii(running, "traces", "--failed")
        # To look is no work of the project: neither a trace nor counted.
        assert "mail" in iii(running, "queue", "list")
        assert iii(running, "state", "list")

        assert json.loads(iii(running, "replay", trace, "--span", order["span_id"])) == REPLAYED
        # The replay's call is counted with the next batch.
        counted = ("iii_function_invocations_total", "shop::order")
        page = eventually(lambda: page_with(running, counted, 2))
        # The first reading may be of a process that has hardly begun.
        memory = ("iii_worker_memory_rss_bytes", "shop")
        eventually(lambda: (page_with(running, counted, 2) or {}).get(memory, 0) > 1_000_000)
        looks = ("iii::queue::list", "state::list_groups")
        assert [name for name in looks if ("iii_function_invocations_total", name) in page] == []
        assert [name for name in looks if spans_named(running, f"call {name}")] == []

        running.kill()
        running.start()
        assert finished_tree(running, trace)
        os.kill(running.pid_of("observability"), signal.SIGKILL)
        eventually(lambda: tree_after_a_kill(running, trace))


def page_with(running: Project, name: tuple[str, str], value: float) -> Any:
    """The samples of /metrics, by name and by function or worker, once one has its value."""
    text = urllib.request.urlopen(address_of(running, "metrics http://"), timeout=BOUND).read().decode()
    samples = {
        (sample.name, sample.labels.get("function") or sample.labels.get("worker")): sample.value
        for family in text_string_to_metric_families(text)
        for sample in family.samples
    }
    return samples if samples.get(name) == value else None


def tree_after_a_kill(running: Project, trace: str) -> Any:
    try:
        return finished_tree(running, trace)
    except InvocationError:
        return None


NAMES = [
    "POST /order",
    "└ call shop::order",
    "  └ enqueue shop::mail → mail",
    "    ├ call shop::mail",
    "    └ call shop::mail",
    "      ├ call state::set",
    "      ├ call cron::list",
    "      └ call cron::run",
    "        └ call shop::tick",
    "          └ call state::get",
]
REPLAYED = {"status_code": 200, "body": {"ok": True}}

WATCHED = """[engine]
[workers.observability.config]
prometheus = { port = 0 }
otlp_listener = { port = 0 }
[[workers.observability.config.alerts]]
name = "many"
metric = "orders"
threshold = 3
cooldown_seconds = 0
action = { type = "function", path = "watch::alerted" }
[workers.stream.config]
port = 0
[workers.watch]
run = "watch.py"
after = ["observability"]
"""
WATCH_WORKER = """
def work(payload):
    if payload.get("fail"): raise InvocationError("sold_out", "none left")
    return payload
def logged(record): say("logged", record["body"], len(record))
def traced(event): say("traced", ",".join(event["trace_ids"]))
def alerted(event): say("alerted", event["alert"], event["value"], event["firing"])
for function in (work, logged, traced, alerted):
    worker.register_function(f"watch::{function.__name__}", function)
worker.register_trigger({"type": "log", "function_id": "watch::logged", "config": {"level": "error"}})
worker.register_trigger({"type": "trace", "function_id": "watch::traced", "config": {"status": "error"}})
"""


def test_triggers_alerts_the_engines_batches_and_otlp_over_every_way_in(tmp_path: Path) -> None:
    toml = WATCHED.replace("[engine]\n", '[engine]\nlisten = "127.0.0.1:0"\n')
    with project(tmp_path, toml, {"watch": WATCH_WORKER}) as running:
        with pytest.raises(InvocationError, match="only"):
            running.call("observability::ingest", {"spans": []})

        running.call("engine::log::error", {"message": "bad", "service_name": "me"})
        running.call("engine::log::info", {"message": "good"})
        assert running.wait("@ logged") == ["logged bad 12"]
        with pytest.raises(InvocationError, match="none left"):
            running.call("watch::work", {"fail": True})
        (failed,) = eventually(lambda: spans_named(running, "call watch::work"))
        assert running.wait("@ traced") == [f"traced {failed['trace_id']}"]
        assert (failed["status"], failed["status_description"]) == ("error", "none left")
        assert dict(failed["attributes"])["error.code"] == "sold_out"

        address = address_of(running, "OTLP http://")
        assert post(f"{address}/v1/metrics", metrics_request(metric("orders", 2))) == {}
        run = json.loads((tmp_path / ".iii" / "run" / "engine.json").read_text())
        with connect(f"{run['url']}/otel") as socket:
            socket.send(b"MTRC" + json.dumps(metrics_request(metric("orders", 2))).encode())
            socket.send(b"OTLP" + json.dumps(OTLP_TRACE).encode())
            (remote,) = eventually(lambda: spans_named(running, "remote work"))
        assert (remote["service_name"], dict(remote["attributes"])["n"]) == ("elsewhere", "5")
        reported = eventually(lambda: len(running.call("engine::metrics::list", {})["sdk_metrics"]) == 2)
        assert reported

        with connect(run["url"]) as remote_worker, connect(f"{run['url']}/otel") as socket:
            id = json.loads(remote_worker.recv())["worker_id"]
            introduction = {"function_id": "engine::workers::register", "data": {"name": "remote", "runtime": "go"}}
            remote_worker.send(json.dumps({"type": "invokefunction", "invocation_id": "i", **introduction}))
            assert json.loads(remote_worker.recv())["invocation_id"] == "i"
            gauge = metric("iii.worker.memory.rss", 4096, "gauge", labels={"worker.id": id})
            socket.send(b"MTRC" + json.dumps(metrics_request(gauge)).encode())
            told = eventually(lambda: latest_metrics(running, id))
        assert (told["memory_rss"], told["runtime"], told["timestamp_ms"] > 0) == (4096.0, "go", True)

        answer = running.call("engine::alerts::evaluate")
        assert (answer["evaluated"], answer["triggered_alerts"][0]["value"]) == (1, 4.0)
        assert running.wait("@ alerted")[0] == "alerted many 4.0 True"
        assert running.call("engine::alerts::list")["firing_count"] == 1
        assert running.call("engine::health::check")["status"] == "healthy"
        running.kill()
        running.start()
        (alert,) = running.call("engine::alerts::list")["alerts"]
        assert (alert["firing"], alert["current_value"]) == (True, 4.0)


def latest_metrics(running: Project, worker: str) -> Any:
    return running.call("engine::workers::info", {"worker_id": worker})["worker"]["latest_metrics"]


OTLP_TRACE = {
    "resourceSpans": [
        {
            "resource": {"attributes": [{"key": "service.name", "value": {"stringValue": "elsewhere"}}]},
            "scopeSpans": [
                {
                    "spans": [
                        {
                            "traceId": "a" * 32,
                            "spanId": "b" * 16,
                            "name": "remote work",
                            "startTimeUnixNano": str(NOW),
                            "endTimeUnixNano": str(NOW + 5),
                            "attributes": [{"key": "n", "value": {"intValue": 5}}],
                        }
                    ]
                }
            ],
        }
    ]
}

CANARIES = {
    kind: f"c4n4ry-{kind}-0f1e2d3c4b"
    for kind in ("environment", "header", "cookie", "payload", "config", "url", "text", "log", "error", "otlp")
}
SECRETIVE_WORKER = """
from iii import Logger
import os
import re
log = Logger()
def login(payload):
    log.info("login", {"password": payload["password"], "nested": {"api_key": payload["password"]}})
    log.warn(f"token={payload['text']}", {"url": payload["url"]})
    worker.trigger("engine::log::error", {"message": f"Authorization: Bearer {payload['log']}",
                                          "data": {"client_secret": payload["log"], "text": payload["log"]}})
    log.error("the variable is " + os.environ["SHOP_SECRET"])
    raise ValueError("password=" + payload["error"] + " and " + os.environ["SHOP_SECRET"])
def web(request): return {"status_code": 200, "body": {"ok": True}}
worker.register_function("shop::login", login)
worker.register_function("shop::web", web)
route = {"api_path": "/w", "http_method": "POST"}
worker.register_trigger({"type": "http", "function_id": "shop::web", "config": route})
"""


def otlp_log(secret: str) -> Any:
    attributes = [{"key": key, "value": {"stringValue": secret}} for key in ("api_key", "harmless")]
    record = {"severityNumber": 17, "body": {"stringValue": f"password={secret}"}, "attributes": attributes}
    return {"resourceLogs": [{"scopeLogs": [{"logRecords": [record]}]}]}


def test_s24_no_canary_is_found_in_any_store_page_export_or_log(tmp_path: Path) -> None:
    with collector() as (received, address):
        toml = (
            '[engine]\nlisten = "off"\n[workers.http.config]\nport = 0\n'
            "[workers.shop]\nrun = 'shop.py'\nafter = ['http', 'observability']\n"
            f'env = {{ SHOP_SECRET = "{CANARIES["environment"]}" }}\n'
            f"{OBSERVED}otlp_listener = {{ port = 0 }}\nexporter = 'both'\n"
            f"logs_exporter = 'both'\nmetrics_exporter = 'both'\n"
            f"endpoint = '{address}'\nlogs_flush_interval_ms = 100\n"
            "alerts = [{ name = 'a', metric = 'iii.invocations.total', threshold = 0, action = { type = 'webhook',"
            f" url = 'http://user:{CANARIES['config']}@127.0.0.1:9/{CANARIES['config']}' }} }}]\n"
        )
        with project(tmp_path, toml, {"shop": SECRETIVE_WORKER}) as running:
            web = route_of(running, "/w")
            headers = {"authorization": f"Bearer {CANARIES['header']}", "cookie": f"sid={CANARIES['cookie']}"}
            post(web, {"password": CANARIES["payload"]}, **headers)
            secret = {
                "password": CANARIES["payload"],
                "text": CANARIES["text"],
                "url": f"postgres://me:{CANARIES['url']}@db/x",
                "log": CANARIES["log"],
                "error": CANARIES["error"],
            }
            with pytest.raises(InvocationError):
                running.call("shop::login", {**secret, "api_token": secret["text"], "secrets": secret})
            running.call("engine::alerts::evaluate")
            # Past the engine, so that only the worker can take it out.
            post(f"{address_of(running, 'OTLP http://')}/v1/logs", otlp_log(CANARIES["otlp"]))
            eventually(lambda: [span for span in received.spans() if span.name == "call shop::login"])
            eventually(lambda: [span for span in received.spans() if span.name == "call shop::web"])
            eventually(lambda: running.call("engine::logs::list", {"severity_text": "error"})["total"] >= 3)
            shown = [json.dumps(running.call("engine::traces::list", {"search_all_spans": True, "limit": 999}))]
            shown.append(json.dumps(running.call("engine::logs::list")))
            shown.append(urllib.request.urlopen(address_of(running, "metrics http://"), timeout=BOUND).read().decode())
        shown += ["\n".join(running.lines), *(body.decode(errors="replace") for body in received.bodies)]
    shown += [path.read_bytes().decode(errors="replace") for path in (tmp_path / ".iii").rglob("*") if path.is_file()]
    everything = "\n".join(shown)
    assert "[REDACTED]" in everything
    assert len(received.bodies) >= 2  # spans and logs, in as many batches as the pace of the machine makes
    assert [kind for kind, canary in CANARIES.items() if canary in everything] == []


def test_add_observability_makes_a_project_observed(tmp_path: Path) -> None:
    worker = {"w": "worker.register_function('w::f', len)\n"}
    made = Project(tmp_path, '[engine]\nlisten = "off"\n[workers.w]\nrun = "w.py"\n', worker)
    iii(made, "add", "observability")
    made.start()
    try:
        assert made.call("w::f", [1, 2]) == 2
        eventually(lambda: spans_named(made, "call w::f"))
        assert "call w::f" in iii(made, "trace")
    finally:
        made.stop()
