"""The http worker: takes its socket, provides the trigger types, serves on the main thread's loop."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from pathlib import Path
from typing import NoReturn

from iii import InitOptions, register_worker
from stdlib_workers.http.options import parse_options
from stdlib_workers.http.server import Server, listening_socket

EXIT_CONFIG = 2
# Garbage in cycles is rare here, and each look for it makes every request wait that is on its way.
GC_THRESHOLDS = 10_000, 20, 50


def main() -> None:
    """Serve until the engine closes the wire."""
    worker = register_worker(options=InitOptions(worker_name="http"))
    try:
        options = parse_options(worker.config, os.environ.get("III_WORKER_NAME", "http"))
        sock = listening_socket(options)
        server = Server(worker, options, sock, Path(os.environ.get("III_PROJECT", ".")))
    except ValueError as error:
        _refuse(str(error))
    except OSError as error:
        _refuse(f"cannot listen on {options.host}: {error.strerror or error}; set another host or port")
    import uvloop  # after the configuration has been accepted

    async def serve() -> None:
        await server.start()
        gc.freeze()  # the routes
        host, port = sock.getsockname()[:2]
        sys.stderr.write(f"http://[{host}]:{port}\n" if ":" in host else f"http://{host}:{port}\n")
        await asyncio.Event().wait()

    worker.before_stop(server.stop)
    # What has been imported stays: going through all of it takes tens of milliseconds.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    uvloop.run(serve())


def _refuse(text: str) -> NoReturn:
    sys.stderr.write(f"http: {text}\n")
    raise SystemExit(EXIT_CONFIG)


if __name__ == "__main__":
    main()
