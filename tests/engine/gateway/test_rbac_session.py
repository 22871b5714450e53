"""A listener with rules, over the wire: what a session may do, and that no back door is open."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed

from iii.engine.security.rbac import Filter, Rules
from tests.support.harness import Client, Engine

AUTH = "gate::auth"
RULES = Rules(auth_function_id=AUTH, expose_functions=(Filter(match="api::*"),))


@contextmanager
def gate(engine: Engine, **answers: Any) -> Iterator[Client]:
    """A worker with the functions that the listener asks; each is answered by its value here."""
    with engine.client() as worker:
        worker.register(*(f"gate::{name}" for name in answers))
        worker.say_who("gate")
        worker.sync()
        yield worker


def answer(worker: Client, function_id: str, result: Any = None, error: Any = None) -> Any:
    """Answer the next call of a function; return what it was asked."""
    got = worker.expect("invokefunction", function_id=function_id)
    outcome = {"error": error} if error else {"result": result}
    worker.send({"type": "invocationresult", "invocation_id": got["invocation_id"], **outcome})
    return got["data"]


@pytest.fixture
def guarded() -> Iterator[tuple[Engine, Client]]:
    with Engine(rules=RULES) as engine, gate(engine, auth=1) as worker:
        yield engine, worker


def test_the_auth_function_is_told_who_comes(guarded: tuple[Engine, Client]) -> None:
    engine, worker = guarded
    with engine.guarded_client("/?token=a&token=b&c=", additional_headers={"X-Key": "k"}) as client:
        asked = answer(worker, AUTH, {})
        assert asked["query_params"] == {"token": ["a", "b"], "c": [""]}
        assert asked["headers"]["x-key"] == "k"
        assert asked["ip_address"] == "127.0.0.1"
        assert client.receive()["type"] == "workerregistered"


@pytest.mark.parametrize("path", ["/", "/otel"])
@pytest.mark.parametrize(
    ("outcome", "message"),
    [
        ({"error": {"code": "no", "message": "who are you?"}}, "who are you?"),
        ({"result": None}, "no usable result"),
        ({"result": {"allowed_functions": "all"}}, "no usable result"),
    ],
)
def test_without_its_consent_nobody_gets_in(
    guarded: tuple[Engine, Client], path: str, outcome: dict[str, Any], message: str
) -> None:
    engine, worker = guarded
    with engine.guarded_client(path) as client:
        answer(worker, AUTH, **outcome)
        refused = client.receive()
        assert refused["type"] == "error"
        assert refused["error"]["code"] == "AUTH_ERROR"
        assert refused["error"]["message"].startswith(message)
        with pytest.raises(ConnectionClosed) as closed:
            client.receive()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1005
    assert engine.ask(lambda: engine.guarded.counters["telemetry_OTLP"]) == 0


@pytest.mark.parametrize("path", ["/", "/otel"])
@pytest.mark.parametrize("prefix", [b"OTLP", b"MTRC", b"LOGS"])
def test_telemetry_of_a_session_is_not_taken_whatever_it_says_of_its_origin(
    guarded: tuple[Engine, Client], path: str, prefix: bytes
) -> None:
    engine, worker = guarded
    with engine.guarded_client(path) as client:
        answer(worker, AUTH, {})
        for _ in range(3):
            client.connection.send(prefix + b'{"resourceSpans":[]}')
        engine.until(lambda: engine.guarded.counters["refused_telemetry"] == 3)
        assert engine.ask(lambda: engine.guarded.counters[f"telemetry_{prefix.decode()}"]) == 0


@contextmanager
def session(guarded: tuple[Engine, Client], **auth: Any) -> Iterator[tuple[Client, Client]]:
    """A client whose auth function answered this, and the worker with the project's functions."""
    engine, worker = guarded
    worker.register("api::open", "db::secret")
    worker.sync()
    with engine.guarded_client() as client:
        answer(worker, AUTH, auth)
        client.receive()
        yield client, worker


