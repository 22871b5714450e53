"""The published SDKs, unmodified: every version as worker, as caller, as provider and as binder of triggers.

What needs the standard workers or an engine that is killed is in test_official_project.py.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from iii.engine.routing.events import PeerExpelled
from iii.engine.security.rbac import Filter, Rules
from tests.support import official
from tests.support.harness import Client, Engine

KINDS = official.KINDS

# Older ones read 1 MiB at most, or write 16; the others are held to more than one WebSocket frame of 16 MiB.
LARGE = 30 * 1024 * 1024
RULES = Rules(auth_function_id="gate::auth", expose_functions=(Filter(match="api::*"),))
SIZES = {"python-0-21-6": 900_000, "python-0-23-0": 900_000, "python-0-24-6": 15 * 1024 * 1024}


@pytest.fixture(scope="module")
def engine() -> Iterator[Engine]:
    with Engine(rules=RULES) as running:
        yield running


@pytest.fixture(scope="module", params=KINDS)
def sdk(request: pytest.FixtureRequest, engine: Engine) -> Iterator[str]:
    """Run one worker on the SDK; return its name."""
    with official.official_worker(request.param, engine.url) as name:
        wait_for(engine, f"{name}::drain")
        yield name


def wait_for(engine: Engine, function_id: str) -> None:
    engine.until(lambda: engine.router.registry.find("default", function_id) is not None)


def test_functions_take_and_return_json_values(sdk: str, client: Client) -> None:
    for value in [None, 1, "text", {"a": [1, 2.5, "é\n", None]}, [], {}]:
        answer = client.invoke(f"{sdk}::echo", value)
        assert "error" not in answer
        assert answer.get("result") == value


def test_async_handlers_run_side_by_side(sdk: str, client: Client) -> None:
    ids = [f"{sdk}-{number}" for number in range(20)]
    call = {"type": "invokefunction", "function_id": f"{sdk}::echo_async"}
    client.send(*(call | {"invocation_id": id, "data": id} for id in ids))
    assert [client.expect("invocationresult", invocation_id=id)["result"] for id in ids] == ids


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
    client.invoke(f"{sdk}::unbind", {"type": f"{sdk}-bell"})
    while not any("gone" in event for event in client.invoke(f"{sdk}::events")["result"]):
        pass


def test_its_binding_waits_for_a_provider_and_every_provider_hears_of_it(sdk: str, engine: Engine) -> None:
    with engine.client() as caller:
        binding = {"type": f"{sdk}-late", "config": {"n": 1}, "metadata": {"m": 2}}
        caller.invoke(f"{sdk}::bind", binding)
        for _ in range(2):
            with engine.client() as provider:
                provider.send({"type": "registertriggertype", "id": f"{sdk}-late", "description": "comes late"})
                provider.say_who(f"late-{sdk}")
                got = provider.expect("registertrigger", trigger_type=f"{sdk}-late")
                assert (got["config"], got["metadata"]) == ({"n": 1}, {"m": 2})
        with engine.client() as provider:
            provider.send({"type": "registertriggertype", "id": f"{sdk}-late", "description": "refuses"})
            provider.say_who(f"late-{sdk}")
            got = provider.expect("registertrigger", trigger_type=f"{sdk}-late")
            fired = {"function_id": f"{sdk}::on_event", "data": {"late": True}, "metadata": got["metadata"]}
            provider.send({"type": "invokefunction", "action": {"type": "void"}, **fired})
            await_event(caller, sdk, {"data": {"late": True}, "metadata": {"m": 2}})
            caller.invoke(f"{sdk}::unbind", {"type": f"{sdk}-late"})
            assert provider.expect("unregistertrigger", id=got["id"])["trigger_type"] == f"{sdk}-late"


def test_a_function_that_somebody_has_stays_theirs_and_the_worker_lives_on(sdk: str, client: Client) -> None:
    taken = f"{sdk}-taken::f"
    client.register(taken)
    client.say_who(f"holder-{sdk}")
    client.sync()
    client.invoke(f"{sdk}::register", {"id": taken})
    assert client.invoke(f"{sdk}::echo", 1)["result"] == 1
    client.send({"type": "invokefunction", "invocation_id": "mine", "function_id": taken, "data": {}})
    got = client.expect("invokefunction", function_id=taken)
    client.send({"type": "invocationresult", "invocation_id": got["invocation_id"], "result": "by its holder"})
    assert client.expect("invocationresult", invocation_id="mine")["result"] == "by its holder"


def test_a_name_that_somebody_has_stays_theirs(sdk: str, engine: Engine, client: Client, request: Any) -> None:
    kind = request.node.callspec.params["sdk"]
    with official.official_worker(kind, engine.url) as name:
        engine.until(lambda: any(isinstance(event, PeerExpelled) for event in engine.events))
        engine.events.clear()
        assert name == sdk
    info = client.invoke("engine::workers::info", {"name": sdk})["result"]["worker"]
    assert info["status"] == "connected"
    assert client.invoke(f"{sdk}::echo", 1)["result"] == 1


def test_on_a_listener_with_rules_it_may_what_its_token_may(sdk: str, engine: Engine, client: Client) -> None:
    client.register("gate::auth", "api::open", "db::secret")
    client.say_who("gate")
    client.sync()
    calls = ["api::open", "db::secret", "no::such"]
    visit = {"url": engine.guarded_url, "token": f"of {sdk}", "calls": calls}
    client.send({"type": "invokefunction", "invocation_id": "visit", "function_id": f"{sdk}::visit", "data": visit})
    asked = client.expect("invokefunction", function_id="gate::auth")
    assert asked["data"]["headers"]["authorization"] == f"Bearer of {sdk}"
    client.send({"type": "invocationresult", "invocation_id": asked["invocation_id"], "result": {}})
    called = client.expect("invokefunction", function_id="api::open")
    assert called["data"]["by"] == sdk
    client.send({"type": "invocationresult", "invocation_id": called["invocation_id"], "result": "open"})
    outcome = client.expect("invocationresult", invocation_id="visit")["result"]
    assert outcome == {"api::open": "open", "db::secret": "FORBIDDEN", "no::such": "FORBIDDEN"}


def await_event(client: Client, sdk: str, event: object) -> None:
    """Ask until the worker has seen the event; the test's own timeout bounds it."""
    while event not in client.invoke(f"{sdk}::events")["result"]:
        pass


def test_the_largest_messages_it_can_take_go_there_and_back(sdk: str, client: Client) -> None:
    size = SIZES.get(sdk, LARGE)
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


def test_its_telemetry_arrives(sdk: str, engine: Engine, client: Client) -> None:
    taken: list[tuple[str, bytes]] = []
    engine.gateway.on_telemetry = lambda prefix, data: taken.append((prefix, data))
    client.invoke(f"{sdk}::log", {"text": f"said by {sdk}"})
    engine.until(lambda: any(prefix == "LOGS" and f"said by {sdk}".encode() in data for prefix, data in taken))
