"""`register_worker`: from an address to a connected worker.

Chooses the transport, and arranges that the main thread serves the worker when the script's body has ended.
"""

from __future__ import annotations

import os
import sys
import threading
from contextvars import ContextVar

from iii.errors import ErrorCode, IIIError, InvocationError
from iii.worker.api.options import DEFAULT_ENGINE_URL, InitOptions, headers_from
from iii.worker.codec.text import warn
from iii.worker.context.python_logging import show_logging
from iii.worker.transport.base import NoTransport
from iii.worker.worker import Worker

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# How long a script waits for its first connection; it goes on without one, and the SDK keeps trying.
CONNECT_TIMEOUT = 30.0
# How to use these packages without their threads.
_PATCHES = {
    "gevent": "monkey.patch_all(thread=False, queue=False, select=False, os=False, signal=False)",
    "eventlet": "eventlet.monkey_patch(thread=False, select=False, os=False)",
}
# The worker on standard input and output: they are one wire, which carries one worker.
_stdio_worker: Worker | None = None
# Makes the worker instead, while `iii.testing` runs a script.
STAND_IN: ContextVar[Callable[[InitOptions | None], Worker] | None] = ContextVar("iii_stand_in", default=None)


def register_worker(address: str | None = None, options: InitOptions | None = None) -> Worker:
    """Connect this process to the engine and return its worker.

    `address` is `stdio:` or `ws://host:port` (`wss://`); without one `III_URL` counts, which is `stdio:` under
    `iii dev`, and without both `DEFAULT_ENGINE_URL`. A WebSocket blocks for up to 30 s; after that the script goes on,
    and the SDK keeps trying. A script need not wait at its end: the process goes on serving.

    IIIError for any other address; ConnectionError when the attempts that the options allow are used up;
    RegistrationRejectedError when the name is taken, here or at the first call. A process under `iii dev` is one
    worker: a second call returns the same, and raises IIIError for another name.

        worker = register_worker(options=InitOptions(worker_name="math"))

        @worker.function("math::add")
        def add(a: float, b: float) -> float:
            return a + b
    """
    stand_in = STAND_IN.get()
    if stand_in is not None:
        return stand_in(options)
    _warn_of_green_threads()
    address = address or (os.environ.get("III_URL") or "").strip() or DEFAULT_ENGINE_URL
    if address == "stdio:":
        return _register_stdio_worker(options)
    if address.startswith(("ws://", "wss://")):
        return _register_websocket_worker(address, options or InitOptions())
    raise IIIError(f"an engine's address is stdio: or ws://host:port, not {address}")


def _warn_of_green_threads() -> None:
    """Say what cannot work where gevent or eventlet have put their own threads into the place of Python's."""
    start = getattr(threading, "_start_joinable_thread", None) or getattr(threading, "_start_new_thread", None)
    package = str(getattr(start, "__module__", "_thread")).partition(".")[0]
    if package not in ("_thread", "threading"):
        way_out = _PATCHES.get(package, "do not patch them")
        warn(
            f"{package} has replaced the threads of this process, and handlers that sleep, wait or are async would "
            f"never answer beside the thread that reads; leave threads alone ({way_out})"
        )


def _register_stdio_worker(options: InitOptions | None) -> Worker:
    from iii.worker.transport.stdio import StdioTransport  # this transport only

    global _stdio_worker  # noqa: PLW0603 - as the descriptors are the process's
    if _stdio_worker is not None and _stdio_worker.get_connection_state() != "disconnected":
        existing, requested = _stdio_worker._options, options or InitOptions()
        for word, old, new in (
            ("name", existing.worker_name, requested.worker_name),
            ("namespace", existing.namespace, requested.namespace),
        ):
            if new is not None and new != old:
                text = f"this process is a worker already, with the {word} {old or 'that iii.toml gives it'}"
                raise IIIError(f"{text}; for {new} give a script of its own an entry in iii.toml")
        return _stdio_worker
    launcher = sys.modules.get("iii_launcher")
    wire = getattr(launcher, "wire", None)
    owner = os.environ.get("III_WIRE_PID")
    if owner is not None and (wire is None or owner != str(os.getpid())):
        _stdio_worker = _worker_of_child(options, owner)
        return _stdio_worker
    if wire is None:
        from iii.worker.launcher import claim_wire  # a script started by hand

        sys.stdout.flush()
        wire = claim_wire()
    worker = _stdio_worker = Worker(StdioTransport(*wire), options, address="stdio:")
    _disconnect_children(worker)
    if launcher is not None:
        show_logging()
        launcher.serve = worker._serve  # type: ignore[attr-defined]
    else:
        _serve_after_main(worker._serve)
    worker._serve_on_threads()
    return worker