def test_exposed_functions_can_be_called_and_learn_who_called(guarded: tuple[Engine, Client]) -> None:
    with session(guarded) as (client, worker):
        call = {"type": "invokefunction", "invocation_id": "i", "function_id": "api::open", "data": {"a": 1}}
        client.send(call | {"data": {"a": 1, "_caller_worker_id": "forged"}})
        asked = answer(worker, "api::open", "fine")
        assert asked["a"] == 1
        assert asked["_caller_worker_id"] != "forged"
        assert client.expect("invocationresult", invocation_id="i")["result"] == "fine"
        client.send(call | {"invocation_id": "j", "data": [1]})
        assert answer(worker, "api::open", "fine") == [1]


@pytest.mark.parametrize(
    ("schema", "is_told"),
    [
        ({"type": "object", "additionalProperties": False, "properties": {"a": {}}}, False),
        ({"type": "object", "additionalProperties": False, "properties": {"a": {}, "_caller_worker_id": {}}}, True),
        ({"type": "object"}, True),
        (None, True),
    ],
)
def test_a_function_whose_schema_admits_no_more_fields_is_not_told_who_calls(
    guarded: tuple[Engine, Client], schema: Any, is_told: bool
) -> None:
    with session(guarded) as (client, worker):
        worker.send({"type": "registerfunction", "id": "api::strict", "request_format": schema})
        worker.sync()
        call = {"type": "invokefunction", "invocation_id": "i", "function_id": "api::strict"}
        client.send(call | {"data": {"a": 1, "_caller_worker_id": "forged"}})
        asked = answer(worker, "api::strict", "fine")
        assert ("_caller_worker_id" in asked) is is_told
        assert asked.get("_caller_worker_id") != "forged"


@pytest.mark.parametrize("more", [{}, {"action": {"type": "void"}}, {"action": {"type": "enqueue", "queue": "q"}}])
def test_everything_else_is_forbidden_by_every_way_and_in_the_same_words(
    guarded: tuple[Engine, Client], more: dict[str, Any]
) -> None:
    with session(guarded) as (client, _):
        for function_id in ("db::secret", "no::such", "engine::workers::stop"):
            error = client.invoke(function_id, {}, **more)["error"]
            assert error == {
                "code": "FORBIDDEN",
                "message": f"function '{function_id}' not allowed (add to rbac.expose_functions)",
            }


def test_a_trigger_cannot_call_what_the_session_cannot(guarded: tuple[Engine, Client]) -> None:
    with session(guarded, allowed_trigger_types=["cron"]) as (client, _):
        trigger = {"type": "registertrigger", "trigger_type": "cron", "config": {}}
        client.send(trigger | {"id": "t1", "function_id": "db::secret"})
        error = client.expect("triggerregistrationresult", id="t1")["error"]
        assert error == {"code": "FORBIDDEN", "message": "function 'db::secret' not allowed in namespace 'default'"}
        client.send(trigger | {"id": "t2", "trigger_type": "http", "function_id": "api::open"})
        client.send(trigger | {"id": "t3", "function_id": "api::open"})
        client.say_who("visitor")
        client.sync()
        refused = client.expect("triggerregistrationresult", id="t2")["error"]["message"]
        assert refused == "trigger type 'http' not allowed (add to allowed_trigger_types of the auth function's result)"
    engine, _ = guarded
    assert engine.ask(lambda: engine.router.calls.counters["dropped_by_rules"]) == 2


@pytest.mark.parametrize(
    "config",
    [{"condition_function_id": "db::secret"}, {"middleware_function_ids": ["api::open", "db::secret"]}],
)
def test_s17_nor_can_a_condition_or_a_middleware_of_its_trigger(
    guarded: tuple[Engine, Client], config: dict[str, Any]
) -> None:
    with session(guarded) as (client, _):
        trigger = {"type": "registertrigger", "trigger_type": "http", "function_id": "api::open"}
        client.send(trigger | {"id": "t", "config": config})
        error = client.expect("triggerregistrationresult", id="t")["error"]
        assert error == {"code": "FORBIDDEN", "message": "function 'db::secret' not allowed in namespace 'default'"}


