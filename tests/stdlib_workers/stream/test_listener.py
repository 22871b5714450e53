"""The listener with real sockets: who gets in, the auth function, a socket that does not read."""

from __future__ import annotations

import asyncio
import json
import socket
from typing import Any

import pytest
from websockets.asyncio.client import connect
from websockets.exceptions import InvalidStatus
from websockets.typing import Origin, Subprotocol

from iii import InvocationError
from stdlib_workers.stream.admission import names_of, refusal, request_from
from stdlib_workers.stream.listener import Listener
from stdlib_workers.stream.options import DEFAULT_PORT, Options
from tests.support.stand_ins import Callee, binding, until
from tests.support.stream_setup import StreamSetup, join

ORIGINS = ("http://localhost:3111",)


OUR_USER = {"allowed": True, "subprotocol": None}
CHECK = "engine::connections::check"


class Running:
    """A listener on a free port, on the test's own loop."""

    def __init__(
        self, worker: Callee | None = None, auth: str | None = None, origins: tuple[str, ...] | None = ORIGINS
    ) -> None:
        self.setup = StreamSetup(worker or Callee(engine__connections__check=lambda _: OUR_USER))
        self.listener = Listener(self.setup.services, Options(port=0, auth_function=auth, origins=origins))

    async def __aenter__(self) -> Running:
        self.setup.listen_on(asyncio.get_running_loop())
        self.port = await self.listener.open()
        return self

    async def __aexit__(self, *_: object) -> None:
        await self.listener.close()
        self.setup.end()

    def url(self, path: str = "/") -> str:
        return f"ws://127.0.0.1:{self.port}{path}"


async def test_any_path_leads_to_the_same_place_and_events_arrive() -> None:
    async with Running() as running, connect(running.url("/stream/s/g/")) as ws:
        await ws.send(join())
        assert json.loads(await ws.recv())["event"] == {"type": "sync", "data": []}
        await running.setup.set("i", 1)
        message = json.loads(await ws.recv())
        assert (message["event"], message["subscriptionId"]) == ({"type": "create", "data": 1}, "u")
        await asyncio.wait_for(await ws.ping(), 10)
        await ws.close()
        await until(lambda: len(running.setup.hub) == 0)


@pytest.mark.parametrize(
    ("origin", "is_in"),
    [(None, True), ("http://localhost:3111", True), ("http://evil.test", False), ("null", False)],
)
async def test_pages_from_elsewhere_stay_out(origin: Any, is_in: bool) -> None:
    async with Running() as running:
        if is_in:
            async with connect(running.url(), origin=origin):
                return
        with pytest.raises(InvalidStatus) as caught:
            await connect(running.url(), origin=origin)
        assert caught.value.response.status_code == 403


async def test_a_name_that_was_made_to_point_here_stays_out() -> None:
    async with Running() as running:
        with pytest.raises(InvalidStatus) as caught:
            await connect(f"ws://rebound.test:{running.port}/", host="127.0.0.1", port=running.port)
        assert caught.value.response.status_code == 403


async def test_without_an_auth_function_the_engine_says_who_may_come_and_confirms_its_subprotocol() -> None:
    worker = Callee(engine__connections__check=lambda asked: OUR_USER | {"subprotocol": asked["subprotocols"][1]})
    headers = {"Authorization": "Bearer t"}
    async with Running(worker) as running:
        names = [Subprotocol("other"), Subprotocol("iii.token.dA")]
        async with connect(running.url("/p?a=1"), subprotocols=names, additional_headers=headers) as ws:
            assert ws.subprotocol == "iii.token.dA"
            (asked,) = worker.payloads(CHECK)
            assert asked["client"] == list(ws.local_address)
            assert asked["server"] == ["127.0.0.1", running.port]
            assert (asked["authorizations"], asked["query"]) == (["Bearer t"], "a=1")


@pytest.mark.parametrize(("answer", "status"), [({"allowed": False, "subprotocol": None}, 401), (None, 503)])
async def test_another_user_stays_out_and_so_does_everybody_while_the_engine_does_not_answer(
    answer: Any, status: int
) -> None:
    def check(_: Any) -> Any:
        if answer is None:
            raise InvocationError("invocation_stopped", "gone")
        return answer

    async with Running(Callee(engine__connections__check=check)) as running:
        with pytest.raises(InvalidStatus) as caught:
            await connect(running.url())
        assert caught.value.response.status_code == status


