"""What an application sees of the standard workers: the same in memory and under `iii dev`.

Every test runs over both. Time passes by hand in memory, and by itself under `iii dev`: a test waits for what time
brings with `app.after`.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Event
from time import monotonic
from typing import Any

import httpx
import pytest

from iii import InvocationError
from iii.testing import Engine, project
from tests.support.live_project import BOUND, PROFILE, Project, free_ports

TOML = """
[engine]
listen = "off"

[workers.state]
[workers.stream]
[workers.stream.config]
port = {stream}
[workers.pubsub]
[workers.cron]
[workers.queue]
[workers.queue.config.queue_configs.mail]
max_retries = 3
backoff_ms = 200
[workers.queue.config.queue_configs.orders]
type = "fifo"
message_group_field = "customer"

[workers.http]
[workers.http.config]
port = {http}

[workers.app]
run = "app.py"
"""
APP = """
import time

seen = []

def keep(kind):
    def handler(payload, metadata=None):
        seen.append([kind, payload])
    return handler

def mail(payload):
    seen.append(["mail", payload["id"]])
    if payload.get("fails", 0) >= sum(each == ["mail", payload["id"]] for each in seen):
        raise ValueError("no such mailbox")

def order(request):
    if request["body"] is None:
        raise ValueError("an order needs a body")
    return {"status_code": 201, "headers": {"x-kind": "order"}, "body": {**request["path_params"], **request["body"]}}

def stream(request):
    out = request["response"]
    out.send_message('{"type": "set_headers", "headers": {"content-type": "text/event-stream"}}')
    for number in range(3):
        out.send(b"data: %d\\n\\n" % number)
    out.close()

async def chain(payload):
    await worker.trigger_async("state::set", {"scope": "chained", "key": payload["id"], "value": 1})
    await worker.trigger_async("publish", {"topic": "chain.done", "data": payload["id"]})
    return {"done": payload["id"]}

worker.register_function("app::seen", lambda kind: [payload for each, payload in seen if each == kind])
worker.register_function("app::mail", mail)
worker.register_function("app::chain", chain)
worker.register_function("app::is_adult", lambda event: (event["new_value"] or {}).get("age", 0) >= 18)
worker.register_function("app::order", order)
worker.register_function("app::stream", stream)
for kind, type, config in (
    ("users", "state", {"scope": "users"}),
    ("adults", "state", {"scope": "users", "condition_function_id": "app::is_adult"}),
    ("chained", "state", {"scope": "chained"}),
    ("chat", "stream", {"stream_name": "chat"}),
    ("orders", "subscribe", {"topic": "orders.*"}),
    ("done", "subscribe", {"topic": "chain.done"}),
    ("ticks", "cron", {"expression": "* * * * * *"}),
    ("copies", "durable:subscriber", {"topic": "copies"}),
):
    worker.register_function(f"app::{kind}", keep(kind))
    worker.register_trigger({"type": type, "function_id": f"app::{kind}", "config": config})
for method, path, function_id, more in (
    ("POST", "/orders/:id", "app::order", {}),
    ("GET", "/stream", "app::stream", {"stream": True}),
):
    config = {"http_method": method, "api_path": path, **more}
    worker.register_trigger({"type": "http", "function_id": function_id, "config": config})
"""


class MemoryApp:
    """The application in an engine in memory."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self.call = engine.call
        self.enqueue = engine.enqueue
        self.request = engine.http.request

    def after(self, seconds: float, condition: Callable[[], bool]) -> None:
        """Let time pass; then the condition holds."""
        self._engine.advance(seconds)
        assert condition()


class DevApp:
    """The application under `iii dev`."""

    def __init__(self, running: Project, port: int) -> None:
        self._running = running
        self._client = httpx.Client(base_url=f"http://127.0.0.1:{port}")
        self.request = self._client.request

    def call(self, function_id: str, payload: Any = None, /, **fields: Any) -> Any:
        return self._running.call(function_id, fields if fields else payload)

    def enqueue(self, function_id: str, payload: Any, *, queue: str = "default", **options: Any) -> str:
        return self._running.enqueue(function_id, payload, queue, **options)

    def after(self, _: float, condition: Callable[[], bool]) -> None:
        """Wait until the condition holds."""
        end = monotonic() + BOUND
        while not condition():
            assert monotonic() < end, "it never became true"
            Event().wait(0.01)

    def close(self) -> None:
        self._client.close()


App = MemoryApp | DevApp


