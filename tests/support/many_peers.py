"""Many workers in one process: `many_peers.py URL COUNT`. Each has a connection and a function `many-N::echo`.

Says `connected` on stdout when the engine knows all of them, and ends with its stdin.
"""

from __future__ import annotations

import asyncio
import json
import os
import sys
from urllib.parse import urlsplit

AT_ONCE = 50  # handshakes under way
KEY = b"dGhlIHNhbXBsZSBub25jZQ=="


def frame(message: object) -> bytes:
    """Return a masked text frame with a mask of zeros."""
    body = json.dumps(message).encode()
    length = bytes([0x80 | len(body)]) if len(body) < 126 else bytes([0x80 | 126]) + len(body).to_bytes(2, "big")
    return b"\x81" + length + bytes(4) + body


async def read_frame(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Read one frame; return its opcode and body."""
    first, size = await reader.readexactly(2)
    if size == 126:
        size = int.from_bytes(await reader.readexactly(2), "big")
    return first & 15, await reader.readexactly(size)


class Peer:
    """One worker."""

    def __init__(self, number: int) -> None:
        self.function_id = f"many-{number}::echo"
        self.name = f"many-{number}"
        self.known = asyncio.Event()

    async def connect(self, host: str, port: int) -> None:
        self.reader, self.writer = await asyncio.open_connection(host, port, limit=4096)
        head = f"GET / HTTP/1.1\r\nHost: {host}:{port}\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n".encode()
        self.writer.write(head + b"Sec-WebSocket-Version: 13\r\nSec-WebSocket-Key: " + KEY + b"\r\n\r\n")
        answer = await self.reader.readuntil(b"\r\n\r\n")
        if b" 101 " not in answer.splitlines()[0]:
            raise ConnectionError(answer.decode())
        self.write({"type": "registerfunction", "id": self.function_id})
        about = {"runtime": "test", "name": self.name, "pid": os.getpid()}
        call = {"type": "invokefunction", "function_id": "engine::workers::register", "data": about}
        self.write({**call, "invocation_id": "who"})

    def write(self, message: object) -> None:
        self.writer.write(frame(message))

    async def serve(self) -> None:
        while True:
            opcode, body = await read_frame(self.reader)
            if opcode == 9:
                self.writer.write(b"\x8a" + bytes([0x80 | len(body)]) + bytes(4) + body)
            elif opcode == 8:
                raise ConnectionError(f"{self.name} was closed: {body[2:].decode()}")
            message = json.loads(body) if opcode == 1 else {}
            if message.get("type") == "invocationresult":
                self.known.set()
            elif message.get("type") == "invokefunction":
                names = {key: message[key] for key in ("invocation_id", "function_id")}
                self.write({"type": "invocationresult", **names, "result": message["data"]})
            elif message.get("type") == "ping":
                self.write({"type": "pong"})


async def main(url: str, count: int) -> None:
    where = urlsplit(url)
    peers = [Peer(number) for number in range(count)]
    permits = asyncio.Semaphore(AT_ONCE)
    async with asyncio.TaskGroup() as tasks:

        async def begin(peer: Peer) -> None:
            async with permits:
                await peer.connect(where.hostname or "", where.port or 0)
                tasks.create_task(peer.serve())
                await peer.known.wait()

        async with asyncio.TaskGroup() as beginning:
            for peer in peers:
                beginning.create_task(begin(peer))
        print("connected", flush=True)
        await asyncio.to_thread(sys.stdin.read)
        os._exit(0)


if __name__ == "__main__":
    asyncio.run(main(sys.argv[1], int(sys.argv[2])))
