"""What the engine in memory adds to the standard workers: its clock, requests without a socket, fakes, reports."""

from __future__ import annotations

import asyncio
import os
import threading
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated, Any

import httpx
import pytest

from iii import Body, InvocationError
from iii.errors import ProjectError
from iii.helpers import create_channel
from iii.testing import Engine, project

BOUND = 30.0


@pytest.fixture
def engine():
    with Engine(["state", "pubsub", "queue", "cron", "http"]) as made:
        yield made


def keeping(engine: Engine, function_id: str) -> list:
    """Register a function that keeps its payloads; return the list."""
    kept: list = []
    engine.worker(function_id.partition("::")[0]).register_function(function_id, kept.append)
    return kept


# Time


def test_ticks_of_several_jobs_come_in_the_order_of_their_times(engine):
    ticks = []
    worker = engine.worker()
    for name, expression in (("night", "0 2 * * *"), ("noon", "0 12 * * *"), ("hour", "0 */6 * * *")):
        worker.register_function(f"m::{name}", lambda tick, name=name: ticks.append((name, engine.now.hour)))
        config = {"expression": expression, "timezone": "Europe/Berlin"}
        worker.register_trigger({"type": "cron", "function_id": f"m::{name}", "config": config})
    engine.advance("1d")
    assert ticks == [("night", 1), ("hour", 5), ("noon", 11), ("hour", 11), ("hour", 17), ("hour", 23)]


def test_a_retry_comes_exactly_when_its_delay_is_over(engine):
    times = []

    def fail(_):
        times.append((engine.now - datetime(2026, 1, 1, tzinfo=UTC)).total_seconds())
        raise ValueError("no")

    engine.worker().register_function("m::fail", fail)
    engine.enqueue("m::fail", 1)
    assert times == [0.0]
    engine.advance(0.999)
    assert times == [0.0]
    engine.advance(0.001)
    engine.advance("1h")
    assert times == [0.0, 1.0, 3.0]


def test_a_job_that_does_not_end_times_out_by_the_clock():
    with Engine({"queue": {"queue_configs": {"short": {"timeout_ms": 5000, "max_retries": 1}}}}) as engine:
        cancelled = threading.Event()

        async def hang(_):
            try:
                await asyncio.get_running_loop().create_future()
            finally:
                cancelled.set()

        engine.worker().register_function("m::hang", hang)
        engine.enqueue("m::hang", 1, queue="short")
        engine.advance(5)
        assert cancelled.wait(BOUND)
        (letter,) = engine.call("engine::queue::dlq_messages", queue="short")
        assert "timed out after 5000ms" in str(letter["error"])


def test_the_clock_starts_where_a_test_wants_and_only_goes_on():
    with Engine(now=datetime(2030, 5, 1, 12, tzinfo=UTC)) as engine:
        engine.advance("90m")
        assert engine.now == datetime(2030, 5, 1, 13, 30, tzinfo=UTC)
        with pytest.raises(ValueError, match="does not go back"):
            engine.advance(-1)
        with pytest.raises(ValueError, match="is no duration like"):
            engine.advance("soon")


def test_jobs_for_a_function_that_comes_later_wait_for_it(engine):
    engine.enqueue("late::work", 1)
    done = keeping(engine, "late::work")
    engine.advance(1)
    assert done == [1]


# Requests


def bind(engine: Engine, function_id: str, function, **config) -> None:
    worker = engine.worker(function_id)
    worker.register_function(function_id, function)
    config = {"api_path": "/", **config}
    worker.register_trigger({"type": "http", "function_id": function_id, "config": config})


def test_forms_files_and_cookies_are_sent_as_a_client_sends_them(engine):
    def answer(request):
        return {"headers": {"set-cookie": "seen=1"}, "body": [request["body"], request["headers"].get("cookie")]}

    bind(engine, "m::form", answer, http_method="POST")
    form, cookie = engine.http.post("/", data={"k": "v"}, files={"f": ("a.txt", b"hi")}).json()
    assert (form["k"], form["f"]["filename"], form["f"]["content_base64"], cookie) == ("v", "a.txt", "aGk=", None)
    assert engine.http.cookies["seen"] == "1"
    assert engine.http.post("/", json=1).json() == [1, "seen=1"]


