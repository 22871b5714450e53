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
    from collections.abc import Callable, Mapping
    from typing import Any

    from iii.worker.codec.codec import Message

# A script that registers one function after the other pauses less than this between them. Also how often the main
# thread is looked at.
REGISTRATION_DEBOUNCE = 0.05
# A main thread that has registered nothing for so long and is never found asleep does work of its own; ready does not
# wait for its end. A script that has registered nothing at all is given as long: it may wait for a database first.
PARKED_TIMEOUT = 1.0
# Folders of installed or generated code inside a project.
FOREIGN_FOLDERS = (".venv", "site-packages", ".iii")


class Readiness:
    """Sends `ready` once, and again whenever the worker has imported more files of the project.

    `project` is the project's folder, empty outside of one. `module_count` is what `len(sys.modules)` was when the
    files were last looked for.
    """

    def __init__(self, send: Callable[[Message], None], project: str) -> None:
        self._send = send
        self._project = project
        self._lock = Lock()
        self._files: list[str] = []
        self._registered_at = monotonic()
        self._debounce = PARKED_TIMEOUT
        self.module_count = 0
        self.lingers = False
        self.announced = Event()

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
                if find_project_files(sys.modules, self._project) != self._files:
                    self._send_ready()

    def _send_ready(self) -> None:
        self.module_count = len(sys.modules)
        # `vouches`: an encoder writes all our lines, the payload last, so the engine need not parse the payload.
        message: Message = {"type": "ready", "vouches": True}
        if self.lingers:
            message["lingers"] = True
        if self._project:
            show_logging()
            self._files = message["files"] = find_project_files(sys.modules, self._project)
        self._send(message)


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


def _file_of(module: Any) -> Any:
    # Not by `getattr`: a lazy module runs code of its own then, which imports or raises.
    try:
        return object.__getattribute__(module, "__dict__").get("__file__")
    except AttributeError:
        return None


def find_project_files(modules: Mapping[str, Any], project: str) -> list[str]:
    """Return the real paths of all module files under `project`, sorted, installed packages left out."""
    if not project:
        return []
    root = os.path.realpath(project).rstrip(os.sep) + os.sep
    files = set()
    for module in list(modules.values()):
        file = _file_of(module)
        # Most modules are the interpreter's: compare strings first, resolving links costs system calls.
        if isinstance(file, str) and (file.startswith((root, project)) or not os.path.isabs(file)):
            files.add(os.path.realpath(file))
    return sorted(
        path
        for path in files
        if path.startswith(root) and not set(FOREIGN_FOLDERS) & set(path[len(root) :].split(os.sep))
    )
