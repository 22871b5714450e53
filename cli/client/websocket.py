"""A WebSocket with the methods of a socket that `connection` uses, so that it knows one kind of transport only.

For engines on other machines and for III_URL=ws://...; needs the `websocket` extra.
"""

from __future__ import annotations

import os

from cli.client.errors import UsageError, not_running
from iii.errors import EngineNotRunning


class WebSocket:
    """One frame is one line. III_TOKEN, when set, is sent as a bearer token."""

    def __init__(self, url: str) -> None:
        try:
            from websockets.exceptions import InvalidStatus, WebSocketException  # an optional dependency
            from websockets.sync.client import connect  # an optional dependency
        except ImportError:
            hint = "install iii-engine[websocket], or give the path of the engine's unix socket"
            raise UsageError(f"{url} needs the websockets package", hint) from None
        token = os.environ.get("III_TOKEN", "").strip()
        headers = {"Authorization": f"Bearer {token}"} if token else {}
        try:
            self._socket = connect(url, additional_headers=headers, open_timeout=5, max_size=None, proxy=None)
        except InvalidStatus as error:
            status = error.response.status_code
            text = f"what answers at {url} is no engine (HTTP {status})"
            if status in (401, 403):
                text = f"{url} does not let us in (HTTP {status}); III_TOKEN must be what `iii token` prints"
            raise EngineNotRunning(text) from None
        except (OSError, WebSocketException, ValueError) as error:
            raise not_running(f"no engine answers at {url} ({error})") from None
        self._closed = WebSocketException
        self._timeout: float | None = None

    def settimeout(self, seconds: float | None) -> None:
        """Bound the following `recv`s."""
        self._timeout = seconds

    def sendall(self, data: bytes) -> None:
        """Send one line as a text frame."""
        try:
            self._socket.send(data.rstrip(b"\n").decode())
        except self._closed as error:
            raise OSError(str(error)) from None

    def recv(self, _size: int) -> bytes:
        """Return the next frame as a line, nothing once the engine has closed."""
        try:
            frame = self._socket.recv(self._timeout)
        except self._closed:
            return b""
        return (frame.encode() if isinstance(frame, str) else frame) + b"\n"

    def close(self) -> None:
        self._socket.close()
