"""How a worker's process ends, and how a script started by hand goes on to serve.

A supervised process ends with its wire, or when the engine asks it to stop, whatever user threads do. `atexit`
handlers and buffered output get a short grace period.
"""

from __future__ import annotations

import os
import sys
import threading
from threading import Event, Thread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# For `atexit` handlers and threads that are about to end; no caller waits for their results any more.
EXIT_TIMEOUT = 0.5


_is_leaving = Event()


def leave_process(*, main_returns: bool) -> None:
    """End the process with code 0 within the grace period. Returns at once; safe to call twice.

    `main_returns`: the main thread is about to end the interpreter the usual way, unless a user thread keeps it.
    """

    def leave() -> None:
        if main_returns:
            Event().wait(EXIT_TIMEOUT)
        else:
            finisher = Thread(target=_run_exit_handlers, name="iii-atexit", daemon=True)
            finisher.start()
            finisher.join(EXIT_TIMEOUT)
        os._exit(0)

    if not _is_leaving.is_set():
        _is_leaving.set()
        Thread(target=leave, name="iii-exit", daemon=True).start()


def _run_exit_handlers() -> None:
    import atexit  # only at the very end

    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()


def serve_after_main(serve: Callable[[], None]) -> None:
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
