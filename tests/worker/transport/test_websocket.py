"""The same worker over WebSocket: registered by address, called, cut off, back again with all it had."""

from __future__ import annotations

import queue
import socket
import threading

import pytest
from websockets.sync.server import serve

from iii import IIIError, InitOptions, InvocationError, RegistrationRejectedError, TriggerHandler, register_worker
from tests.support.harness import Engine
from tests.support.worker_support import BOUND, in_thread


class Soon:
    """A reconnection that does not keep tests waiting."""

    initial_delay_ms = 10
    max_delay_ms = 50
    max_retries = -1


class Never(Soon):
    max_retries = 0


@pytest.fixture
def engine():
    with Engine() as running:
        yield running


@pytest.fixture
def connect():
    """`register_worker` for workers that are shut down at the end."""
    made = []

    def make(engine, name="shop", **options):
        fields = {"reconnection_config": Soon, "headers": {"Authorization": "Bearer secret"}, **options}
        made.append(register_worker(engine.url, InitOptions(worker_name=name, **fields)))
        return made[-1]

    yield make
    for worker in made:
        worker.shutdown()


def call(engine: Engine, function_id: str, data: object = None) -> dict:
    with engine.client() as client:
        answer: dict = client.invoke(function_id, data)
        return answer


def has(engine: Engine, function_id: str) -> bool:
    """Whether a worker serves the function; on the engine's thread."""
    function = engine.router.registry.find("default", function_id)
    return function is not None and bool(function.providers)


def test_functions_are_served_and_called(engine, connect):
    worker = connect(engine)
    worker.register_function("shop::double", lambda n: n * 2)
    engine.until(lambda: has(engine, "shop::double"))
    assert call(engine, "shop::double", 4)["result"] == 8
    assert worker.trigger("shop::double", 5) == 10
    assert worker.get_connection_state() == "connected"


def test_a_large_message_passes_both_ways(engine, connect):
    worker = connect(engine)
    worker.register_function("shop::echo", lambda text: text)
    assert worker.trigger("shop::echo", "x" * 3_000_000) == "x" * 3_000_000


def test_text_with_line_breaks_between_tokens_is_one_message(engine, connect):
    worker = connect(engine)
    worker.register_function("shop::echo", lambda value: value)
    engine.until(lambda: has(engine, "shop::echo"))
    with engine.client() as client:
        client.connection.send(
            '{"type": "invokefunction",\n "invocation_id": "i1",\n "function_id": "shop::echo",\n "data": "a\\nb"}'
        )
        assert client.expect("invocationresult", invocation_id="i1")["result"] == "a\nb"


def test_a_connection_that_breaks_comes_back_with_everything_registered(engine, connect):
    worker = connect(engine)
    states: queue.Queue[str] = queue.Queue()
    worker.register_function("shop::double", lambda n: n * 2)
    worker.register_function("shop::gone", lambda n: n).unregister()
    worker.register_trigger_type({"id": "tick"}, TriggerHandler())
    worker.register_trigger({"type": "other", "function_id": "shop::double", "config": {}})
    first = worker.worker_id
    engine.until(lambda: has(engine, "shop::double"))
    worker.add_connection_state_listener(states.put)
    cut(engine)
    seen = [states.get(timeout=BOUND) for _ in range(3)]
    assert seen == ["connected", "reconnecting", "connected"]
    assert worker.trigger("shop::double", 4) == 8
    bindings = engine.ask(lambda: [(binding.trigger_type, binding.function_id) for binding in engine.router.bindings])
    assert bindings == [("other", "shop::double")]
    assert engine.ask(lambda: list(engine.router.bindings.types)) == [
        ("default", "engine::functions-available"),
        ("default", "engine::workers-available"),
        ("default", "tick"),
    ]
    assert not engine.ask(lambda: has(engine, "shop::gone"))
    assert worker.worker_id != first


def cut(engine: Engine) -> None:
    """End every connection from the engine's side."""
    engine.ask(
        lambda: [peer.close() for peer in list(engine.router.peer_table.peers.values()) if peer.kind != "engine"]
    )


def test_a_call_under_way_fails_when_its_connection_breaks(engine, connect):
    worker = connect(engine)
    with engine.client() as other:
        other.say_who("other")
        other.register("other::never")
        other.sync()
        failing = in_thread(lambda: worker.trigger("other::never"))
        other.expect("invokefunction")
        cut(engine)
        with pytest.raises(InvocationError) as caught:
            failing()
    assert caught.value.code == "invocation_stopped"


def test_calls_made_without_a_connection_wait_for_it(connect):
    with Engine() as first:
        worker = connect(first)
        lost = threading.Event()
        worker.add_connection_state_listener(lambda state: lost.set() if state == "reconnecting" else None)
        port = first.port
    assert lost.wait(BOUND)
    waiting = in_thread(lambda: worker.trigger("engine::functions::list", {}))
    with Engine(port=port):
        assert waiting() == {"functions": []}


def test_an_address_where_nobody_answers_is_an_error_once_the_attempts_are_used_up():
    with socket.create_server(("127.0.0.1", 0)) as server:
        port = server.getsockname()[1]
    with pytest.raises(ConnectionError, match=f"no engine answers at ws://127.0.0.1:{port}"):
        register_worker(f"ws://127.0.0.1:{port}", InitOptions(reconnection_config=Never))


def test_an_address_that_is_none_is_refused():
    with pytest.raises(IIIError, match="http://x"):
        register_worker("http://x")


def test_a_name_that_is_taken_ends_the_connection_for_good(engine, connect):
    connect(engine, name="only").register_function("only::f", lambda _: 1)
    engine.until(lambda: has(engine, "only::f"))
    ended = threading.Event()

    def use_the_same_name() -> None:
        # The refusal may come before this returns, or right after.
        second = connect(engine, name="only")
        second.add_connection_state_listener(lambda state: ended.set() if state in ("failed", "disconnected") else None)
        assert ended.wait(BOUND)
        assert second.get_connection_state() == "failed"
        second.trigger("only::f")

    with pytest.raises(RegistrationRejectedError, match="only is taken"):
        use_the_same_name()


@pytest.mark.parametrize("headers", [None, {"authorization": "Bearer mine"}])
def test_the_token_of_the_environment_is_sent_unless_one_is_given(monkeypatch, headers):
    from iii.worker.api.options import headers_from

    monkeypatch.setenv("III_TOKEN", "env")
    sent = headers_from(InitOptions(headers=headers))
    assert sent == (headers or {"Authorization": "Bearer env"})


def test_a_ping_is_answered():
    answered: queue.Queue[bool] = queue.Queue()

    def greet(connection):
        while connection.recv(BOUND) != '{"type":"ping"}':
            pass
        connection.send('{"type":"pong"}')
        answered.put(connection.ping().wait(BOUND))

    with serve(greet, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        worker = register_worker(f"ws://127.0.0.1:{server.socket.getsockname()[1]}")
        assert answered.get(timeout=BOUND)
        worker.shutdown()
        server.shutdown()
        thread.join(BOUND)


def test_an_engine_that_does_not_know_the_question_is_used_all_the_same():
    called: queue.Queue[bool] = queue.Queue()

    def listen(connection):
        called.put(any("other::f" in message for message in connection))

    with serve(listen, "127.0.0.1", 0) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        worker = register_worker(f"ws://127.0.0.1:{server.socket.getsockname()[1]}")
        worker.trigger({"function_id": "other::f", "action": {"type": "void"}})
        assert called.get(timeout=BOUND)
        worker.shutdown()
        server.shutdown()
        thread.join(BOUND)
