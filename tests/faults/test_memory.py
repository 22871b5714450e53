"""The engine's memory stays bounded whatever peers send, and is back soon after they have gone. In real processes.

Sizes are resident sizes of the engine, looked at until they are back: within `BACK` seconds, to within `SLACK` MiB.
"""

from __future__ import annotations

import contextlib
import json
import socket
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager

import psutil
import pytest

from iii.protocol.frames import BINARY, FINAL, MASKED, PING, TEXT, header
from tests.support.ground import Ground, eventually
from tests.support.live_project import free_ports
from tests.support.wire import Wire, call_line, wire

MIB = 1 << 20
BACK, SLACK = 10.0, 20
MASK = bytes(4)
SLOW = """
import asyncio, time
from iii import InitOptions, register_worker
worker = register_worker(options=InitOptions(worker_name="slow"))
worker.register_function("slow::sleep", lambda _: time.sleep(3600))
worker.register_function("slow::quick", lambda _: 1)
@worker.function("slow::typed")
def typed(a: int):
    return a  # the engine's first schema loads what checks schemas: once, and not as a part of what is measured
async def answer_never(_):
    await asyncio.sleep(3600)
worker.register_function("slow::middleware", answer_never)
worker.register_function("slow::auth", lambda _: {})
"""


def frame(data: bytes, first: int = FINAL | TEXT) -> bytes:
    """Return a client's frame; a mask of zeros changes nothing."""
    return header(first, len(data), MASKED) + MASK + data


@contextmanager
def client(port: int, path: str = "/", buffer: int = 0) -> Iterator[socket.socket]:
    """A WebSocket client that writes its bytes itself, and reads nothing after its handshake."""
    with socket.socket() as connected:
        if buffer:
            connected.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, buffer)
        connected.settimeout(20)
        connected.connect(("127.0.0.1", port))
        head = f"GET {path} HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
        key = "Sec-WebSocket-Key: dGhlIHNhbXBsZSBub25jZQ==\r\nSec-WebSocket-Version: 13\r\n\r\n"
        connected.sendall((head + key).encode())
        answer = b""
        while b"\r\n\r\n" not in answer:
            data = connected.recv(1)
            assert data, f"the handshake was answered with {answer!r}"
            answer += data
        assert b" 101 " in answer.split(b"\r\n")[0]
        yield connected


class Memory:
    """The resident size of an engine, in MiB, against what it was at first."""

    def __init__(self, ground: Ground) -> None:
        self._process = psutil.Process(int((ground.folder / ".iii/run/lock").read_text()))
        self.start = self.now

    @property
    def now(self) -> float:
        resident: int = self._process.memory_info().rss
        return resident / MIB

    @property
    def grown(self) -> float:
        return self.now - self.start

    def is_back(self) -> None:
        """Wait until the size is what it was at first, but for `SLACK`."""
        with contextlib.suppress(AssertionError):
            eventually(lambda: self.grown < SLACK, BACK)
        print(f"engine: {self.start:.0f} MiB at first, {self.now:.0f} MiB now")
        assert self.grown < SLACK, f"{self.grown:.0f} MiB more than at first"


@pytest.fixture
def port(ground: Ground) -> int:
    """Start a project with a listener; return its port."""
    port = free_ports("listener")["listener"]
    ground.head = f'[engine]\nlisten = "127.0.0.1:{port}"\n'
    ground.laws.discard("descriptors")  # clients leave while their last words are read
    ground.worker("slow", SLOW, concurrency=1)
    ground.start()
    return port


@pytest.mark.slow
def test_ten_rounds_of_unfinished_messages_leave_nothing(ground: Ground, port: int) -> None:
    memory = Memory(ground)
    unfinished = frame(b"{" + b"x" * 60 * MIB)[: 40 * MIB]
    for _ in range(10):
        with contextlib.ExitStack() as stack:
            for opened in [stack.enter_context(client(port)) for _ in range(6)]:
                opened.sendall(unfinished)
    memory.is_back()


