"""The public contract of the main connection, frame by frame: what every official SDK relies on."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Iterator

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.frames import Frame, Opcode

from tests.support.harness import BOUND, Client, Engine


def test_the_first_frame_tells_who_the_connection_is_and_what_the_engine_can_do(client: Client) -> None:
    hello = client.receive()
    assert hello.keys() == {"type", "worker_id", "reattach_token", "features"}
    assert hello["features"] == ["observe.v1", "local-dispatch.v1"]
    assert uuid.UUID(hello["worker_id"])


def test_a_call_reaches_the_worker_and_its_result_the_caller(engine: Engine, client: Client) -> None:
    client.register("a::f")
    client.say_who("a")
    with engine.client() as caller:
        id = str(uuid.uuid4())
        caller.send(
            {
                "type": "invokefunction",
                "invocation_id": id,
                "function_id": "a::f",
                "data": {"n": 1},
                "metadata": {"m": 2},
                "traceparent": "00-aa-bb-01",
            }
        )
        got = client.expect("invokefunction", function_id="a::f")
        assert got["invocation_id"] == id
        assert (got["data"], got["metadata"], got["traceparent"]) == ({"n": 1}, {"m": 2}, "00-aa-bb-01")
        client.send({"type": "invocationresult", "invocation_id": id, "function_id": "a::f", "result": None})
        answer = caller.expect("invocationresult", invocation_id=id)
        assert answer["result"] is None
        assert "error" not in answer


def test_a_call_without_data_arrives_with_data_null(engine: Engine, client: Client) -> None:
    client.register("a::f")
    client.say_who("a", namespace="shop")
    client.sync()
    with engine.client() as caller:
        caller.send({"type": "invokefunction", "invocation_id": "i", "function_id": "a::f", "namespace": "shop"})
        got = client.expect("invokefunction", function_id="a::f")
        assert got["data"] is None
        assert "namespace" not in got


def test_registrations_wait_for_the_namespace_and_take_effect_in_it(engine: Engine, client: Client) -> None:
    client.register("a::f")
    with engine.client() as caller:
        client.sync()
        assert caller.invoke("a::f")["error"]["code"] == "function_not_found"
        client.say_who("a", namespace="shop")
        client.sync()
        missing = caller.invoke("a::f")["error"]
        assert missing["message"].startswith("Function a::f not found in namespace default")
        assert "registered in namespace(s): shop" in missing["message"]
        rows = caller.invoke("engine::functions::list")["result"]["functions"]
        assert {"function_id": "a::f", "namespace": "shop", "worker_name": "a"} in rows


def test_a_worker_is_described_in_the_namespace_that_is_asked_for(engine: Engine, client: Client) -> None:
    client.register("a::f")
    client.say_who("same", namespace="shop")
    client.sync()

    def asked(caller: Client, **fields: str) -> str:
        answer = caller.invoke("engine::workers::info", {"name": "same", **fields})
        return answer["result"]["worker"]["namespace"] if "result" in answer else answer["error"]["message"]

    with engine.client() as other:
        assert asked(other) == "shop"
        other.register("a::f")
        other.say_who("same")
        other.sync()
        assert [asked(other), asked(other, namespace="shop"), asked(other, namespace="default")] == [
            *("default", "shop", "default"),
        ]
        assert asked(other, namespace="none") == (
            "worker same not found in namespace none; it is in namespace(s): default, shop"
        )


def test_how_long_a_name_may_take_is_a_limit_of_the_listener() -> None:
    with Engine(namespace_timeout=0.01) as engine, engine.client() as worker:
        worker.register("a::f")
        engine.until(lambda: engine.router.registry.find("default", "a::f") is not None)


def test_without_a_name_in_time_registrations_go_to_the_default_namespace(
    engine: Engine, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("III_NAMESPACE_GRACE_MS", "10")
    with engine.client() as worker:
        worker.register("a::f")
        engine.until(lambda: engine.router.registry.find("default", "a::f") is not None)
        worker.say_who("late", namespace="shop")
        worker.register("a::g")
        worker.sync()
        assert engine.ask(lambda: engine.router.registry.find("default", "a::g")) is not None
        assert engine.ask(lambda: engine.router.registry.find("shop", "a::g")) is None


def test_a_taken_name_is_rejected_and_its_connection_closed(engine: Engine, client: Client) -> None:
    holder = client.receive()["worker_id"]
    client.say_who("twin")
    client.sync()
    with engine.client() as second:
        second.register("b::f")
        second.say_who("twin")
        rejected = second.expect("registrationrejected")
        assert rejected == {
            "type": "registrationrejected",
            "code": "WORKER_NAMESPACE_CONFLICT",
            "namespace": "default",
            "worker_name": "twin",
            "owner_worker_id": holder,
        }
        with pytest.raises(ConnectionClosed) as closed:
            second.receive()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1005
    assert engine.ask(lambda: engine.router.registry.find("default", "b::f")) is None
    with engine.client() as elsewhere:
        elsewhere.say_who("twin", namespace="other")
        elsewhere.sync()


def test_a_taken_function_is_rejected_and_the_connection_lives_on(engine: Engine, client: Client) -> None:
    holder = client.receive()["worker_id"]
    client.register("a::f")
    client.say_who("a")
    client.sync()
    with engine.client() as second:
        second.register("a::f", "b::g")
        second.say_who("b")
        rejected = second.expect("registrationrejected")
        assert (rejected["code"], rejected["function_id"], rejected["owner_worker_id"]) == (
            "FUNCTION_NAMESPACE_CONFLICT",
            "a::f",
            holder,
        )
        second.sync()
        assert engine.ask(lambda: engine.router.registry.find("default", "b::g")) is not None


def test_reattach_evicts_the_old_connection_before_the_replay(engine: Engine, client: Client) -> None:
    hello = client.receive()
    client.register("a::f")
    client.say_who("a")
    client.sync()
    with engine.client() as again:
        again.send(
            {
                "type": "reattach",
                "previous_worker_id": hello["worker_id"],
                "reattach_token": hello["reattach_token"],
            }
        )
        again.register("a::f")
        again.say_who("a")
        again.sync()
        assert not [message for message in again.seen if message["type"] == "registrationrejected"]
        with pytest.raises(ConnectionClosed):
            client.expect("never")
        assert engine.ask(lambda: len(engine.router.peer_table.peers)) == 2  # the engine itself and the new connection


@pytest.mark.parametrize("token", ["wrong", "", None, "é"])
def test_reattach_with_a_wrong_token_is_ignored(engine: Engine, client: Client, token: str | None) -> None:
    hello = client.receive()
    with engine.client() as thief:
        thief.send(
            {"type": "reattach", "previous_worker_id": hello["worker_id"], "reattach_token": token},
            {"type": "reattach", "previous_worker_id": "no uuid", "reattach_token": token},
        )
        thief.sync()
    client.sync()


def test_a_disconnect_settles_calls_both_ways_and_takes_what_was_registered(engine: Engine, client: Client) -> None:
    with engine.client() as worker:
        worker.register("w::slow")
        worker.say_who("w")
        worker.sync()
        client.send({"type": "invokefunction", "invocation_id": "i1", "function_id": "w::slow", "data": {}})
        worker.expect("invokefunction", function_id="w::slow")
    error = client.expect("invocationresult", invocation_id="i1")["error"]
    assert error["code"] == "invocation_stopped"
    assert error["message"].startswith("Invocation stopped")
    assert client.invoke("w::slow")["error"]["code"] == "function_not_found"


@pytest.mark.parametrize(
    "frame",
    [
        "",
        "not json",
        "[]",
        '{"no":"type"}',
        '{"type":"nonsense"}',
        '{"type":"registerfunction"}',
        '{"type":"invokefunction","function_id":3}',
        b"\xff\xfe",
        b"{}",
    ],
)
def test_a_bad_frame_never_closes_the_connection(client: Client, frame: str | bytes) -> None:
    client.connection.send(frame)
    client.sync()


def test_json_in_a_binary_frame_is_a_message(client: Client) -> None:
    client.connection.send(b'{"type":"ping"}')
    client.expect("pong")


def test_json_on_several_lines_reaches_the_worker_as_one_line(engine: Engine, client: Client) -> None:
    client.register("a::f")
    client.say_who("a")
    client.sync()
    with engine.client() as caller:
        call = {"type": "invokefunction", "invocation_id": "i", "function_id": "a::f", "data": {"a": "x\ny"}}
        caller.connection.send(json.dumps(call, indent=2))
        raw = client.connection.recv(timeout=BOUND)
        while "invokefunction" not in str(raw):
            raw = client.connection.recv(timeout=BOUND)
        assert "\n" not in str(raw)
        assert json.loads(raw)["data"] == {"a": "x\ny"}


def test_a_fragmented_message_of_30_mib_comes_through_both_ways(engine: Engine, client: Client) -> None:
    client.register("a::echo")
    client.say_who("a")
    client.sync()
    text = "é" * (15 * 1024 * 1024)
    with engine.client() as caller:
        call = {"type": "invokefunction", "invocation_id": "big", "function_id": "a::echo", "data": text}
        encoded = json.dumps(call, ensure_ascii=False)
        caller.connection.send(encoded[at : at + 500_000] for at in range(0, len(encoded), 500_000))
        got = client.expect("invokefunction", function_id="a::echo")
        assert got["data"] == text
        answer = {"type": "invocationresult", "invocation_id": "big", "function_id": "a::echo", "result": got["data"]}
        client.connection.send(json.dumps(answer, ensure_ascii=False))
        assert caller.expect("invocationresult", invocation_id="big")["result"] == text


def closed_with(client: Client, message: Iterator[str]) -> int:
    """Send what must not be sent; return the code the connection was closed with."""
    with contextlib.suppress(ConnectionClosed):
        client.connection.send(message)
    with pytest.raises(ConnectionClosed) as closed:
        client.receive()
    assert closed.value.rcvd is not None
    return closed.value.rcvd.code


def test_h10_a_message_over_64_mib_closes_only_its_own_connection(engine: Engine, client: Client) -> None:
    with engine.client() as greedy:
        greedy.receive()
        half = "x" * (33 * 1024 * 1024)
        assert closed_with(greedy, iter([half, half])) == 1009
    client.sync()


def test_h10_thousands_of_fragments_close_the_connection(engine: Engine, client: Client) -> None:
    with engine.client() as splitter:
        splitter.receive()
        assert closed_with(splitter, iter(["x"] * 10_000)) == 1009
    client.sync()


@pytest.mark.parametrize(
    ("raw", "code"),
    [
        (Frame(Opcode.TEXT, b"\xff\xfe").serialize(mask=True), 1007),
        (Frame(Opcode.TEXT, b"unmasked").serialize(mask=False), 1002),
        (b"\xc1" + Frame(Opcode.TEXT, b"reserved").serialize(mask=True)[1:], 1002),
        (Frame(Opcode.CONT, b"of nothing").serialize(mask=True), 1002),
        (Frame(Opcode.TEXT, b"a", False).serialize(mask=True) + Frame(Opcode.TEXT, b"b").serialize(mask=True), 1002),
    ],
)
def test_h10_what_breaks_rfc_6455_closes_only_its_own_connection(
    engine: Engine, client: Client, raw: bytes, code: int
) -> None:
    with engine.client() as wrong:
        wrong.receive()
        wrong.connection.socket.sendall(raw)
        with pytest.raises(ConnectionClosed) as closed:
            wrong.receive()
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == code
    client.sync()


def test_pings_of_both_kinds_are_answered(client: Client) -> None:
    assert client.connection.ping(b"hello").wait(BOUND)
    client.sync()


def test_compression_is_declined(engine: Engine) -> None:
    with engine.client(compression="deflate") as client:
        response = client.connection.response
        assert response is not None
        assert "Sec-WebSocket-Extensions" not in response.headers


@pytest.mark.parametrize("path", ["/", "/otel"])
def test_telemetry_frames_are_taken_on_both_paths(engine: Engine, path: str) -> None:
    taken: list[tuple[str, bytes]] = []
    engine.gateway.on_telemetry = lambda prefix, data: taken.append((prefix, data))
    with engine.client(path) as client:
        for prefix in (b"OTLP", b"MTRC", b"LOGS"):
            client.connection.send(prefix + b"{}")
        engine.until(lambda: len(taken) == 3)
    assert taken == [("OTLP", b"{}"), ("MTRC", b"{}"), ("LOGS", b"{}")]


def test_the_telemetry_path_is_no_peer_and_drops_everything_else(engine: Engine) -> None:
    with engine.client("/otel") as client:
        client.connection.send('{"type":"ping"}')
        client.connection.send(b"nonsense")
        engine.until(lambda: engine.gateway.counters["unknown_telemetry"] == 1)
        assert engine.ask(lambda: len(engine.router.peer_table.peers)) == 1


def test_a_path_that_leads_nowhere_is_404(engine: Engine) -> None:
    with pytest.raises(InvalidStatus) as refused, engine.client("/elsewhere"):
        pass
    assert refused.value.response.status_code == 404


def test_trigger_types_work_over_the_wire(engine: Engine, client: Client) -> None:
    with engine.client() as binder:
        trigger = {"type": "registertrigger", "id": "t1", "trigger_type": "beep", "function_id": "b::on"}
        binder.send(trigger | {"config": {"every": 1}, "metadata": {"m": 1}})
        binder.say_who("binder")
        binder.sync()
        client.send({"type": "registertriggertype", "id": "beep", "description": "beeps"})
        client.say_who("provider")
        got = client.expect("registertrigger", id="t1")
        assert got == trigger | {"config": {"every": 1}, "metadata": {"m": 1}}
        error = {"code": "trigger_registration_failed", "message": "no"}
        answer = {"type": "triggerregistrationresult", "id": "t1", "trigger_type": "beep", "function_id": "b::on"}
        client.send(answer | {"error": error})
        assert binder.expect("triggerregistrationresult")["error"] == error
        client.send({"type": "registertriggertype", "id": "beep", "description": "beeps again"})
        client.expect("registertrigger", id="t1")
    assert client.expect("unregistertrigger", id="t1")["trigger_type"] == "beep"
