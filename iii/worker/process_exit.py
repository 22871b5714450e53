"""The end of a worker's process, which belongs to whoever holds the other end of its wire.

When the wire ends, or the engine has asked for a stop, the process must go, whatever user threads do. `atexit`
handlers and buffered output get their chance, for a moment.
"""

from __future__ import annotations

import os
import sys
import threading
from threading import Event, Thread

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

# For `atexit` handlers and threads that are about to end; nobody waits for results any more.
GRACE_SECONDS = 0.5


class ProcessExit:
    """Ends the process. `serving` is set while the main thread only serves and will return by itself."""

    def __init__(self, exit_process: Callable[[int], None] = os._exit) -> None:
        self._exit = exit_process
        self._gone = Event()
        self.serving = Event()

    def leave(self, *, main_returns: bool) -> None:
        """End the process with code 0 within the grace period. Returns at once; safe to call twice.

        `main_returns`: the main thread is about to end the interpreter the usual way, unless a user thread keeps it.
        """
        if not self._gone.is_set():
            self._gone.set()
            Thread(target=self._end, args=(main_returns,), name="iii-exit", daemon=True).start()

    def _end(self, main_returns: bool) -> None:
        if main_returns:
            Event().wait(GRACE_SECONDS)
        else:
            finisher = Thread(target=_run_exit_handlers, name="iii-atexit", daemon=True)
            finisher.start()
            finisher.join(GRACE_SECONDS)
        self._exit(0)


def _run_exit_handlers() -> None:
    import atexit  # only at the very end

    atexit._run_exitfuncs()
    for stream in (sys.stdout, sys.stderr):
        if stream is not None:
            stream.flush()


def serve_after_main(serve: Callable[[], None]) -> None:
    """Without the launcher: serve on the main thread once the script's body has ended, until Ctrl-C or the end."""
    # Python ends executors right after the body: theirs is registered first, so that ours runs before it, and
    # handlers may go on to use threads.
    import concurrent.futures.thread  # noqa: F401 - scripts started by hand only

    def work() -> None:
        # Python notes an uncaught exception here: then the script has failed and the process shall end.
        if getattr(sys, "last_value", None) is None:
            try:
                serve()
            except KeyboardInterrupt:
                return  # Ctrl-C is how a script run by hand is meant to end

    threading._register_atexit(work)  # type: ignore[attr-defined]  # what executors themselves use
