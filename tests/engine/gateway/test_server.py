"""Which clients the gateway admits, and what a connection may cost."""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import pytest
from websockets.exceptions import InvalidStatus
from websockets.frames import Frame, Opcode

from iii.engine.gateway.server import Ends
from iii.engine.security.admission import AuthThrottle
from iii.engine.transport.accept import Acceptor
from iii.engine.transport.tcp_address import Address
from iii.errors import ProjectError
from tests.support.harness import BOUND, Engine

UPGRADE = (
    "Upgrade: websocket\r\nConnection: Upgrade\r\nSec-WebSocket-Version: 13\r\n"
    "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n"
)


def ask(engine: Engine, head: str) -> str:
    """Send a request head as it is; return the whole answer."""
    with socket.create_connection(("127.0.0.1", engine.port), timeout=BOUND) as plain:
        plain.sendall(head.replace("PORT", str(engine.port)).encode())
        answer = b""
        while chunk := plain.recv(4096):
            answer += chunk
            if b" 101 " in answer:
                break
        return answer.decode(errors="replace")


@pytest.mark.parametrize(
    ("head", "status"),
    [
        ("GET / HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\n" + UPGRADE, 101),
        ("GET / HTTP/1.1\r\nHost: evil.test\r\n" + UPGRADE, 421),
        ("GET / HTTP/1.1\r\nHost: 0.0.0.0:PORT\r\n" + UPGRADE, 421),
        ("GET / HTTP/1.1\r\n" + UPGRADE, 400),
        ("GET / HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nHost: 127.0.0.1:PORT\r\n" + UPGRADE, 400),
        ("GET http://127.0.0.1:PORT/ HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\n" + UPGRADE, 400),
        ("GET / HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nOrigin: null\r\n" + UPGRADE, 403),
        ("GET / HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nOrigin: http://127.0.0.1:PORT\r\n" + UPGRADE, 403),
        ("GET /?token=secret HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\n" + UPGRADE, 401),
        ("GET / HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nAuthorization: Bearer nope\r\n" + UPGRADE, 401),
        ("GET / HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\n", 426),
        ("POST / HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\n" + UPGRADE, 405),
    ],
)
def test_the_handshake_is_answered_by_the_table(engine: Engine, head: str, status: int) -> None:
    answer = ask(engine, head + "\r\n")
    assert answer.startswith(f"HTTP/1.1 {status} "), answer
    assert "secret" not in answer
    assert "access-control" not in answer.lower()
    if status != 101:
        assert engine.ask(lambda: len(engine.router.peer_table.peers)) == 1


def test_the_token_admits_a_client(engine: Engine) -> None:
    with engine.client(additional_headers={"Authorization": "Bearer secret"}) as client:
        client.sync()


def test_a_page_of_an_allowed_origin_gets_in_and_no_other() -> None:
    with Engine(origins=("http://127.0.0.1:3113",)) as engine:
        with engine.client(origin="http://127.0.0.1:3113") as client:
            client.sync()
        with pytest.raises(InvalidStatus), engine.client(origin="http://127.0.0.1:3114"):
            pass


class Slow(AuthThrottle):
    """Lets every refusal wait a moment."""

    def delay(self, address: str, now: float) -> float:
        return 0.05


def test_s02_a_client_that_guesses_waits_for_the_rejection_and_no_other_client_does() -> None:
    guess = "GET / HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nAuthorization: Bearer nope\r\n" + UPGRADE + "\r\n"
    with Engine(throttle=Slow()) as engine, engine.client() as other:
        assert ask(engine, guess).startswith("HTTP/1.1 401 ")
        assert engine.ask(lambda: engine.gateway.counters["throttled"]) == 1
        with socket.create_connection(("127.0.0.1", engine.port), timeout=BOUND) as impatient:
            impatient.sendall(guess.replace("PORT", str(engine.port)).encode())
        engine.until(lambda: engine.gateway.counters["refused_401"] == 2)
        other.sync()


def test_s04_an_endless_request_head_is_ended(engine: Engine) -> None:
    answer = ask(engine, "GET / HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\nX: " + "x" * 70_000)
    assert answer.startswith("HTTP/1.1 431 ")


def test_s04_a_client_that_never_sends_a_handshake_is_dropped() -> None:
    with (
        Engine(handshake_timeout=0.05, sweep_interval=0.02) as engine,
        socket.create_connection(("127.0.0.1", engine.port), timeout=BOUND) as silent,
    ):
        assert silent.recv(1) == b""


def test_h13_connections_are_bounded() -> None:
    with Engine(own_connections=1) as engine, engine.client() as first:
        assert ask(engine, f"GET / HTTP/1.1\r\nHost: 127.0.0.1:PORT\r\n{UPGRADE}\r\n").startswith("HTTP/1.1 503 ")
        first.sync()


class Kernel:
    """Says whose a socket is: the client's port is either a stranger's or not."""

    def __init__(self) -> None:
        self.strangers: set[int] = set()
        self.looks = 0

    def are_same_user(self, sockets: Sequence[Ends]) -> list[bool]:
        self.looks += 1
        return [client[1] not in self.strangers for client, _ in sockets]

    def connect(self, engine: Engine) -> socket.socket:
        """Connect as a stranger. The port is known before the engine can ask."""
        opened = socket.socket()
        opened.settimeout(BOUND)
        opened.bind(("127.0.0.1", 0))
        self.strangers.add(opened.getsockname()[1])
        opened.connect(("127.0.0.1", engine.port))
        return opened


