"""The published SDKs, unmodified: every version as worker, as caller, as provider and as binder of triggers."""

from __future__ import annotations

from collections.abc import Iterator

import official
import pytest
from harness import Client, Engine

KINDS = [f"python {version}" for version in official.PYTHON_VERSIONS] + ["node"]

# Older ones read 1 MiB at most, or write 16; the others are held to more than one WebSocket frame of 16 MiB.
SIZES = {"python-0-21-6": 900_000, "python-0-23-0": 900_000, "python-0-24-6": 15 * 1024 * 1024}


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine() as running:
        yield running


@pytest.fixture(scope="module", params=KINDS)
def sdk(request: pytest.FixtureRequest, engine: Engine) -> Iterator[str]:
    """Run one worker on the SDK; return its name."""
    kind, _, version = request.param.partition(" ")
    name = f"{kind}-{version}".strip("-").replace(".", "-")
    start = official.official_node if kind == "node" else None
    with start(engine.url, name) if start else official.official_python(version, engine.url, name):
        wait_for(engine, f"{name}::drain")
        yield name


def wait_for(engine: Engine, function_id: str) -> None:
    engine.until(lambda: engine.router.registry.find("default", function_id) is not None)


def test_functions_take_and_return_json_values(sdk: str, client: Client) -> None:
    for value in [None, 1, "text", {"a": [1, 2.5, "é\n", None]}, [], {}]:
        answer = client.invoke(f"{sdk}::echo", value)
        assert "error" not in answer
        assert answer.get("result") == value


def test_metadata_travels_beside_the_payload(sdk: str, client: Client) -> None:
    answer = client.invoke(f"{sdk}::describe", {"a": 1}, metadata={"tenant": "t"})
    assert answer["result"] == {"data": {"a": 1}, "metadata": {"tenant": "t"}}


def test_an_exception_reaches_the_caller(sdk: str, client: Client) -> None:
    error = client.invoke(f"{sdk}::fail", {})["error"]
    assert error["code"] == "invocation_failed"
    assert "this is why" in error["message"]


def test_it_calls_others_and_itself(sdk: str, client: Client) -> None:
    client.register("plain::double")
    client.say_who(f"plain-{sdk}")
    client.sync()
    call = {"function_id": "plain::double", "payload": {"n": 2}}
    request = {"invocation_id": "outer", "function_id": f"{sdk}::call", "data": call}
    client.send({"type": "invokefunction", **request})
    got = client.expect("invokefunction", function_id="plain::double")
    assert got["data"] == {"n": 2}
    client.send({"type": "invocationresult", "invocation_id": got["invocation_id"], "result": 4})
    assert client.expect("invocationresult", invocation_id="outer")["result"] == {"result": 4}
    own = client.invoke(f"{sdk}::call", {"function_id": f"{sdk}::echo", "payload": {"x": 1}})
    assert own["result"] == {"result": {"x": 1}}


def test_what_goes_wrong_elsewhere_is_its_error(sdk: str, client: Client) -> None:
    outcome = client.invoke(f"{sdk}::call", {"function_id": "no::such", "payload": {}})["result"]
    assert outcome["code"] == "function_not_found"
    assert "no::such not found in namespace default" in outcome["message"]


def test_a_void_call_returns_at_once(sdk: str, client: Client) -> None:
    call = {"function_id": f"{sdk}::on_event", "payload": {"void": True}, "void": True}
    assert client.invoke(f"{sdk}::call", call)["result"] == {"result": None}
    await_event(client, sdk, {"void": True})


def test_it_provides_a_trigger_type_and_binds_to_one(sdk: str, client: Client) -> None:
    client.invoke(f"{sdk}::bind", {"type": f"{sdk}-bell", "config": {"loud": True}})
    await_event(client, sdk, {"rings": {"loud": True}})


def await_event(client: Client, sdk: str, event: object) -> None:
    """Ask until the worker has seen the event; the test's own timeout bounds it."""
    while event not in client.invoke(f"{sdk}::events")["result"]:
        pass


def test_the_largest_messages_it_can_take_go_there_and_back(sdk: str, client: Client) -> None:
    size = SIZES.get(sdk, 20 * 1024 * 1024)
    answer = client.invoke(f"{sdk}::big", {"function_id": f"{sdk}::echo", "size": size})
    assert answer["result"] is True


def test_it_writes_a_channel_and_reads_it(sdk: str, client: Client) -> None:
    answer = client.invoke(f"{sdk}::channel", {"reader": f"{sdk}::drain"})
    assert answer.get("result") == {"bytes": 2_000_000}, answer


def test_introspection_shows_what_it_told(sdk: str, client: Client) -> None:
    worker = client.invoke("engine::workers::info", {"name": sdk})["result"]["worker"]
    assert worker["runtime"] in sdk
    assert worker["status"] == "connected"
    assert worker["ip_address"] == "127.0.0.1"
    assert worker["pid"] > 0
    assert worker["function_count"] >= 10


@pytest.mark.parametrize("kind", ["python 0.25.0", "node"])
def test_a_worker_comes_back_by_itself_when_the_engine_does(kind: str) -> None:
    name = "back"
    with Engine() as first:
        port, url = first.port, first.url
        start = official.official_node if kind == "node" else lambda *a: official.official_python("0.25.0", *a)
        worker = start(url, name)
        worker.__enter__()
        wait_for(first, f"{name}::echo")
    with Engine(port=port) as second, second.client() as client:
        wait_for(second, f"{name}::echo")
        assert client.invoke(f"{name}::echo", 1)["result"] == 1
        worker.__exit__(None, None, None)
        second.until(lambda: second.router.registry.find("default", f"{name}::echo") is None)


def test_telemetry_of_an_sdk_arrives(engine: Engine) -> None:
    with official.official_node(engine.url, "told"):
        engine.until(lambda: engine.gateway.counters["telemetry_MTRC"] + engine.gateway.counters["telemetry_OTLP"] > 0)
