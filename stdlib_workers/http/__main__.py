"""The http worker: takes its socket, provides the trigger types, serves on the main thread's loop."""

from __future__ import annotations

import asyncio
import gc
import os
import sys
from pathlib import Path

from iii import InitOptions, register_worker
from stdlib_workers.http.options import DEFAULT_PORT, parse_options
from stdlib_workers.http.server import Server
from stdlib_workers.values import end_worker
from stdlib_workers.values.serving import address_of, listening_socket

EXIT_CONFIG = 2
# Garbage in cycles is rare here, and each look for it makes every request wait that is on its way.
GC_THRESHOLDS = 10_000, 20, 50


def main() -> None:
    """Serve until the engine closes the wire."""
    worker = register_worker(options=InitOptions(worker_name="http"))
    try:
        options = parse_options(worker.config, os.environ.get("III_WORKER_NAME", "http"))
        sock = listening_socket(options.host, DEFAULT_PORT if options.port is None else options.port)
        server = Server(worker, options, sock, Path(os.environ.get("III_PROJECT", ".")))
    except ValueError as error:
        end_worker(f"http: {error}", EXIT_CONFIG)
    except OSError as error:
        text = f"http: cannot listen on {options.host}: {error.strerror or error}; set another host or port"
        end_worker(text, EXIT_CONFIG)
    import uvloop  # after the configuration has been accepted

    async def serve() -> None:
        await server.start()
        gc.freeze()  # the routes
        sys.stderr.write(f"{address_of(sock)}\n")
        await asyncio.Event().wait()

    worker.before_stop(server.stop)
    # What has been imported stays: going through all of it takes tens of milliseconds.
    gc.collect()
    gc.freeze()
    gc.set_threshold(*GC_THRESHOLDS)
    uvloop.run(serve())


if __name__ == "__main__":
    main()