@pytest.mark.slow
def test_pings_that_are_never_read_cost_one_answer(ground: Ground, port: int) -> None:
    memory = Memory(ground)
    ping = frame(b"", FINAL | PING)
    with client(port, buffer=4096) as opened:
        for _ in range(19):
            opened.sendall(ping * (MIB // len(ping)))
        assert memory.grown < SLACK
    memory.is_back()


@pytest.mark.slow
def test_waiting_calls_are_bounded_in_bytes_and_leave_nothing(ground: Ground, port: int) -> None:
    memory = Memory(ground)
    body = b'"' + b"x" * MIB + b'"'
    with wire(ground) as caller:
        for number in range(600):
            caller.write(call_line("slow::sleep", body, str(number)))
        refusal = caller.await_message("invocationresult", invocation_id="599")["error"]
        assert (refusal["code"], refusal["details"]["memory_bytes"]) == ("overloaded", 512_000_000)
        assert memory.grown < 100
        # What others ask for is served.
        with wire(ground) as other:
            other.send(type="invokefunction", invocation_id="q", function_id="canary::sing", data=1)
            assert other.result("q")["result"] == 1
    memory.is_back()


@pytest.mark.slow
def test_registrations_beyond_the_limit_are_refused_and_leave_nothing(ground: Ground, port: int) -> None:
    memory = Memory(ground)
    schema = {"type": "object", "properties": {"a": {"type": "string"}}}
    with wire(ground) as caller:
        rejected: list[str] = []
        reader = threading.Thread(target=_collect_rejections, args=(caller, rejected))
        reader.start()
        for number in range(100_000):
            caller.send(type="registerfunction", id=f"many::f{number}", request_format=schema)
        caller.send(type="ping")
        reader.join(60)
        assert len(rejected) == 90_000
        assert set(rejected) == {"limit_exceeded"}
        told = [line for line in ground.shown if "is not registered" in line]
        assert len(told) == 1, told[:3]
        print(f"with 10,000 of 100,000 registered: {memory.grown:.0f} MiB more")
    memory.is_back()


def _collect_rejections(caller: Wire, rejected: list[str]) -> None:
    while True:
        message = json.loads(caller._lines.readline())
        if message["type"] == "pong":
            return
        if message["type"] == "registrationrejected":
            rejected.append(message["reason"])


@pytest.mark.slow
def test_channels_that_are_written_and_never_read_are_bounded_together(ground: Ground, port: int) -> None:
    memory = Memory(ground)
    with wire(ground) as maker, contextlib.ExitStack() as stack:
        for number in range(60):
            maker.send(
                type="invokefunction", invocation_id=f"c{number}", function_id="engine::channels::create", data={}
            )
            writer = maker.result(f"c{number}")["result"]["writer"]
            path = f"/ws/channels/{writer['channel_id']}?key={writer['access_key']}&dir=write"
            opened = stack.enter_context(client(port, path))
            opened.settimeout(0.2)
            with contextlib.suppress(TimeoutError):  # paused: what the socket does not take is not sent
                for _ in range(10):
                    opened.sendall(frame(b"x" * MIB, FINAL | BINARY))
        assert memory.grown < 160  # an eighth of the memory, and a started message of each writer


def test_calls_that_wait_for_a_middleware_are_bounded(ground: Ground) -> None:
    port = free_ports("listener")["listener"]
    ground.head = (
        f'[engine]\nlisten = "off"\n[[engine.listeners]]\nport = {port}\n'
        'middleware_function_id = "slow::middleware"\n[engine.listeners.rbac]\nauth_function_id = "slow::auth"\n'
        "expose_functions = ['match(\"slow::*\")']\n"
    )
    ground.laws.discard("descriptors")
    ground.worker("slow", SLOW)
    ground.start()
    memory = Memory(ground)
    body = b"x" * (4 * MIB)
    with client(port) as opened:
        for _ in range(60):
            head = b'{"type":"invokefunction","invocation_id":"%b",' % str(uuid.uuid4()).encode()
            opened.sendall(frame(head + b'"function_id":"slow::quick","data":{"x":"' + body + b'"}}'))
            assert memory.grown < 150
    memory.is_back()