@pytest.mark.parametrize(
    ("door", "payload"),
    [
        ("engine::register_trigger", {"trigger_type": "cron", "function_id": "db::secret"}),
        (
            "engine::register_trigger",
            {"trigger_type": "http", "function_id": "api::open", "config": {"condition_function_id": "db::secret"}},
        ),
        ("engine::queue::enqueue", {"function_id": "db::secret", "queue": "default"}),
        ("action::enqueue", {"function_id": "db::secret", "queue": "default"}),
        ("cron::schedule", {"function_id": "db::secret", "id": "x", "every_ms": 1000}),
    ],
)
def test_s17_a_function_that_runs_others_runs_only_what_the_session_may(
    guarded: tuple[Engine, Client], door: str, payload: dict[str, Any]
) -> None:
    with session(guarded, allowed_functions=[door]) as (client, _):
        error = client.invoke(door, payload)["error"]
        assert error["message"] == "function 'db::secret' not allowed (add to rbac.expose_functions)"


@pytest.mark.parametrize("replay", ["iii::queue::redrive", "queue::redrive", "cron::run", "bridge.invoke"])
def test_s17_what_runs_again_what_others_asked_for_is_forbidden_like_anything_else(
    guarded: tuple[Engine, Client], replay: str
) -> None:
    with session(guarded) as (client, worker):
        worker.register(replay)
        worker.sync()
        assert client.invoke(replay, {"function_id": "db::secret"})["error"]["code"] == "FORBIDDEN"


def test_s15_a_session_cannot_take_the_place_of_a_function_that_exists(guarded: tuple[Engine, Client]) -> None:
    with session(guarded) as (client, worker):
        client.register("db::secret")
        client.say_who("thief")
        assert client.expect("registrationrejected", function_id="db::secret")
        worker.send({"type": "invokefunction", "invocation_id": "i", "function_id": "db::secret", "data": {}})
        answer(worker, "db::secret", "ours")
        assert worker.expect("invocationresult", invocation_id="i")["result"] == "ours"


def test_s16_nobody_answers_or_cancels_the_calls_of_others(guarded: tuple[Engine, Client]) -> None:
    with session(guarded) as (client, worker):
        worker.send({"type": "invokefunction", "invocation_id": "i", "function_id": "api::open", "data": {}})
        got = worker.expect("invokefunction", function_id="api::open")
        for id in (got["invocation_id"], "i"):
            client.send({"type": "invocationresult", "invocation_id": id, "result": "forged"})
            client.send({"type": "cancel", "invocation_id": id})
        client.sync()
        worker.send({"type": "invocationresult", "invocation_id": got["invocation_id"], "result": "true"})
        assert worker.expect("invocationresult", invocation_id="i")["result"] == "true"
        assert not [message for message in worker.seen if message["type"] == "cancel"]


def test_a_session_registers_under_its_prefix_and_knows_nothing_of_it(guarded: tuple[Engine, Client]) -> None:
    with session(guarded, function_registration_prefix="tenant") as (client, worker):
        client.register("own::f", "own::g")
        client.send({"type": "unregisterfunction", "id": "own::g"})
        client.say_who("visitor")
        client.sync()
        worker.send({"type": "invokefunction", "invocation_id": "i", "function_id": "tenant::own::f", "data": {}})
        answer(client, "own::f", 7)
        assert worker.expect("invocationresult", invocation_id="i")["result"] == 7
        assert worker.invoke("tenant::own::g")["error"]["code"] == "function_not_found"


def test_what_a_session_may_not_register_is_dropped(guarded: tuple[Engine, Client]) -> None:
    with session(guarded, allow_function_registration=False) as (client, worker):
        client.register("api::mine")
        client.send({"type": "registertriggertype", "id": "mine", "description": ""})
        client.send({"type": "registeraction", "id": "enqueue", "function_id": "api::mine"})
        client.say_who("visitor")
        client.sync()
        assert worker.invoke("api::mine")["error"]["code"] == "function_not_found"
        assert worker.invoke("engine::trigger-types::list")["result"]["trigger_types"] == []
        assert worker.invoke("api::open", {}, action={"type": "enqueue"})["error"]["code"] == "enqueue_error"