def test_a_stream_is_read_while_its_handler_writes_it(engine):
    go_on = threading.Event()

    def stream(request):
        out = request["response"]
        out.send(b"data: first\n\n")
        assert go_on.wait(BOUND)
        out.send(b"data: second\n\n")
        out.close()

    bind(engine, "m::stream", stream, stream=True)
    with engine.http.stream("GET", "/") as response:
        lines = response.iter_lines()
        assert (response.status_code, next(lines)) == (200, "data: first")
        go_on.set()
        assert list(lines) == ["", "data: second", ""]


def test_an_answer_whose_handler_fails_within_it_is_no_whole_one(engine):
    def fail(request):
        request["response"].send(b"half")
        request["response"].close()
        raise ValueError("no more")

    bind(engine, "m::half", fail, stream=True)
    with pytest.raises(httpx.RemoteProtocolError, match="broken off"):
        engine.http.get("/")


def test_a_websocket_talks_to_its_function_and_hears_of_its_end(engine):
    events = []

    def chat(event):
        events.append(event["event"])
        return f"{event['data']} to you" if event["event"] == "message" else None

    worker = engine.worker()
    worker.register_function("m::chat", chat)
    worker.register_trigger({"type": "websocket", "function_id": "m::chat", "config": {"api_path": "/chat"}})
    with engine.http.websocket("/chat") as socket:
        socket.send("hello")
        assert socket.receive() == "hello to you"
    assert events == ["connect", "message", "close"]
    with pytest.raises(ConnectionRefusedError, match="404"), engine.http.websocket("/nowhere"):
        pass


def test_a_request_times_out_by_the_clock_and_a_channel_carries_bytes(engine):
    worker = engine.worker()
    channel = create_channel(worker)
    writing = threading.Thread(target=lambda: (channel.writer.send(b"x" * 100_000), channel.writer.close()))
    writing.start()
    assert channel.reader.read() == b"x" * 100_000
    writing.join(BOUND)


def test_without_an_http_worker_a_request_says_so():
    with Engine() as engine, pytest.raises(ValueError, match="has no http worker"):
        engine.http.get("/")


# Fakes


def test_a_fake_returns_raises_or_decides_and_remembers_its_calls(engine):
    engine.worker().register_function("m::pay", lambda n: engine.call("stripe::charge", amount=n))
    charge = engine.fake("stripe::charge", returns={"id": "ch_1"})
    assert engine.call("m::pay", 3) == {"id": "ch_1"}
    assert charge.calls == [{"amount": 3}]
    engine.fake("stripe::charge", raises=InvocationError("card_declined", "no money"))
    with pytest.raises(InvocationError, match="card_declined"):
        engine.call("m::pay", 3)
    assert charge.calls == [{"amount": 3}]

    async def double(payload):
        return payload["amount"] * 2

    for function in (double, lambda payload: payload["amount"] * 2):
        engine.fake("stripe::charge", function)
        assert engine.call("m::pay", 3) == 6
    with pytest.raises(ValueError, match="one of a function, returns and raises"):
        engine.fake("x::y", double, returns=1)


def test_a_fake_takes_the_place_of_a_function_whose_schemas_still_hold(engine):
    @engine.worker().function("bank::rate")
    def rate(currency: str) -> float:
        raise AssertionError("it is not to be called")

    engine.fake("bank::rate", returns=1.5)
    assert engine.call("bank::rate", currency="EUR") == 1.5
    with pytest.raises(InvocationError, match="currency must be a string"):
        engine.call("bank::rate", currency=1)
    engine.fake("bank::rate", returns="much")
    with pytest.raises(InvocationError, match="must be a number"):
        engine.call("bank::rate", currency="EUR")


# Isolation and the end


