"""The obvious router: one coroutine a connection of the same WebSocket library, JSON parsed and written per message.

Prints its port; runs until its input ends.
"""

import asyncio
import json
import sys
from typing import Any

import uvloop
from websockets.asyncio.server import ServerConnection, serve

MAX_MESSAGE = 64 * 1024 * 1024


class Router:
    """Functions by id, and who waits for which call."""

    def __init__(self) -> None:
        self.functions: dict[str, ServerConnection] = {}
        self.callers: dict[str, ServerConnection] = {}

    async def handle(self, connection: ServerConnection) -> None:
        """Serve one connection until it closes."""
        await connection.send(json.dumps({"type": "workerregistered", "worker_id": str(connection.id)}))
        async for text in connection:
            if isinstance(text, str):  # the rest is telemetry
                await self.route(connection, json.loads(text))

    async def route(self, connection: ServerConnection, message: dict[str, Any]) -> None:
        """Pass one message on."""
        kind = message["type"]
        if kind == "registerfunction":
            self.functions[message["id"]] = connection
        elif kind == "invocationresult":
            await self.callers.pop(message["invocation_id"]).send(json.dumps(message))
        elif kind == "invokefunction" and "invocation_id" in message:
            self.callers[message["invocation_id"]] = connection
            await self.functions[message["function_id"]].send(json.dumps(message))


async def main() -> None:
    """Listen on a free port."""
    async with serve(Router().handle, "127.0.0.1", 0, compression=None, max_size=MAX_MESSAGE) as server:
        print(next(iter(server.sockets)).getsockname()[1], flush=True)
        await asyncio.to_thread(sys.stdin.read)


if __name__ == "__main__":
    uvloop.run(main())
