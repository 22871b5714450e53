"""The published SDKs against the standard workers of a real engine, and against its sudden death.

One engine and one process for each SDK: together they run the whole list.
"""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from contextlib import ExitStack
from pathlib import Path
from typing import Any
from urllib.error import HTTPError
from urllib.request import Request, urlopen

import pytest

from tests.support import official
from tests.support.dev_project import Caller, Project, free_port, running_project
from tests.support.harness import BOUND

PROJECT = """
[engine]
listen = "127.0.0.1:PORT"
[workers.state]
[workers.configuration]
[workers.stream.config]
port = 0
[workers.queue]
[workers.pubsub]
[workers.http_functions.config.security]
block_private_ips = false
require_https = false
[workers.iii-http.config]
port = HTTP
"""


@pytest.fixture(scope="module")
def http_port() -> int:
    return free_port()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory, http_port: int) -> Iterator[Project]:
    folder: Path = tmp_path_factory.mktemp("standard")
    text = PROJECT.replace("PORT", str(free_port())).replace("HTTP", str(http_port))
    (folder / "iii.toml").write_text(text)
    with running_project(folder) as running:
        yield running


@pytest.fixture(scope="module", params=official.KINDS)
def sdk(request: pytest.FixtureRequest, project: Project) -> Iterator[str]:
    """Run one worker on the SDK; return its name."""
    with official.official_worker(request.param, project.facts["url"]) as name:
        caller = project.caller()
        await_function(caller, name)
        caller.close()
        yield name


def await_function(caller: Caller, name: str) -> None:
    """Ask until the worker is there; the test's own timeout bounds it."""
    while "error" in caller.call(f"{name}::echo", 1):
        pass


def await_event(caller: Caller, sdk: str, event: dict[str, Any]) -> dict[str, Any]:
    """Ask until the worker has seen an event with these fields; return it."""
    while True:
        for seen in caller.result(f"{sdk}::events"):
            if isinstance(seen, dict) and event.items() <= seen.items():
                return dict(seen)


def through(caller: Caller, sdk: str, function_id: str, payload: Any, **more: Any) -> Any:
    """Call a function the way the SDK calls it."""
    outcome = caller.result(f"{sdk}::call", {"function_id": function_id, "payload": payload, **more})
    assert "result" in outcome, outcome
    return outcome["result"]


def bind(caller: Caller, sdk: str, type: str, config: dict[str, Any], **more: Any) -> None:
    """Have the SDK bind a function to a trigger; return when the engine knows of it."""
    caller.result(f"{sdk}::bind", {"type": type, "config": config, **more})


def test_state(sdk: str, caller: Caller) -> None:
    bind(caller, sdk, "state", {"scope": sdk})
    item = {"scope": sdk, "key": "k"}
    assert through(caller, sdk, "state::get", item) is None
    assert through(caller, sdk, "state::set", item | {"value": {"n": 1}})["new_value"] == {"n": 1}
    update = {"ops": [{"type": "increment", "path": "n", "by": 2}]}
    assert through(caller, sdk, "state::update", item | update)["new_value"] == {"n": 3}
    assert through(caller, sdk, "state::get", item) == {"n": 3}
    event = await_event(caller, sdk, {"scope": sdk, "event_type": "state:updated"})
    assert (event["old_value"], event["new_value"]) == ({"n": 1}, {"n": 3})
    through(caller, sdk, "state::delete", item)


def test_configuration(sdk: str, caller: Caller) -> None:
    id = sdk.replace(".", "-")
    schema = {"type": "object", "properties": {"port": {"type": "integer"}}}
    entry = {"id": id, "name": "Shop", "description": "of the shop", "schema": schema}
    bind(caller, sdk, "configuration", {"configuration_id": id})
    registered = through(caller, sdk, "configuration::register", {**entry, "initial_value": {"port": "${GONE:80}"}})
    assert registered == {**entry, "value": {"port": "${GONE:80}"}}
    assert through(caller, sdk, "configuration::get", {"id": id}) == {"id": id, "value": {"port": 80}}
    change = through(caller, sdk, "configuration::set", {"id": id, "value": {"port": 81}})
    assert change == {"old_value": {"port": "${GONE:80}"}, "new_value": {"port": 81}}
    event = await_event(caller, sdk, {"id": id, "event_type": "configuration:updated"})
    told = {"type": "configuration", **entry, "old_value": {"port": 80}, "new_value": {"port": 81}}
    assert told.items() <= event.items()
    assert through(caller, sdk, "configuration::schema", {"id": id}) == entry
    assert entry in through(caller, sdk, "configuration::list", {})["configurations"]
    for function_id, payload, code in (
        ("register", {**entry, "id": "No Id"}, "INVALID_ID"),
        ("register", {**entry, "schema": {"type": "wat"}}, "SCHEMA_INVALID"),
        ("set", {"id": id, "value": {"port": "x"}}, "SCHEMA_INVALID"),
        ("set", {"id": "none", "value": 1}, "NOT_REGISTERED"),
        ("get", {"id": "none"}, "NOT_FOUND"),
        ("schema", {"id": "none"}, "NOT_FOUND"),
    ):
        call = {"function_id": f"configuration::{function_id}", "payload": payload}
        assert caller.result(f"{sdk}::call", call)["code"] == code
    through(caller, sdk, "configuration::set", {"id": id, "value": {"port": "${GONE}"}})
    call = {"function_id": "configuration::get", "payload": {"id": id}}
    assert caller.result(f"{sdk}::call", call)["code"] == "EXPAND_FAILED"


