"""Caller and callee over WebSocket in one process, with next to no work of their own.

`ws_pair.py PORT WINDOW CALLS` prints the median call in microseconds and the calls per second.
"""

import select
import socket
import statistics
import sys
import time

BOUND = 60.0
UPGRADE = (
    "GET / HTTP/1.1\r\nHost: 127.0.0.1:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n"
    "Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA==\r\n\r\n"
)
CALL = b'{"type":"invokefunction","invocation_id":"%036d","function_id":"b::add","data":{"a":2,"b":3}}'
RESULT = b'{"type":"invocationresult","invocation_id":"%s","function_id":"b::add","result":{"c":5}}'
SET_UP = (
    b'{"type":"registerfunction","id":"b::add"}',
    b'{"type":"invokefunction","function_id":"engine::workers::register","action":{"type":"void"},"data":{}}',
)
KEY = b'"invocation_id"'


class End:
    """One connection: frames masked with zeros, so that the mask costs the client nothing."""

    def __init__(self, port: int) -> None:
        self.socket = socket.create_connection(("127.0.0.1", port), timeout=BOUND)
        self.socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self.socket.sendall(UPGRADE.format(port=port).encode())
        self._tail = b""
        while b"\r\n\r\n" not in self._tail:
            self._tail += self.socket.recv(4096)
        self._tail = self._tail.split(b"\r\n\r\n", 1)[1]

    def send(self, messages: list[bytes]) -> None:
        """Send messages of less than 64 KiB in one write."""
        if messages:
            self.socket.sendall(b"".join(map(frame, messages)))

    def receive(self) -> list[bytes]:
        """Return the messages that are there."""
        chunk = self.socket.recv(65536)
        if not chunk:
            raise ConnectionError("the router closed the connection")
        data, position, messages = self._tail + chunk, 0, []
        while len(data) - position >= 4:
            size, start = data[position + 1], position + 2
            if size == 126:
                size, start = int.from_bytes(data[start : start + 2], "big"), start + 2
            if start + size > len(data):
                break
            messages.append(data[start : start + size])
            position = start + size
        self._tail = data[position:]
        return messages


def frame(message: bytes) -> bytes:
    """Return a masked text frame."""
    size = len(message)
    head = bytes((0x81, 0x80 | size)) if size < 126 else b"\x81\xfe" + size.to_bytes(2, "big")
    return head + b"\0\0\0\0" + message


def result_of(call: bytes) -> bytes:
    """Return the answer to a call, without parsing it."""
    start = call.index(b'"', call.index(KEY) + len(KEY) + 1) + 1
    return RESULT % call[start : start + 36]


def await_function(callee: End) -> None:
    """Register, and call it until it answers: then everything stands."""
    callee.send([*SET_UP, CALL % 0])
    while True:
        for message in callee.receive():
            if b'"invokefunction"' in message:
                callee.send([result_of(message)])
            elif b'"invocationresult"' in message and b'"error"' not in message:
                return
            elif b'"invocationresult"' in message:
                callee.send([CALL % 0])


def measure(port: int, window: int, calls: int) -> tuple[float, float]:
    """Return the median call in microseconds and the calls per second."""
    callee, caller = End(port), End(port)
    await_function(callee)
    sent, times = window, []
    began = last = time.perf_counter()
    caller.send([CALL % (number + 1) for number in range(window)])
    while len(times) < calls:
        for ready in select.select([callee.socket, caller.socket], [], [], BOUND)[0]:
            if ready is callee.socket:
                callee.send([result_of(message) for message in callee.receive() if b'"invokefunction"' in message])
                continue
            done = sum(b'"invocationresult"' in message for message in caller.receive())
            now = time.perf_counter()
            times += [(now - last) / done] * done if done else []
            last = now
            caller.send([CALL % (sent + number + 1) for number in range(done)])
            sent += done
    return statistics.median(times) * 1e6, calls / (time.perf_counter() - began)


if __name__ == "__main__":
    print(*measure(*map(int, sys.argv[1:4])))
