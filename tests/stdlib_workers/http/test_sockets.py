"""WebSocket endpoints: events in order, answers both ways, and hostile frames cost only their own connection."""

from __future__ import annotations

import base64
import json
import os
import socket
from collections.abc import Iterator
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosedError, InvalidStatus
from websockets.sync.client import ClientConnection, connect

from stdlib_workers.http.replies import BadResult
from stdlib_workers.http.requests import Request
from stdlib_workers.http.routes import Route
from stdlib_workers.http.sockets import Socket
from tests.support.live_project import BOUND
from tests.support.web_project import Web, web

WORKER = """
writers = {}

def chat(event):
    kind = event["event"]
    if kind == "connect":
        if event["query_params"].get("token") == "no":
            return False
        writers[event["path_params"]["room"]] = event["response"]
    elif kind == "message":
        if event.get("data") == "boom":
            raise RuntimeError("boom")
        return {"got": event.get("data"), "bytes": event.get("data_base64")}
    else:
        say("closed", event["code"])

def announce(payload):
    writer = writers[payload["room"]]
    writer.send("to all")
    writer.send(b"\\x00\\x01")

for function in (chat, announce):
    worker.register_function("web::" + function.__name__, function)
worker.register_trigger({"type": "websocket", "function_id": "web::chat", "config": {"api_path": "/chat/:room"}})
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    toml = '[engine]\nlisten = "127.0.0.1:0"\n'
    with web(tmp_path_factory.mktemp("sockets"), WORKER, engine=toml) as made:
        yield made


def open_socket(running: Web, path: str, **options: Any) -> ClientConnection:
    return connect(f"ws://127.0.0.1:{running.port}{path}", compression=None, proxy=None, open_timeout=BOUND, **options)


def test_messages_are_answered_in_order_and_the_end_is_told(running: Web) -> None:
    with open_socket(running, "/chat/a") as client:
        for number in range(20):
            client.send(str(number))
        client.send(b"\x00\xff")
        answers = [json.loads(client.recv(BOUND)) for _ in range(21)]
    assert [answer["got"] for answer in answers[:20]] == [str(number) for number in range(20)]
    assert base64.b64decode(answers[20]["bytes"]) == b"\x00\xff"
    running.project.wait("closed 1000")


def test_whoever_has_the_channel_may_write(running: Web) -> None:
    with open_socket(running, "/chat/b") as client:
        running.project.call("web::announce", {"room": "b"})
        assert [client.recv(BOUND), client.recv(BOUND)] == ["to all", b"\x00\x01"]


@pytest.mark.parametrize(
    ("path", "origin", "status"),
    [
        ("/chat/a?token=no", None, 403),
        ("/nowhere", None, 404),
        ("/chat/%00", None, 400),
        ("/chat/a", "http://evil.test", 403),
        ("/chat/a", "null", 403),
    ],
)
def test_a_handshake_that_is_refused_says_why(running: Web, path: str, origin: Any, status: int) -> None:
    with pytest.raises(InvalidStatus) as caught, open_socket(running, path, origin=origin):
        pass
    assert caught.value.response.status_code == status
    assert not running.project.said("handshake")


def test_a_function_that_fails_ends_its_socket_only(running: Web) -> None:
    with open_socket(running, "/chat/a") as other:
        with open_socket(running, "/chat/a") as client:
            client.send("boom")
            with pytest.raises(ConnectionClosedError, match="1011"):
                client.recv(BOUND)
        other.send("still here")
        assert json.loads(other.recv(BOUND))["got"] == "still here"


class Client:
    """A client that says one thing and leaves; `heard` is what it was told."""

    def __init__(self) -> None:
        self.heard: list[str] = []
        self._says: list[Any] = [{"type": "websocket.disconnect"}, {"type": "websocket.receive", "text": "?"}]

    async def receive(self) -> Any:
        return self._says.pop()

    async def send_text(self, text: str) -> None:
        self.heard.append(text)

    async def close(self, code: int, reason: str) -> None:
        self.heard.append(f"{code} {reason}")


@pytest.mark.parametrize(
    ("answer", "heard"), [([2**70], "[1180591620717411303424]"), (["\ud800"], "1011 invalid_response")]
)
async def test_an_answer_is_sent_as_json_or_the_author_is_told(answer: Any, heard: str) -> None:
    async def trigger(_: Any) -> Any:
        return answer

    client: Any = Client()
    request = Request({"type": "websocket", "raw_path": b"/a", "headers": []}, client.receive, 0, BOUND)
    request.route = Route("t", "f::f", "websocket", "/a")
    served = Socket(trigger, request, client, BOUND).serve()
    if heard.startswith("["):
        assert await served == 1000
    else:
        with pytest.raises(BadResult):
            await served
    assert client.heard == [heard]


def masked(first: int, payload: bytes, *, length: int | None = None) -> bytes:
    """A client's frame; its mask is zero, so that the payload stands as it is."""
    size = len(payload) if length is None else length
    head = bytes([first, 0x80 | size]) if size < 126 else bytes([first, 0xFF]) + size.to_bytes(8, "big")
    return head + bytes(4) + payload


@pytest.mark.parametrize(
    ("frame", "code"),
    [
        (masked(0x81, b"\xff\xfe"), 1007),
        (masked(0x81, b"", length=(4 << 20) + 1), 1009),
        (b"\x81\x02hi", 1002),  # not masked
        (masked(0xC1, b"hi"), 1002),  # a reserved bit
        (masked(0x83, b"hi"), 1002),  # a reserved opcode
        (masked(0x80, b"hi"), 1002),  # continues nothing
        (masked(0x09, b"hi"), 1002),  # a ping in fragments
        (masked(0x88, b"\x00"), 1002),  # half a close code
        (masked(0x01, b"a") + masked(0x00, b"a") * 10_000, 1009),
    ],
)
def test_h10_hostile_frames_have_their_close_codes(running: Web, frame: bytes, code: int) -> None:
    with socket.create_connection(("127.0.0.1", running.port), BOUND) as client:
        client.sendall(
            b"GET /chat/a HTTP/1.1\r\nHost: localhost:%d\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n"
            b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: %s\r\n\r\n"
            % (running.port, base64.b64encode(os.urandom(16)))
        )
        head = b""
        while not head.endswith(b"\r\n\r\n"):
            head += client.recv(1)
        assert head.startswith(b"HTTP/1.1 101 ")
        assert b"permessage-deflate" not in head.lower()
        client.sendall(frame)
        closing = client.recv(2) + client.recv(2)
        assert (closing[0], int.from_bytes(closing[2:], "big")) == (0x88, code)
    running.project.wait(f"closed {code}")
    assert not running.project.said("Traceback")


def test_a_request_to_a_socket_path_is_a_404(running: Web) -> None:
    assert running.ask("GET", "/chat/a").status == 404