def _worker_of_child(options: InitOptions | None, owner: str) -> Worker:
    """Return the worker of a process that a worker has started: it has no connection, its registrations go nowhere.

    A child of `multiprocessing` imports the worker's script again on its way to its own work, so this must not fail.
    """
    why = _why_not_connected(owner)
    if not _is_multiprocessing_child():
        warn(why)
    worker = Worker(NoTransport(), options, address="stdio:", state="disconnected")
    worker._receiver.rejection = InvocationError(ErrorCode.NOT_CONNECTED, why)
    return worker


def _is_multiprocessing_child() -> bool:
    process = sys.modules.get("multiprocessing.process")
    if process is None:
        return False
    # The second while a spawned child or the fork server imports the script: the child has no parent yet then.
    return bool(process.parent_process() or getattr(process.current_process(), "_inheriting", False))


def _disconnect_children(worker: Worker) -> None:
    """Take the connection away from every process that is forked from this one."""
    owner = str(os.getpid())
    os.register_at_fork(after_in_child=lambda: worker._disconnect_child(_why_not_connected(owner)))


def _why_not_connected(owner: str) -> str:
    name = os.environ.get("III_WORKER_NAME")
    parent = f"the worker {name} (process {owner})" if name else f"process {owner}"
    text = f"process {os.getpid()} was started by {parent}, and only that has the connection to the engine"
    return f"{text}; call and register there, or connect with register_worker(os.environ['III_WS_URL'])"


def _register_websocket_worker(address: str, options: InitOptions) -> Worker:
    from iii.worker.transport.websocket import Reconnection, WebSocketTransport, parse_address  # this transport only

    parse_address(address)
    # The transport connects when the worker first reads: the worker exists by then.
    transport = WebSocketTransport(
        address,
        headers_from(options),
        Reconnection(options.reconnection_config),
        greeting=lambda: worker._greeting(),  # noqa: PLW0108 - the worker is made below
        on_state=lambda state: worker._set_state(state),  # noqa: PLW0108 - as above
        on_lost=lambda: worker._on_lost(),  # noqa: PLW0108 - as above
    )
    worker = Worker(transport, options, address=address, state="connecting", closes_when_rejected=True)
    _disconnect_children(worker)
    worker._serve_on_threads(at_once=True)
    if not transport.connected.wait(CONNECT_TIMEOUT):
        warn(f"no engine answers at {address} ({transport.failure}); trying on")
    elif worker.rejection is not None:
        raise worker.rejection
    elif worker.get_connection_state() == "failed":
        raise ConnectionError(f"no engine answers at {address}: {transport.failure}")
    _serve_after_main(worker._serve)
    return worker


def _serve_after_main(serve: Callable[[], None]) -> None:
    """Call `serve()` on the main thread when the body of a script started by hand has ended; Ctrl-C ends it."""
    # Python ends executors right after the body, last registered first. This import registers theirs before ours, so
    # that they still run while handlers use them.
    import concurrent.futures.thread  # noqa: F401 - scripts started by hand only

    def work() -> None:
        # Python keeps an uncaught exception here: then the script has failed, and the process shall end.
        if getattr(sys, "last_value", None) is None:
            try:
                serve()
            except KeyboardInterrupt:
                return  # Ctrl-C is how a script run by hand is meant to end

    threading._register_atexit(work)  # type: ignore[attr-defined]  # what executors themselves use