def test_a_session_may_not_send_our_secrets_to_a_url_of_its_own(guarded: tuple[Engine, Client]) -> None:
    with session(guarded) as (client, worker):
        place = {"url": "https://api.example/"}
        stolen = place | {"auth": {"type": "bearer", "token_key": "OUR_TOKEN"}}
        client.send({"type": "registerfunction", "id": "own::plain", "invocation": place})
        client.send({"type": "registerfunction", "id": "own::stolen", "invocation": stolen})
        client.say_who("visitor")
        client.sync()
        rows = worker.invoke("engine::functions::list", {"prefix": "own::"})["result"]["functions"]
        assert [row["function_id"] for row in rows] == ["own::plain"]


def test_lists_show_what_may_be_called(guarded: tuple[Engine, Client]) -> None:
    allowed = ["engine::functions::list", "engine::functions::info"]
    with session(guarded, allowed_functions=allowed) as (client, _):
        rows = client.invoke("engine::functions::list", {})["result"]["functions"]
        assert [row["function_id"] for row in rows] == ["api::open"]
        assert client.invoke("engine::functions::info", {"function_id": "db::secret"})["error"]["code"] == "FORBIDDEN"
        assert client.invoke("engine::functions::info", {"function_id": "no::such"})["error"]["code"] == "FORBIDDEN"
        both = {"function_ids": ["api::open", "db::secret", "no::such"]}
        rows = client.invoke("engine::functions::info", both)["result"]["functions"]
        assert [row.get("error") for row in rows] == [None, "forbidden", "forbidden"]


def test_a_session_lives_in_a_namespace_it_was_granted(guarded: tuple[Engine, Client]) -> None:
    with session(guarded, namespaces={"tenant": ["*"]}) as (client, _):
        error = client.invoke("engine::workers::register", {"name": "v", "namespace": "other"})["error"]
        assert error["message"] == "namespace 'other' not allowed for this session (permitted: tenant)"
        assert client.invoke("engine::workers::register", {"name": "v", "namespace": "tenant"})["result"]["success"]


def test_hooks_may_change_or_refuse_a_registration() -> None:
    rules = Rules(
        auth_function_id=AUTH,
        on_function_registration_function_id="gate::function",
        on_trigger_registration_function_id="gate::trigger",
        on_trigger_type_registration_function_id="gate::type",
        expose_functions=(Filter(match="api::*"),),
    )
    with (
        Engine(rules=rules) as engine,
        gate(engine, auth=1, function=1, trigger=1, type=1) as worker,
        engine.guarded_client() as client,
    ):
        answer(worker, AUTH, {"context": {"user": 7}, "allow_trigger_type_registration": True})
        client.register("a::f", "a::refused")
        asked = answer(worker, "gate::function", {"function_id": "api::f", "metadata": {"by": "hook"}})
        assert asked == {
            "function_id": "a::f",
            "description": None,
            "metadata": None,
            "namespace": "default",
            "context": {"user": 7},
        }
        answer(worker, "gate::function", None)
        client.send({"type": "registertriggertype", "id": "beep", "description": "d"})
        answer(worker, "gate::type", {"trigger_type_id": "boop"})
        trigger = {"type": "registertrigger", "id": "t", "trigger_type": "boop", "function_id": "x", "config": 1}
        client.send(trigger)
        answer(worker, "gate::trigger", {"function_id": "api::f", "config": None})
        client.say_who("visitor")
        assert client.expect("registertrigger") == trigger | {"function_id": "api::f", "config": None}
        info = worker.invoke("engine::functions::info", {"function_id": "api::f"})["result"]
        assert info["metadata"] == {"by": "hook"}
        assert worker.invoke("a::refused")["error"]["code"] == "function_not_found"


def test_a_middleware_gets_every_call_but_those_of_the_engine() -> None:
    with Engine(middleware="gate::mw") as engine, gate(engine, mw=1) as worker:
        worker.register("api::open")
        worker.sync()
        with engine.guarded_client() as client:
            call = {"type": "invokefunction", "invocation_id": "i", "function_id": "api::open", "data": {"a": 1}}
            client.send(call | {"metadata": {"m": 1}})
            got = worker.expect("invokefunction", function_id="gate::mw")
            assert got["metadata"] == {"m": 1}
            assert got["data"] == {
                "function_id": "api::open",
                "payload": {"a": 1},
                "action": None,
                "context": {},
                "namespace": "default",
            }
            result = {"type": "invocationresult", "invocation_id": got["invocation_id"], "result": "by middleware"}
            worker.send(result)
            assert client.expect("invocationresult", invocation_id="i")["result"] == "by middleware"
            client.send(call | {"invocation_id": "j"})
            answer(worker, "gate::mw", error={"code": "no", "message": "not today"})
            assert client.expect("invocationresult", invocation_id="j")["error"]["code"] == "no"
            assert "functions" in client.invoke("engine::functions::list", {})["result"]