def test_idle_sockets_of_other_users_keep_nobody_out() -> None:
    kernel = Kernel()
    with Engine(handshakes=8, are_same_user=kernel.are_same_user) as engine:
        own = [socket.create_connection(("127.0.0.1", engine.port), timeout=BOUND) for _ in range(20)]
        idle = [kernel.connect(engine) for _ in range(70)]
        try:
            with engine.client() as client:
                client.sync()
            assert idle[0].recv(1) == b""  # the oldest of the strangers made room
            engine.until(lambda: len(engine.gateway.connections) <= 20 + 2 * 8 + 2)
            assert kernel.looks < 20  # not once for each of them
            own[0].setblocking(False)
            with pytest.raises(BlockingIOError):
                own[0].recv(1)  # slow to ask, and still there
        finally:
            for one in own + idle:
                one.close()


def test_clients_of_other_users_never_take_the_place_of_the_engines_user() -> None:
    kernel = Kernel()
    with Engine(connections=2, are_same_user=kernel.are_same_user) as engine:
        opened = [kernel.connect(engine) for _ in range(3)]
        head = f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{engine.port}\r\nAuthorization: Bearer secret\r\n{UPGRADE}\r\n"
        answers = []
        for one in opened:
            one.sendall(head.encode())
            answers.append(one.recv(12))
        assert answers == [b"HTTP/1.1 101", b"HTTP/1.1 101", b"HTTP/1.1 503"]
        with engine.client() as own:
            own.sync()
        for one in opened:
            one.close()
        engine.until(lambda: not engine.gateway.connections)
        with kernel.connect(engine) as late:
            late.sendall(head.encode())
            assert late.recv(12) == b"HTTP/1.1 101"


def test_workers_of_other_machines_find_room_by_the_hundreds() -> None:
    kernel = Kernel()
    with Engine(are_same_user=kernel.are_same_user) as engine:
        head = f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{engine.port}\r\nAuthorization: Bearer secret\r\n{UPGRADE}\r\n"
        opened, answers = [], set()
        for _ in range(600):
            opened.append(kernel.connect(engine))
            opened[-1].sendall(head.encode())
            answers.add(opened[-1].recv(12))
        assert answers == {b"HTTP/1.1 101"}
        for one in opened:
            one.close()


def test_h11_a_client_that_is_silent_is_pinged_and_one_that_does_not_answer_is_gone() -> None:
    with (
        Engine(ping_interval=0.05, silence_timeout=0.5, sweep_interval=0.02) as engine,
        engine.client() as living,
        deaf(engine),
    ):
        engine.until(lambda: engine.gateway.counters["gone"] == 1)
        living.sync()
        assert engine.ask(lambda: len(engine.router.peer_table.peers)) == 2


@contextmanager
def deaf(engine: Engine, *messages: str) -> Iterator[None]:
    """A client that sends messages and reads nothing."""
    with socket.socket() as plain:
        plain.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        plain.connect(("127.0.0.1", engine.port))
        head = f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{engine.port}\r\n{UPGRADE}\r\n"
        plain.sendall(head.encode())
        engine.until(lambda: len(engine.router.peer_table.peers) > 2)
        for message in messages:
            plain.sendall(Frame(Opcode.TEXT, message.encode()).serialize(mask=True))
        yield


def test_h12_a_client_that_does_not_read_is_cut_and_the_others_are_served() -> None:
    call = '{"type":"invokefunction","invocation_id":"ID","function_id":"r::big","data":{}}'
    with (
        Engine(unsent_bytes=1024 * 1024, slow_consumer_timeout=0.1, sweep_interval=0.05) as engine,
        engine.client() as reader,
    ):
        reader.register("r::big")
        reader.say_who("r")
        reader.sync()
        with deaf(engine, *(call.replace("ID", f"i{number}") for number in range(4))):
            for _ in range(4):
                got = reader.expect("invokefunction", function_id="r::big")
                answer = {"type": "invocationresult", "invocation_id": got["invocation_id"], "function_id": "r::big"}
                reader.send(answer | {"result": "x" * (4 * 1024 * 1024)})
            engine.until(lambda: engine.gateway.counters["slow_consumer"] == 1)
        reader.sync()


def test_h14_a_named_port_that_is_taken_is_an_error_that_names_its_holder() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        with pytest.raises(ProjectError, match=rf"iii\.toml:3: port {port} is taken by .*pid {os.getpid()}"):
            asyncio.run(open_acceptor(port, line=3))


def test_a_default_port_that_is_taken_moves_to_a_free_one() -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        moved_to, is_moved = asyncio.run(open_acceptor(port, line=0))
        assert is_moved
        assert moved_to > port


def test_an_address_that_is_not_ours_is_an_error() -> None:
    with pytest.raises(ProjectError, match=r"cannot listen on 192\.0\.2\.1"):
        asyncio.run(open_acceptor(1234, line=1, host="192.0.2.1"))


async def open_acceptor(port: int, *, line: int, host: str = "127.0.0.1") -> tuple[int, bool]:
    address = Address(f"{host}:{port}", line=line)
    Acceptor(address.socket, lambda connected: None).close()
    return address.port, address.is_moved