def test_engines_side_by_side_share_nothing():
    with Engine(["state", "cron"]) as first, Engine(["state", "cron"]) as second:
        first.call("state::set", scope="s", key="k", value=1)
        first.advance("1d")
        assert second.call("state::get", scope="s", key="k") is None
        assert second.now == datetime(2026, 1, 1, tzinfo=UTC)


def test_no_thread_is_left_when_an_engine_has_closed(tmp_path):
    before = set(threading.enumerate())
    with Engine(["state", "stream", "pubsub", "queue", "cron", "http"]) as engine:
        bind(engine, "m::web", lambda _: {"body": 1})

        async def later(_):
            await asyncio.sleep(0)
            return await asyncio.to_thread(int, "1")

        engine.worker().register_function("m::later", later)
        assert engine.call("m::later") == 1
        assert engine.http.get("/").json() == 1
        engine.enqueue("m::later", 1)
        engine.advance("1h")
    left = set(threading.enumerate()) - before
    for thread in left:
        thread.join(BOUND)
    assert not [thread for thread in left if thread.is_alive()]


def test_a_handler_that_does_not_end_is_named_when_the_engine_closes():
    go_on = threading.Event()
    engine = Engine()
    worker = engine.worker()
    worker.register_function("m::stuck", lambda _: go_on.wait(BOUND))
    worker.trigger({"function_id": "m::stuck", "payload": 1, "action": {"type": "void"}})
    engine.settle()
    try:
        with pytest.raises(RuntimeError, match="m::stuck still runs after the test"):
            engine.close()
    finally:
        go_on.set()


# A project


def write(folder: Path, **files: str) -> None:
    for name, text in files.items():
        (folder / name.replace("__", ".")).write_text(text)


def test_the_config_of_iii_toml_holds_in_memory(tmp_path):
    write(
        tmp_path,
        iii__toml="[workers.queue.config.queue_configs.mail]\nmax_retries = 1\n[workers.app]\nrun = 'app.py'\n"
        "config = { sender = 'shop' }\nenv = { SHOP_KEY = 'k' }\n",
        app__py="import os\nfrom iii import register_worker\nworker = register_worker()\n"
        "worker.register_function('app::sender', lambda _: [worker.config['sender'], os.environ['SHOP_KEY']])\n"
        "worker.register_function('app::fail', lambda _: 1 / 0)\n",
    )
    with project(tmp_path) as engine:
        assert engine.call("app::sender") == ["shop", "k"]
        engine.enqueue("app::fail", queue="mail")
        assert len(engine.call("engine::queue::dlq_messages", queue="mail")) == 1


def test_workers_that_want_different_values_of_a_variable_are_told_so(tmp_path, capsys):
    script = "from iii import register_worker\nregister_worker()\n"
    table = "[workers.{0}]\nrun = '{0}.py'\nenv = {{ SHOP_KEY = '{0}' }}\n"
    write(tmp_path, iii__toml=table.format("a") + table.format("b"), a__py=script, b__py=script)
    with project(tmp_path):
        assert os.environ["SHOP_KEY"] == "a"
    assert "the worker b gets another worker's SHOP_KEY" in capsys.readouterr().err
    assert "SHOP_KEY" not in os.environ


def test_a_wrong_config_is_one_clear_error(tmp_path):
    with pytest.raises(ValueError, match="max_retries must be a whole number"):
        Engine({"queue": {"queue_configs": {"mail": {"max_retries": "many"}}}})
    write(tmp_path, iii__toml="[workers.app]\nrunn = 'app.py'\n")
    with pytest.raises(ProjectError, match="unknown key `runn`"), project(tmp_path):
        pass