def test_stream(sdk: str, caller: Caller) -> None:
    bind(caller, sdk, "stream", {"stream_name": sdk}, metadata={"from": "stream"})
    item = {"stream_name": sdk, "group_id": "g", "item_id": "i"}
    through(caller, sdk, "stream::set", item | {"data": {"n": 1}})
    assert through(caller, sdk, "stream::get", item) == {"n": 1}
    assert through(caller, sdk, "stream::list", {"stream_name": sdk, "group_id": "g"}) == [{"n": 1}]
    event = await_event(caller, sdk, {"metadata": {"from": "stream"}})["data"]
    assert (event["streamName"], event["event"]) == (sdk, {"type": "create", "data": {"n": 1}})


def test_publish_and_subscribe(sdk: str, caller: Caller) -> None:
    bind(caller, sdk, "subscribe", {"topic": f"of.{sdk}"})
    through(caller, sdk, "publish", {"topic": f"of.{sdk}", "data": {"published": sdk}})
    await_event(caller, sdk, {"published": sdk})


@pytest.mark.parametrize("kind", [pytest.param("node", marks=official.needs_node)])
def test_an_official_sdk_waits_for_its_job(project: Project, caller: Caller, kind: str) -> None:
    with official.official_worker(kind, project.facts["url"]) as name:
        await_function(caller, name)
        call = {"function_id": f"{name}::echo", "payload": {"n": 1}, "queue": "default", "wait": True}
        assert caller.result(f"{name}::call", call) == {"result": {"n": 1}}
        call["function_id"] = f"{name}::fail"
        # The default queue tries three times; what the caller gets is the handler's own error.
        assert "this is why" in caller.result(f"{name}::call", call)["message"]


def test_a_call_through_a_queue(sdk: str, caller: Caller) -> None:
    receipt = through(caller, sdk, f"{sdk}::on_event", {"queued": sdk}, queue="default")
    assert receipt["messageReceiptId"]
    assert await_event(caller, sdk, {"data": {"queued": sdk}})["metadata"]["iii.job"]["attempt"] == 1


def test_an_http_endpoint(sdk: str, caller: Caller, http_port: int) -> None:
    bind(caller, sdk, "http", {"api_path": f"{sdk}/page", "http_method": "POST"}, function_id=f"{sdk}::page")
    with request(http_port, f"{sdk}/page", b'{"a": 1}', "application/json") as answer:
        assert (answer.status, answer.headers["x-by"]) == (201, sdk)
        assert answer.read() in (b'{"method":"POST","a":1}', b'{"a":1,"method":"POST"}')


def test_an_http_endpoint_that_streams(sdk: str, caller: Caller, http_port: int) -> None:
    bind(caller, sdk, "http", {"api_path": f"{sdk}/stream", "http_method": "POST"}, function_id=f"{sdk}::streamed")
    body = sdk.encode() * 50_000
    with request(http_port, f"{sdk}/stream", body, "application/octet-stream") as answer:
        assert (answer.status, answer.headers["content-type"]) == (202, "text/plain")
        assert answer.read() == body * 3


def test_a_function_that_is_invoked_over_http(sdk: str, caller: Caller, http_port: int) -> None:
    """The URL is one of the project's own: the SDK's page answers for it."""
    bind(caller, sdk, "http", {"api_path": f"{sdk}/far", "http_method": "POST"}, function_id=f"{sdk}::page")
    caller.result(f"{sdk}::register", {"id": f"{sdk}::far", "url": f"http://127.0.0.1:{http_port}/{sdk}/far"})
    while "error" in (answer := caller.call(f"{sdk}::far", {"a": 1})):
        assert answer["error"]["code"] in ("function_not_found", "http_error"), answer
    assert answer["result"].items() >= {"method": "POST", "a": 1}.items()


def request(port: int, path: str, body: bytes, content_type: str) -> Any:
    """Send a POST to the http worker, again while it has not heard of the path yet; the test's timeout bounds it.

    A server that refuses a large body before it has read it all closes the connection: the client may see the refusal
    or the closed connection. So it is asked without a body first.
    """
    url, headers = f"http://127.0.0.1:{port}/{path}", {"Content-Type": content_type}
    while True:
        try:
            urlopen(Request(url, method="OPTIONS"), timeout=BOUND).close()
            return urlopen(Request(url, body, headers), timeout=BOUND)
        except HTTPError as refused:
            if refused.code != 404:
                raise
            refused.close()


@pytest.mark.timeout(180)
def test_after_a_kill_of_the_engine_all_of_them_are_back_with_all_they_had(project: Project) -> None:
    """E09: who reconnects registers everything again, and nobody's old connection is in the way."""
    kinds = [kind for kind in official.KINDS if isinstance(kind, str) or official.HAS_NODE]
    with ExitStack() as workers:
        url = project.facts["url"]
        plain = [kind if isinstance(kind, str) else str(kind.values[0]) for kind in kinds]
        names = [workers.enter_context(official.official_worker(kind, url, "killed-")) for kind in plain]
        before = project.caller()
        for name in names:
            await_function(before, name)
            bind(before, name, "subscribe", {"topic": "after"})
        os.kill(project.facts["pid"], signal.SIGKILL)
        before.close()
        project.hear(r"ready in", count=2)
        after = project.caller()
        for name in names:
            await_function(after, name)
        for name in names:
            assert through(after, name, f"{names[0]}::echo", name) == name
            event = {"killed": name}
            # Again and again: that its binding is back is told to the provider a moment after its functions are.
            while event not in after.result(f"{name}::events"):
                after.result("publish", {"topic": "after", "data": event})
        after.close()
