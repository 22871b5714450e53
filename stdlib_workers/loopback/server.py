"""uvicorn on a thread of its own, and the bound on the time for a request's body."""

from __future__ import annotations

import asyncio
import logging
import socket
from collections.abc import Awaitable, Callable, Mapping
from contextlib import AbstractAsyncContextManager, nullcontext
from threading import Thread
from typing import Any

import uvicorn

from stdlib_workers.values.serving import uvicorn_config

# Seconds for a body, and that a connection may stay without another request.
BODY_TIMEOUT, KEEP_ALIVE = 30.0, 30

Receive = Callable[[], Awaitable[Any]]


class ServerThread:
    """Serves an ASGI application on `sock` until it is closed.

    `limit`: requests at a time, further ones are answered 503; `grace`: seconds that answers have when the server
    closes. `around` is entered on the thread's loop, and left when the server has ended.
    """

    def __init__(
        self,
        name: str,
        application: Any,
        sock: socket.socket,
        *,
        limit: int,
        grace: int,
        around: Callable[[], AbstractAsyncContextManager[Any]] = nullcontext,
    ) -> None:
        self._sock = sock
        self._around = around
        # Requests that are refused are their clients' affair; what breaks in here is logged.
        logging.basicConfig(level=logging.ERROR)
        config = uvicorn_config(
            application,
            loop="uvloop",
            ws="none",
            limit_concurrency=limit,
            timeout_keep_alive=KEEP_ALIVE,
            timeout_graceful_shutdown=grace,
        )
        self._server = uvicorn.Server(config)
        self._thread = Thread(target=self._run, name=name, daemon=True)

    def start(self) -> None:
        """Serve from now on: the socket listens already, so that no client comes too early."""
        self._thread.start()

    def close(self) -> None:
        """Stop, and wait for the answers under way."""
        self._server.should_exit = True
        self._thread.join()

    def _run(self) -> None:
        asyncio.run(self._serve())

    async def _serve(self) -> None:
        async with self._around():
            await self._server.serve(sockets=[self._sock])


def bounded(receive: Receive) -> Receive:
    """Return the same, with a bound on the time for the body: what comes after it may take as long as it likes."""
    loop = asyncio.get_running_loop()
    deadline, is_complete = loop.time() + BODY_TIMEOUT, False

    async def receive_in_time() -> Any:
        nonlocal is_complete
        if is_complete:
            return await receive()
        try:
            async with asyncio.timeout_at(deadline):
                message: Mapping[str, Any] = await receive()
        except TimeoutError:
            return {"type": "http.disconnect"}
        is_complete = not message.get("more_body", False)
        return message

    return receive_in_time