async def test_the_auth_function_sees_the_handshake_and_gives_the_context() -> None:
    worker = Callee(w__auth=lambda _: {"context": {"user": 7}}, w__join=lambda _: None)
    async with (
        Running(worker, "w::auth") as running,
        connect(running.url("/p?a=1&a=%20&b"), additional_headers={"X-K": "v"}) as ws,
    ):
        await running.setup.joins.register_trigger(binding("w::join"))
        await ws.send(join())
        assert json.loads(await ws.recv())["event"]["type"] == "sync"
        assert [event["context"] for event in worker.payloads("w::join")] == [{"user": 7}]
        (asked,) = worker.payloads("w::auth")
        assert (asked["path"], asked["query_params"]) == ("/p", {"a": ["1", "%20"], "b": [""]})
        assert asked.keys() == {"headers", "path", "query_params", "addr"}
        assert asked["headers"]["x-k"] == "v"
        assert asked["addr"].startswith("127.0.0.1:")


@pytest.mark.parametrize("result", [None, {}, [], "yes", True, {"user": 1}, InvocationError("invocation_failed", "no")])
async def test_an_auth_function_that_fails_denies(result: Any) -> None:
    def auth(_: Any) -> Any:
        if isinstance(result, InvocationError):
            raise result
        return result

    async with Running(Callee(w__auth=auth), "w::auth") as running:
        with pytest.raises(InvalidStatus) as caught:
            await connect(running.url())
        assert caught.value.response.status_code == 401


async def test_q20_a_socket_that_does_not_read_is_closed_and_others_are_not_held_up() -> None:
    async with Running() as running, connect(running.url(), ping_interval=None) as slow, connect(running.url()) as fast:
        slow.transport.get_extra_info("socket").setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        for ws in (slow, fast):
            await ws.send(join())
        await fast.recv()
        slow.transport.pause_reading()
        text = "x" * 100_000
        for number in range(200):
            await running.setup.set("i", f"{number}{text}")
            assert json.loads(await fast.recv())["event"]["data"].startswith(f"{number}x")
        await until(lambda: len(running.setup.hub) == 1)
        slow.transport.abort()


async def test_a_default_port_that_is_taken_moves_on_and_a_named_one_does_not() -> None:
    setup = StreamSetup()
    listeners = [Listener(setup.services, Options()) for _ in range(2)]
    first, second = [await listener.open() for listener in listeners]
    assert DEFAULT_PORT <= first < second
    with pytest.raises(OSError, match="in use"):
        await Listener(setup.services, Options(port=first)).open()
    for listener in listeners:
        await listener.close()
    setup.end()


def test_names_of_a_listener() -> None:
    assert names_of("127.0.0.1", 1) == {"127.0.0.1:1", "localhost:1", "[::1]:1"}
    assert names_of("box.lan", 1) == {"box.lan:1"}


@pytest.mark.parametrize(
    ("hosts", "origins", "is_in"),
    [
        (["localhost:1"], [], True),
        (["LOCALHOST:1"], ORIGINS, True),
        ([], [], False),
        (["localhost:1", "localhost:1"], [], False),
        (["localhost"], [], False),
        (["localhost:1"], [*ORIGINS, *ORIGINS], False),
        (["localhost:1"], ["http://localhost:3111.evil.test"], False),
    ],
)
def test_admission(hosts: list[str], origins: list[str], is_in: bool) -> None:
    assert (refusal(hosts, origins, names_of("127.0.0.1", 1), ORIGINS) is None) == is_in


def test_repeated_headers_are_told_by_their_last_value() -> None:
    asked = request_from("/", [("X-A", "1"), ("x-a", "2")], ("::1", 5))
    assert asked == {"headers": {"x-a": "2"}, "path": "/", "query_params": {}, "addr": "::1:5"}


@pytest.mark.parametrize(
    ("served", "is_in"),
    [(["http://localhost:8080"], True), (["http://localhost:3111"], False), ([], False), (None, False), ("x", False)],
)
async def test_pages_of_the_http_worker_may_connect_wherever_it_listens(served: Any, is_in: bool) -> None:
    worker = Callee(engine__connections__check=lambda _: OUR_USER)
    if served is not None:
        worker.functions["http::origins"] = lambda _: served
    async with Running(worker, origins=None) as running:
        if is_in:
            async with connect(running.url(), origin=Origin("http://localhost:8080")):
                return
        with pytest.raises(InvalidStatus, match="403"):
            await connect(running.url(), origin=Origin("http://localhost:8080"))