def test_a_standard_worker_that_cannot_run_in_memory_says_so_with_the_way_out(tmp_path):
    with pytest.raises(ValueError, match=r"does not run the standard worker bridge .* fake what you call"):
        Engine(["bridge"])
    with pytest.raises(ValueError, match=r"does not run the standard worker stat .*there are state"):
        Engine(["stat"])
    write(tmp_path, iii__toml="[workers.observability]\n[workers.node]\nrun = 'node x.mjs'\n")
    with project(tmp_path) as engine, pytest.raises(InvocationError) as caught:
        engine.call("node::hello")
    notes = "\n".join(caught.value.__notes__)
    assert "does not run the worker node (it is no Python script); fake what you call" in notes
    assert "does not run the standard worker observability" in notes


# What a failed test shows


def test_a_failed_call_carries_the_handlers_traceback_and_its_trace(engine):
    worker = engine.worker("shop")

    def broken(_):
        raise ValueError("out of tea")

    worker.register_function("shop::broken", broken)
    worker.register_function("shop::order", lambda payload: worker.trigger("shop::broken", payload))
    with pytest.raises(InvocationError) as caught:
        engine.call("shop::order", 1)
    notes = "\n".join(caught.value.__notes__)
    assert "in broken" in notes
    assert "ValueError: out of tea" in notes
    order, inner = [line for line in notes.splitlines() if "(shop)" in line]
    assert order.startswith("  shop::order  (shop)")
    assert inner.startswith("    shop::broken  (shop)")


def test_failures_that_no_caller_hears_of_are_kept(engine):
    engine.worker("app").register_function("app::fail", lambda _: 1 / 0)
    engine.enqueue("app::fail", 1)
    (failure,) = engine.failures
    assert "app::fail failed: ZeroDivisionError: division by zero" in failure
    assert "attempt 1 of 3, next in 1 s" in failure
    assert "app::fail [enqueue]" in engine.report()


# Twins


def test_each_method_has_a_twin_for_await(engine):
    done = keeping(engine, "m::work")
    bind(engine, "web::hello", lambda request: {"body": request["method"]})

    async def main():
        assert await engine.call_async("m::work", 1) is None
        await engine.enqueue_async("m::work", 2, delay_ms=1000)
        await engine.advance_async("1s")
        await engine.settle_async()
        assert await engine.fire_async("sensor", 1) == []
        http = engine.http
        assert (await http.get_async("/")).json() == "GET"
        for method in (http.post_async, http.put_async, http.patch_async, http.delete_async):
            assert (await method("/")).status_code == 405
        assert (await http.request_async("GET", "/nowhere")).status_code == 404

    asyncio.run(main())
    assert done == [1, 2]


def test_jobs_keep_their_metadata_and_their_delay():
    with Engine({"queue": {}}) as iii:
        seen = []
        iii.worker("w").register_function("w::f", lambda payload, metadata: seen.append((payload, metadata["note"])))
        iii.enqueue("w::f", 1, delay_ms=5000, metadata={"note": "hello"})
        iii.advance(4.9)
        assert seen == []
        iii.advance(0.1)
        assert seen == [(1, "hello")]
        with pytest.raises(ValueError, match="enqueue returns the receipt"):
            iii.enqueue("w::f", 1, wait=True)


@pytest.mark.parametrize(
    ("target", "quantity", "place"),
    [
        (f"/orders/{2**64}", 1, "path.id"),
        (f"/orders/7?page=-{2**70}", 1, "query.page"),
        ("/orders/7", 2**64, "body.quantity"),
    ],
)
def test_an_integer_that_no_message_holds_is_refused_by_its_place_in_the_request(
    target: str, quantity: int, place: str
) -> None:
    with Engine(["http"]) as iii:

        @iii.worker("shop").post("/orders/{id}", function_id="shop::take")
        def take(id: int, order: Annotated[dict[str, Any], Body()], page: int = 1) -> None:
            raise AssertionError(f"called with {id}, {order}, {page}")

        iii.settle()
        answer = iii.http.post(target, json={"quantity": quantity})
    assert answer.status_code == 422, answer.text
    assert answer.json()["error"]["message"] == f"{place}: integer beyond 64 bits"
    assert [mistake["path"] for mistake in answer.json()["error"]["details"]["mistakes"]] == [place]
