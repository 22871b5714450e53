"""When a worker is ready, and which files of the project it has imported.

A worker is ready at the earliest of three events: its script's body has ended, `worker.ready()` was called, or the
body is parked, which means that it ends in a loop or a wait: it has registered nothing for a while, and its main
thread sleeps at the same place as before and is not importing. A main thread that waits for a processor would go on;
it is not parked. The engine watches the files to reload the worker; it gets them with `ready`, and again when more
have been imported.
"""

from __future__ import annotations

import os
import sys
from threading import Event, Lock, main_thread
from time import monotonic

from iii.worker.context.python_logging import show_logging

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from iii.worker.codec.codec import Message
    from iii.worker.runtime.import_record import ImportRecord

# A script that registers one function after the other pauses less than this between them. Also how often the main
# thread is looked at.
REGISTRATION_DEBOUNCE = 0.05
# A main thread that has registered nothing for so long and is never found asleep does work of its own; ready does not
# wait for its end. A script that has registered nothing at all is given as long: it may wait for a database first.
PARKED_TIMEOUT = 1.0


class Readiness:
    """Sends `ready` once, and again whenever the worker has imported more files.

    `imports` is the launcher's record of them, None for a script started by hand. `module_count` is what
    `len(sys.modules)` was when the record was last looked at, -1 if an import has looked for something in vain since.
    """

    def __init__(self, send: Callable[[Message], None], imports: ImportRecord | None) -> None:
        self._send = send
        self._imports = imports
        self._lock = Lock()
        self._told: Message = {}
        self._registered_at = monotonic()
        self._debounce = PARKED_TIMEOUT
        self.module_count = 0
        self.lingers = False
        self.announced = Event()
        if imports is not None:
            imports.on_missing = self._on_missing

    def touch(self) -> None:
        """Note a registration: the debounce starts anew."""
        self._registered_at = monotonic()
        self._debounce = REGISTRATION_DEBOUNCE

    def announce(self) -> None:
        with self._lock:
            if not self.announced.is_set():
                self._send_ready()
                self.announced.set()

    def announce_when_parked(self) -> None:
        """Block until `ready` was sent, and send it once the script's body is parked."""
        previous = None
        while not self.announced.wait(REGISTRATION_DEBOUNCE):
            place = main_thread_place()
            quiet = monotonic() - self._registered_at
            is_parked = place == previous and quiet >= self._debounce and is_asleep(main_thread().native_id)
            if place is not None and (is_parked or quiet >= PARKED_TIMEOUT):
                self.announce()
            previous = place

    def refresh(self) -> None:
        """Send the files again if modules of the project have been imported since, and `ready` was sent."""
        if self.announced.is_set():
            with self._lock:
                self.module_count = len(sys.modules)
                if self._imports is not None and _facts_of(self._imports) != self._told:
                    self._send_ready()

    def _send_ready(self) -> None:
        self.module_count = len(sys.modules)
        # `vouches`: an encoder writes all our lines, the payload last, so the engine need not parse the payload.
        message: Message = {"type": "ready", "vouches": True}
        if self.lingers:
            message["lingers"] = True
        if os.environ.get("III_PROJECT"):
            show_logging()
        if self._imports is not None:
            self._told = _facts_of(self._imports)
            message |= self._told
        self._send(message)

    def _on_missing(self) -> None:
        self.module_count = -1


def _facts_of(imports: ImportRecord) -> Message:
    """Return what a record says: files that were found, digests of those that were compiled, paths without a file."""
    missing = imports.missing()  # first: it may look for more
    files = imports.files()
    return {
        "files": files,
        "digests": {file: imports.digests[file] for file in files if file in imports.digests},
        **({"missing": missing} if missing else {}),
    }


def is_asleep(thread: int | None) -> bool:
    """Tell whether the kernel has the thread with this native id waiting; True where the kernel does not say.

    A thread that waits for a processor, or for the disk to give it the next page of code, is not asleep.
    """
    try:
        with open(f"/proc/self/task/{thread}/stat", "rb") as stat:
            return stat.read().rpartition(b") ")[2][:1] == b"S"
    except OSError:
        return True


def main_thread_place() -> tuple[object, ...] | None:
    """Return the code and instruction of each frame of the main thread; None while it imports: more code follows."""
    frame = sys._current_frames().get(main_thread().ident or 0)
    place: list[object] = []
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return None
        place += (frame.f_code, frame.f_lasti)
        frame = frame.f_back
    return tuple(place)