def test_a_client_that_leaves_while_it_is_authenticated_leaves_nothing(guarded: tuple[Engine, Client]) -> None:
    engine, worker = guarded
    peers = engine.ask(lambda: len(engine.router.peer_table.peers))
    with engine.guarded_client():
        worker.expect("invokefunction", function_id=AUTH)
    engine.until(lambda: not engine.guarded.connections)
    assert engine.ask(lambda: len(engine.router.peer_table.peers)) == peers


def test_a_session_neither_names_an_old_type_nor_sees_the_calls_of_others_through_one(
    guarded: tuple[Engine, Client],
) -> None:
    engine, worker = guarded
    named = {"type": "registerfunction", "observe": {"legacy_trigger_type": "paid"}}
    worker.send({**named, "id": "shop::pay"})
    worker.send({**named, "id": "shop::feed", "observe": {"legacy_trigger_type": "fed", "delivery": "owner"}})
    worker.say_who("shop", features=["observe.v1"])
    worker.sync()
    with engine.guarded_client() as client:
        rules = {"allowed_trigger_types": ["paid", "fed", "stolen"], "allow_trigger_type_registration": True}
        answer(worker, AUTH, rules | {"function_registration_prefix": "mine", "allowed_functions": ["mine::f"]})
        client.send({**named, "id": "f", "observe": {"legacy_trigger_type": "stolen"}})
        bind = {"type": "registertrigger", "function_id": "f", "config": {}}
        client.send({**bind, "id": "b1", "trigger_type": "paid"}, {**bind, "id": "b2", "trigger_type": "fed"})
        error = client.expect("triggerregistrationresult", id="b1")["error"]
        assert (error["code"], "calls of others" in error["message"]) == ("FORBIDDEN", True)
        client.sync()
        assert engine.ask(lambda: list(engine.observing.observers)) == ["b2"]
        assert engine.ask(lambda: [id for _, id in engine.router.bindings.types if id == "stolen"]) == []
    engine.until(lambda: not engine.observing.observers)


def test_a_session_observes_what_it_has_registered_itself_and_nothing_else(guarded: tuple[Engine, Client]) -> None:
    engine, worker = guarded
    worker.register("shop::pay")
    with engine.guarded_client() as client:
        answer(worker, AUTH, {"function_registration_prefix": "mine", "allowed_functions": ["mine::f", "mine::target"]})
        client.register("f", "target")
        client.say_who("guest", features=["observe.v1", "local-dispatch.v1"])
        told = client.expect("functionregistered", id="f")
        assert not told["local_dispatch"]
        client.send(
            {
                "type": "observe",
                "id": "theirs",
                "source": {"function_id": "shop::pay"},
                "target": {"function_id": "mine::target"},
            }
        )
        assert client.expect("observeresult", id="theirs")["error"]["code"] == "FORBIDDEN"
        ends = {"source": {"function_id": "mine::f"}, "target": {"function_id": "mine::target"}}
        client.send({"type": "observe", "id": "own", **ends})
        added = client.expect("observeradded", function_id="f")
        client.send({"type": "observerack", "function_id": "f", "id": "own", "revision": added["revision"]})
        client.expect("observerstatechanged", id="own", state="active")
        rows = engine.ask(lambda: [row.row()["id"] for row in engine.observing.observers.values()])
        assert rows == ["own"]
        worker.send({"type": "invokefunction", "invocation_id": "p", "function_id": "mine::f", "data": 1})
        client.expect("invokefunction", function_id="f")
        client.send({"type": "invocationresult", "invocation_id": "p", "function_id": "f", "result": 2})
        activation = client.expect("invokefunction", function_id="target")
        assert (activation["data"]["input"], activation["data"]["output"]) == (1, 2)
