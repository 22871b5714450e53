"""What a WebSocket client makes the engine hold: bounded while it is there, freed at once when it has gone."""

from __future__ import annotations

import gc
import socket
import struct
import weakref
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import pytest
from websockets.http11 import Request

from iii.engine.transport.websocket import MAX_HANDSHAKE, WebSocketConnection
from iii.protocol.frames import BINARY, FINAL, MASKED, PING, TEXT, header
from tests.support.harness import BOUND, Engine

MIB = 1 << 20
# A mask of zeros changes nothing.
NO_MASK = bytes(4)


def frame(data: bytes, first: int = FINAL | TEXT) -> bytes:
    return header(first, len(data), MASKED) + NO_MASK + data


@contextmanager
def raw_client(engine: Engine, buffer: int = 0) -> Iterator[socket.socket]:
    """A client that writes its bytes itself, after the handshake; what it is sent is left unread."""
    with socket.socket() as opened:
        if buffer:
            opened.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        opened.settimeout(BOUND)
        opened.connect(("127.0.0.1", engine.port))
        head = f"GET / HTTP/1.1\r\nHost: 127.0.0.1:{engine.port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        opened.sendall(f"{head}Sec-WebSocket-Key: {'A' * 22}==\r\nSec-WebSocket-Version: 13\r\n\r\n".encode())
        engine.until(lambda: any(not one.is_handshaking for one in engine.gateway.connections))
        yield opened


def only_connection(engine: Engine) -> Any:
    [connection] = engine.gateway.connections
    return connection


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine() as made:
        yield made


def test_a_client_that_leaves_in_the_middle_of_a_message_leaves_nothing(engine: Engine) -> None:
    gc.disable()  # no cycle may hold what is freed: in the engine, the collector comes rarely
    try:
        with raw_client(engine) as opened:
            opened.sendall(frame(b"x" * 5 * MIB)[: 3 * MIB])
            engine.until(lambda: engine.router.calls.budget.used > 2 * MIB)
            connection = weakref.ref(engine.ask(lambda: only_connection(engine)))
            session = weakref.ref(engine.ask(lambda: only_connection(engine).session))
        engine.until(lambda: not engine.gateway.connections)
        engine.until(lambda: engine.router.calls.budget.used == 0)
        engine.until(lambda: (connection(), session()) == (None, None))
    finally:
        gc.enable()


def test_a_connection_that_is_reset_is_seen_to_its_end(engine: Engine) -> None:
    # More lies unread in the socket than one read takes when the reset comes.
    with raw_client(engine) as opened:
        connection: WebSocketConnection = engine.ask(lambda: only_connection(engine))
        engine.ask(connection.pause)
        opened.sendall(frame(b"x" * 5 * MIB)[: 100 * 1024])
        opened.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))
    engine.ask(connection.resume)
    engine.until(lambda: not engine.gateway.connections)


def test_of_many_pings_the_last_one_is_answered_once_the_client_reads(engine: Engine) -> None:
    with raw_client(engine, buffer=4096) as opened:
        connection = engine.ask(lambda: only_connection(engine))
        engine.ask(lambda: connection.send(BINARY, b"x" * 8 * MIB))  # fills the socket
        held = engine.ask(lambda: connection.unsent_bytes)
        for number in range(20_000):
            opened.sendall(frame(b"%d" % number, FINAL | PING))
        engine.until(lambda: connection._owed_pong == b"19999")
        assert engine.ask(lambda: connection.unsent_bytes) <= held
        received = b""
        while not received.endswith(b"\x8a\x0519999"):
            data = opened.recv(MIB)
            assert data
            received = (received + data)[-20:]


def test_a_client_that_goes_beyond_the_memory_is_refused_and_the_others_go_on(engine: Engine) -> None:
    engine.ask(lambda: engine.router.calls.budget.resize(8 * MIB))
    with engine.client() as other, raw_client(engine) as opened:
        opened.sendall(frame(b"x" * 60 * MIB)[: 30 * MIB])  # more than there is; it is read, and not kept
        engine.until(lambda: len(engine.gateway.connections) == 1)
        assert engine.ask(lambda: engine.router.calls.budget.used) < MIB
        with engine.client() as late:
            late.sync()
        other.sync()
        received = b""
        while b"memory is used up" not in received:
            data = opened.recv(65536)
            assert data
            received += data


def test_an_endless_handshake_is_cut(engine: Engine) -> None:
    with socket.create_connection(("127.0.0.1", engine.port), timeout=BOUND) as opened:
        opened.sendall(b"GET / HTTP/1.1\r\n")
        for _ in range(MAX_HANDSHAKE // 4000):
            opened.sendall(b"X: " + b"y" * 4000 + b"\r\n")
        engine.until(lambda: not engine.gateway.connections)


def test_calls_that_a_middleware_has_read_are_not_held() -> None:
    with Engine(middleware="gate::wait") as engine, engine.client() as worker:
        engine.ask(lambda: engine.router.calls.budget.resize(64_000_000))
        worker.register("gate::wait", "api::f")
        worker.say_who("gate")
        worker.sync()
        registered = engine.ask(lambda: engine.router.calls.budget.used)
        with engine.guarded_client() as guest:
            asked = []
            for number in range(30):  # of a mebibyte each: more than the guest's share
                message = {"type": "invokefunction", "invocation_id": str(number), "function_id": "api::f"}
                guest.send(message | {"data": "x" * MIB})
                asked.append(worker.expect("invokefunction", function_id="gate::wait")["invocation_id"])
                assert engine.ask(lambda: engine.router.calls.budget.used) < 64_000_000 // 8 + 3 * MIB
        # The guest has gone: its calls are given up, and the middleware is told.
        for id in asked:
            worker.expect("cancel", invocation_id=id)
            worker.send({"type": "invocationresult", "invocation_id": id, "result": 1})
        engine.until(lambda: engine.router.calls.budget.used == registered)


def test_calls_that_wait_for_a_worker_are_refused_beyond_a_guests_share() -> None:
    with Engine(middleware="gate::wait") as engine, engine.guarded_client() as guest:
        engine.ask(lambda: engine.router.calls.budget.resize(64_000_000))
        engine.ask(lambda: engine.router.calls.starting.add("gate"))  # calls of its middleware wait for it
        for number in range(12):
            message = {"type": "invokefunction", "invocation_id": str(number), "function_id": "api::f"}
            guest.send(message | {"data": "x" * MIB})
        assert guest.expect("invocationresult", invocation_id="11")["error"]["code"] == "overloaded"
        assert engine.ask(lambda: engine.router.calls.budget.used) < 64_000_000 // 8 + 3 * MIB


def test_nothing_is_kept_of_an_accepted_handshake(engine: Engine) -> None:
    with raw_client(engine):
        engine.until(lambda: not only_connection(engine).is_handshaking)
        kept = [value for one in gc.get_objects() if type(one) is Request for _, value in one.headers.raw_items()]
        assert f"127.0.0.1:{engine.port}" not in kept