@pytest.fixture(scope="module")
def dev_app(tmp_path_factory) -> Iterator[DevApp]:
    ports = free_ports("http", "stream")
    running = Project(tmp_path_factory.mktemp("dev"), TOML.format(**ports), {"app": APP})
    running.start("dev")
    app = DevApp(running, ports["http"])
    try:
        yield app
    finally:
        app.close()
        running.stop()


@pytest.fixture
def memory_app(tmp_path: Path) -> Iterator[MemoryApp]:
    (tmp_path / "iii.toml").write_text(TOML.format(http=3111, stream=3112))
    (tmp_path / "app.py").write_text(PROFILE + APP)
    with project(tmp_path) as engine:
        yield MemoryApp(engine)


@pytest.fixture(params=["memory", "dev"])
def app(request) -> App:
    found: App = request.getfixturevalue(f"{request.param}_app")
    return found


def test_a_write_fires_the_events_of_its_scope_in_order(app: App) -> None:
    for value in (1, 2):
        app.call("state::set", scope="users", key="ada", value={"age": value})
    app.call("state::delete", scope="users", key="ada")
    app.call("state::set", scope="others", key="ada", value=1)

    def own() -> list[tuple[str, Any, Any]]:
        events = [event for event in app.call("app::seen", "users") if event["key"] == "ada"]
        return [(event["event_type"], event["old_value"], event["new_value"]) for event in events]

    app.after(0, lambda: len(own()) >= 3)
    first, second = {"age": 1}, {"age": 2}
    assert own() == [
        ("state:created", None, first),
        ("state:updated", first, second),
        ("state:deleted", second, None),
    ]


def test_a_condition_that_says_no_stops_the_event(app: App) -> None:
    for key, age in (("kid", 7), ("bob", 40)):
        app.call("state::set", scope="users", key=key, value={"age": age})
    app.after(0, lambda: bool(app.call("app::seen", "adults")))
    assert [event["key"] for event in app.call("app::seen", "adults")] == ["bob"]


def test_values_versions_updates_and_pages_of_the_state(app: App) -> None:
    place = {"scope": "shelf", "key": "tea"}
    assert app.call("state::get", place) is None
    app.call("state::set", {**place, "value": {"n": 1}})
    ops = [{"type": "increment", "path": "n", "by": 2}]
    assert app.call("state::update", {**place, "ops": ops})["new_value"] == {"n": 3}
    entry = app.call("state::get_entry", place)
    assert entry["value"] == {"n": 3}
    with pytest.raises(InvocationError) as caught:
        app.call("state::set", {**place, "value": 0, "if_version": entry["version"] - 1})
    assert caught.value.code == "CONFLICT"
    assert app.call("state::list_keys", scope="shelf") == {"keys": ["tea"]}
    with pytest.raises(InvocationError) as caught:
        app.call("state::get", scope="shelf")
    assert caught.value.code == "invalid_payload"


def test_an_item_of_a_stream_fires_its_event_and_stays(app: App) -> None:
    item = {"stream_name": "chat", "group_id": "room", "item_id": "1"}
    app.call("stream::set", {**item, "data": {"text": "hi"}})
    app.call("stream::send", stream_name="chat", group_id="room", type="typing", data={"who": "ada"})
    app.after(0, lambda: len(app.call("app::seen", "chat")) >= 2)
    kinds = [event["event"]["type"] for event in app.call("app::seen", "chat")]
    assert kinds == ["create", "event"]
    assert app.call("stream::list", stream_name="chat", group_id="room") == [{"text": "hi"}]


def test_a_published_message_reaches_the_subscribers_of_matching_topics(app: App) -> None:
    for topic in ("orders.new", "orders", "orders.new.urgent", "orders.gone"):
        app.call("publish", topic=topic, data=topic)
    app.after(0, lambda: len(app.call("app::seen", "orders")) >= 2)
    assert sorted(app.call("app::seen", "orders")) == ["orders.gone", "orders.new"]


def mails(app: App, id: str) -> int:
    return sum(each == id for each in app.call("app::seen", "mail"))


def test_a_job_that_fails_is_tried_again_until_it_succeeds(app: App) -> None:
    app.enqueue("app::mail", {"id": "twice", "fails": 1}, queue="mail")
    app.after(0, lambda: mails(app, "twice") >= 1)
    app.after(0.25, lambda: mails(app, "twice") == 2)
    assert app.call("engine::queue::dlq_messages", queue="mail") == []


