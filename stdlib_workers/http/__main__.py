"""The http worker: takes or opens its socket, provides the trigger type, serves on the main thread's loop."""

from __future__ import annotations

import asyncio
import os
import sys
from pathlib import Path
from typing import NoReturn

from iii import InitOptions, Worker, register_worker
from stdlib_workers.http.options import Options, parse_options
from stdlib_workers.http.server import Server

EXIT_CONFIG = 2


def main() -> None:
    """Serve until the engine closes the wire."""
    worker = register_worker(options=InitOptions(worker_name="http"))
    try:
        options = parse_options(worker.config, os.environ.get("III_WORKER_NAME", "http"))
        server = Server(worker, options, run_folder())
        server.open()
    except ValueError as error:
        _refuse(str(error))
    except OSError as error:
        place = address_of(options.host, options.port)
        _refuse(f"cannot listen on {place}: {error.strerror or error}; set another host or port, or no port for any")
    _run(worker, server, options)


def run_folder() -> Path:
    """Return the project's folder for sockets."""
    return Path(os.environ.get("III_PROJECT", "."), ".iii", "run")


def address_of(host: str, port: int | None) -> str:
    """Return host and port as a URL has them."""
    name = f"[{host}]" if ":" in host else host
    return name if port is None else f"{name}:{port}"


def _run(worker: Worker, server: Server, options: Options) -> None:
    import uvloop  # after the configuration has been accepted

    async def serve() -> None:
        await server.start(asyncio.get_running_loop())
        sys.stderr.write(f"http://{address_of(options.host, server.port)}\n")
        await asyncio.Event().wait()

    worker.before_stop(server.stop)
    uvloop.run(serve())


def _refuse(text: str) -> NoReturn:
    sys.stderr.write(f"http: {text}\n")
    raise SystemExit(EXIT_CONFIG)


if __name__ == "__main__":
    main()
