"""`iii mcp`: the same server on standard input and output, for the one client that has started this process.

It is a peer of the engine like any other, over its WebSocket listener, and ends when the client closes its input.
"""

from __future__ import annotations

import logging
import os
import sys
from collections.abc import AsyncIterator
from typing import NoReturn, cast

import anyio
from mcp.server.stdio import stdio_server

from iii import InitOptions, RegistrationRejectedError, register_worker
from stdlib_workers.mcp.catalog import follow_functions
from stdlib_workers.mcp.options import Options
from stdlib_workers.mcp.server import McpServer
from stdlib_workers.values import end_worker

# Bytes of one message of the client.
MAX_LINE = 1024 * 1024


class BoundedLines:
    """The lines of standard input as texts; of one that is too long only its beginning, which no parser accepts."""

    def __init__(self, descriptor: int, most: int = MAX_LINE) -> None:
        self._file = open(descriptor, "rb", closefd=False)  # noqa: SIM115 - open until the end
        self._most = most

    async def __aiter__(self) -> AsyncIterator[str]:
        while line := await anyio.to_thread.run_sync(self._next, abandon_on_cancel=True):
            yield line

    def _next(self) -> str:
        line = self._file.readline(self._most)
        if len(line) == self._most and not line.endswith(b"\n"):
            sys.stderr.write(f"mcp: a message is longer than {self._most} bytes, and was left out\n")
            rest = line
            while rest and not rest.endswith(b"\n"):
                rest = self._file.readline(self._most)
            line = b"{\n"
        return line.decode("utf-8", "replace")


def serve(options: Options) -> NoReturn:
    """Serve until the client closes its input, then end the process."""
    logging.basicConfig(level=logging.ERROR)
    try:
        worker = register_worker(options=InitOptions(worker_name=f"mcp-stdio-{os.getpid()}"))
    except (RegistrationRejectedError, ConnectionError) as error:
        end_worker(f"mcp: {error}", 1)
    served = McpServer(worker, options, keeps_connections=True)
    follow_functions(worker, f"mcp-stdio-{os.getpid()}", served.changes.look)
    server = served.server

    async def run() -> None:
        lines = cast("anyio.AsyncFile[str]", BoundedLines(os.dup(0)))
        async with stdio_server(stdin=lines) as (read, write):
            await server.run(read, write, server.create_initialization_options())

    try:
        anyio.run(run)
    except* (OSError, KeyboardInterrupt):
        sys.stderr.write("mcp: the client has gone\n")
    worker.shutdown()
    # A thread may still read standard input, for which the interpreter would wait.
    os._exit(0)