def test_a_job_that_fails_too_often_is_a_dead_letter_until_it_is_redriven(app: App) -> None:
    app.enqueue("app::mail", {"id": "dead", "fails": 3}, queue="mail")
    app.after(0.7, lambda: mails(app, "dead") == 3)
    app.after(0, lambda: bool(app.call("engine::queue::dlq_messages", queue="mail")))
    (letter,) = app.call("engine::queue::dlq_messages", queue="mail")
    assert letter["payload"] == {"id": "dead", "fails": 3}
    assert "no such mailbox" in str(letter["error"])
    assert app.call("iii::queue::redrive", queue="mail")["redriven"] == 1
    app.after(0, lambda: mails(app, "dead") == 4)
    app.after(0, lambda: app.call("engine::queue::dlq_messages", queue="mail") == [])


def test_a_delayed_job_waits_and_a_canceled_one_never_runs(app: App) -> None:
    app.enqueue("app::mail", {"id": "late"}, delay_ms=300)
    canceled = app.enqueue("app::mail", {"id": "never"}, delay_ms=60_000)
    assert app.call("iii::queue::cancel", message_id=canceled)["canceled"] is True
    app.after(0.3, lambda: mails(app, "late") == 1)
    assert mails(app, "never") == 0


def test_jobs_of_one_group_run_in_order(app: App) -> None:
    for number in range(5):
        app.enqueue("app::mail", {"id": f"fifo {number}", "customer": "ada"}, queue="orders")
    app.after(0, lambda: mails(app, "fifo 4") == 1)
    assert [id for id in app.call("app::seen", "mail") if id.startswith("fifo")] == [f"fifo {n}" for n in range(5)]


def test_an_unknown_queue_and_a_job_without_its_group_are_refused(app: App) -> None:
    for queue, reason in (("nope", "queue_not_found"), ("orders", "invalid_options")):
        with pytest.raises((InvocationError, AssertionError), match=reason):
            app.enqueue("app::mail", {"id": "lost"}, queue=queue)


def test_every_durable_subscriber_gets_a_message(app: App) -> None:
    app.call("iii::durable::publish", topic="copies", data={"n": 1})
    app.after(0, lambda: app.call("app::seen", "copies") == [{"n": 1}])


def test_cron_ticks_and_tells_its_next_ones(app: App) -> None:
    app.after(1, lambda: len(app.call("app::seen", "ticks")) >= 1)
    tick = app.call("app::seen", "ticks")[0]
    assert (tick["trigger"], tick["missed"]) == ("cron", 0)
    (job,) = app.call("cron::list")["jobs"]
    assert (job["expression"], job["timezone"]) == ("* * * * * *", "UTC")
    with pytest.raises(InvocationError) as caught:
        app.call("cron::run", job="unknown")
    assert caught.value.code == "job_not_found"


def test_a_request_is_answered_by_its_function(app: App) -> None:
    response = app.request("POST", "/orders/7", json={"quantity": 2})
    assert (response.status_code, response.headers["x-kind"]) == (201, "order")
    assert response.json() == {"id": "7", "quantity": 2}


def test_requests_without_a_route_or_a_good_body_and_failures_have_their_status(app: App) -> None:
    for method, path, content, status, code in (
        ("GET", "/nothing", "", 404, "NOT_FOUND"),
        ("GET", "/orders/7", "", 405, "METHOD_NOT_ALLOWED"),
        ("POST", "/orders/7", "{", 400, "invalid_json"),
        ("POST", "/orders/7", "null", 500, "invocation_failed"),
    ):
        headers = {"content-type": "application/json"}
        response = app.request(method, path, content=content, headers=headers)
        assert (response.status_code, response.json()["error"]["code"]) == (status, code)


def test_a_streamed_answer_comes_whole(app: App) -> None:
    response = app.request("GET", "/stream")
    assert response.headers["content-type"] == "text/event-stream"
    assert response.text == "data: 0\n\ndata: 1\n\ndata: 2\n\n"


def test_the_description_of_the_api_names_the_routes(app: App) -> None:
    assert set(app.call("http::openapi")["paths"]) >= {"/orders/{id}", "/stream"}


def test_a_handlers_calls_cause_events_of_their_own(app: App) -> None:
    assert app.call("app::chain", id="x") == {"done": "x"}
    app.after(0, lambda: app.call("app::seen", "done") == ["x"])
    app.after(0, lambda: [event["key"] for event in app.call("app::seen", "chained")] == ["x"])
