"""A ws:// engine: what can be said without the optional package, and the frames that stand for lines."""

from __future__ import annotations

import socket
import threading
from pathlib import Path

from cli.client.connection import Connection
from tests.support.command import ROOT, Iii


class FakeSocket:
    """The part of a WebSocket that the connection uses; answers each call with its payload."""

    def __init__(self) -> None:
        self.is_closed = False
        self._lines: list[bytes] = [b'{"type":"workerregistered","worker_id":"w"}\n']

    def settimeout(self, seconds: float | None, /) -> None:
        """Take any bound."""

    def sendall(self, data: bytes, /) -> None:
        """Queue the answer to one call in two pieces."""
        answer = data.replace(b"invokefunction", b"invocationresult").replace(b'"data"', b'"result"')
        self._lines += [answer[:10], answer[10:]]

    def recv(self, _size: int, /) -> bytes:
        """Return the next piece, nothing at the end."""
        return self._lines.pop(0) if self._lines else b""

    def close(self) -> None:
        """Note that it was closed."""
        self.is_closed = True


def test_a_connection_needs_only_a_transport_of_lines() -> None:
    transport = FakeSocket()
    with Connection(transport) as connection:
        assert connection.call("x::echo", {"text": "a\u2028b"}) == {"text": "a\u2028b"}
    assert transport.is_closed


def test_without_the_package_the_way_out_is_shown(iii: Iii, folder: Path) -> None:
    (folder / "websockets").mkdir()
    (folder / "websockets" / "__init__.py").write_text("raise ImportError('not here')")
    done = iii("ps", "--engine", "ws://127.0.0.1:1", PYTHONPATH=f"{folder}:{ROOT}")
    assert (done.returncode, "install iii-engine[websocket]" in done.stderr) == (2, True)


def test_s13_who_has_taken_the_engines_port_is_not_told_its_token(iii: Iii, folder: Path) -> None:
    (folder / ".iii" / "run").mkdir(parents=True, exist_ok=True)
    (folder / ".iii" / "run" / "token").write_text("canary-of-the-engine")
    heard: list[bytes] = []
    with socket.create_server(("127.0.0.1", 0)) as squatter:

        def listen() -> None:
            connection, _ = squatter.accept()
            with connection:
                heard.append(connection.recv(65536))

        thread = threading.Thread(target=listen)
        thread.start()
        done = iii("ps", "--engine", f"ws://127.0.0.1:{squatter.getsockname()[1]}")
        thread.join(30)
    assert done.returncode == 3
    assert heard[0].startswith(b"GET ")
    assert b"canary" not in heard[0]
