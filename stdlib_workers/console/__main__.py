"""The process of the console: `[workers.console]`, or started by `iii dev` for the first visitor."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path
from typing import Any

from iii import InitOptions, __version__, register_worker
from iii.declarations import load_declarations
from stdlib_workers.console.access import Sessions
from stdlib_workers.console.application import Api, application
from stdlib_workers.console.calls import Calls
from stdlib_workers.console.live import MAX_PAGES, Live
from stdlib_workers.console.options import DEFAULT_PORT, options_from
from stdlib_workers.loopback.server import ServerThread
from stdlib_workers.loopback.sockets import loopback_socket
from stdlib_workers.values import end_worker, read_options
from stdlib_workers.values.serving import address_of

# Requests and open pages at a time; seconds that answers have when the server closes. Open pages come again.
MAX_REQUESTS, GRACE = 64 + MAX_PAGES, 1


def main() -> None:
    """Start the worker; exit code 2 for a wrong option or a port that is taken."""
    options = read_options(options_from)
    project = Path(os.environ.get("III_PROJECT", "."))
    try:
        sock = loopback_socket(options.host, DEFAULT_PORT if options.port is None else options.port)
        address = address_of(sock)
        sessions = Sessions(project / ".iii", sock.getsockname()[1])
    except ValueError as error:
        end_worker(f"console: {error}", 2)
    except OSError as error:
        end_worker(f"console: cannot start: {error.strerror or error} ({error.filename or options.host})", 2)
    worker = register_worker(options=InitOptions(worker_name="console"))
    declared = load_declarations(Path(__file__).parent)
    live = Live(worker, declared)

    def about() -> dict[str, Any]:
        return {
            "address": address,
            "project": project.absolute().name,
            "folder": str(project.absolute()),
            "version": __version__,
            "read_only": options.read_only,
            "pages": live.count,
        }

    worker.register_function("console::about", lambda _: about(), **declared.functions["console::about"])
    api = Api(project / ".iii", sessions, Calls(worker, read_only=options.read_only), live, about)
    thread = ServerThread(
        "console-http", application(api, sock.getsockname()[1]), sock, limit=MAX_REQUESTS, grace=GRACE
    )
    closers: list[Callable[[], None]] = [thread.close]
    worker.before_stop(lambda _: [close() for close in closers])
    worker.ready()
    thread.start()


main()
