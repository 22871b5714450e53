"""The process of `[workers.mcp]`, which serves HTTP; with the argument `stdio` that of `iii mcp`, for one client."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from concurrent.futures import Future
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iii import InitOptions, register_worker
from stdlib_workers.loopback.sockets import loopback_socket
from stdlib_workers.mcp.catalog import DECLARED, Catalog, follow_functions
from stdlib_workers.mcp.key import read_or_make
from stdlib_workers.mcp.options import DEFAULT_PORT, PATH, options_from
from stdlib_workers.values import end_worker, read_options
from stdlib_workers.values.serving import address_of

if TYPE_CHECKING:
    from stdlib_workers.mcp.server import McpServer

LEAST_VERSION = (2, 3)


def main() -> None:
    """Start the worker; exit code 2 for a wrong option, and without the package that speaks the protocol."""
    options = read_options(options_from)
    _check_package()
    if sys.argv[1:] == ["stdio"]:
        from stdlib_workers.mcp.stdio import serve  # loads the package

        serve(options)
    worker = register_worker(options=InitOptions(worker_name="mcp"))
    try:
        key = options.key or read_or_make(Path(os.environ.get("III_PROJECT", ".")) / ".iii")
        sock = loopback_socket(options.host, DEFAULT_PORT if options.port is None else options.port)
    except ValueError as error:
        end_worker(f"mcp: {error}", 2)
    except OSError as error:
        end_worker(f"mcp: cannot start: {error.strerror or error} ({error.filename or options.host})", 2)
    catalog = Catalog(worker, options)
    worker.register_function("mcp::tools", catalog.describe, **DECLARED.functions["mcp::tools"])
    served: Future[McpServer] = Future()

    async def on_functions_available(event: Any) -> None:
        if served.done():
            await served.result().changes.look(event)

    follow_functions(worker, "mcp", on_functions_available)
    closers: list[Callable[[], None]] = []
    worker.before_stop(lambda _: [close() for close in closers])
    where = "the key in iii.toml" if options.key else "the key in .iii/mcp.key"
    sys.stderr.write(f"{address_of(sock)}{PATH} with {where} as bearer token\n")
    worker.ready()
    # Loading the package takes more than a second; the socket takes connections meanwhile.
    from stdlib_workers.mcp.listener import listener
    from stdlib_workers.mcp.server import McpServer

    server = McpServer(worker, options)
    served.set_result(server)
    thread = listener(server.server, server.changes.streams, sock, key)
    closers += [server.changes.close, thread.close]
    thread.start()


def _check_package() -> None:
    try:
        found = version("mcp")
    except PackageNotFoundError:
        found = ""
    if tuple(int(part) for part in found.split(".")[:2] if part.isdigit()) < LEAST_VERSION:
        wanted = f"needs the package `mcp` {'.'.join(map(str, LEAST_VERSION))} or later"
        there = f", and there is {found}" if found else ""
        end_worker(f"mcp: this worker {wanted}{there}: pip install 'mcp>=2.3,<3'", 2)


main()
