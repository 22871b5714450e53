"""A peer on the engine's unix socket that writes its bytes itself, for what no client would send."""

from __future__ import annotations

import json
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from tests.support.ground import BOUND, Ground

Message = dict[str, Any]


class Wire:
    """Bytes out, messages in."""

    def __init__(self, connected: socket.socket) -> None:
        self._socket = connected
        self._lines = connected.makefile("rb")

    def write(self, data: bytes) -> None:
        """Write bytes as they are."""
        self._socket.sendall(data)

    def send(self, **message: Any) -> None:
        """Write one message."""
        self.write(json.dumps(message).encode() + b"\n")

    def await_message(self, kind: str, **fields: Any) -> Message:
        """Return the next message of this type with these fields; skip others."""
        while True:
            line = self._lines.readline()
            assert line, f"the engine closed the connection instead of sending {kind} {fields}"
            message: Message = json.loads(line)
            if message["type"] == kind and fields.items() <= message.items():
                return message

    def result(self, invocation_id: str) -> Message:
        """Return the outcome of one call."""
        return self.await_message("invocationresult", invocation_id=invocation_id)

    def settle(self) -> None:
        """Return once the engine has acted on everything written so far."""
        self.send(type="ping")
        self.await_message("pong")

    def close(self) -> None:
        self._lines.close()
        self._socket.close()


@contextmanager
def wire(ground: Ground) -> Iterator[Wire]:
    """Connect to the engine."""
    connected = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
    connected.settimeout(BOUND)
    connected.connect(ground.facts()["socket"])
    opened = Wire(connected)
    try:
        yield opened
    finally:
        opened.close()


def call_line(function_id: str, data: bytes, invocation_id: str = "i1") -> bytes:
    """Return the line of a call whose payload is exactly these bytes, newline included."""
    head = f'{{"type":"invokefunction","invocation_id":"{invocation_id}","function_id":"{function_id}","data":'
    return head.encode() + data + b"}\n"
