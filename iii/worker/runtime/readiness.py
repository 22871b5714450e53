"""When a worker is ready, and which files it is made of.

Ready is the earliest of: the script's body has ended, `worker.ready()` was called, or the body is parked: it has
registered nothing for a while and its main thread sleeps where it slept (it ends in a loop), importing nothing. A
main thread that stands because it gets no processor would go on, so it is not parked. Files are sent again when more
have been imported since.

MERGED: The project's own files that this process has imported: what the engine watches to reload it.

Pure over a table of modules; the worker calls it at `ready` and again when more modules have appeared.
"""

from __future__ import annotations

import os
import sys
from threading import Event, Lock, main_thread
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from iii.worker.codec.codec import Message

# A script that registers its functions one after the other never pauses for so long between them.
QUIET_SECONDS = 0.05
# A main thread that registers nothing for so long and never stands still works on its own; it is not asked to stop.
# And one that has registered nothing at all may wait for something it needs first, such as a database.
PATIENCE = 1.0


class Readiness:
    """Sends `ready`, once, and its files again when they have grown."""

    def __init__(self, send: Callable[[Message], None], project: str) -> None:
        self._send = send
        self._project = project
        self._lock = Lock()
        self._modules = 0
        self._files: list[str] = []
        self.lingers = False
        self._touched = monotonic()
        self._quiet_seconds = PATIENCE
        self.announced = Event()

    def touch(self) -> None:
        """Note a registration: the quiet period starts anew."""
        self._touched = monotonic()
        self._quiet_seconds = QUIET_SECONDS

    def announce(self) -> None:
        """Send `ready` unless it has been sent."""
        with self._lock:
            if not self.announced.is_set():
                self._send_files()
                self.announced.set()

    def announce_when_quiet(self) -> None:
        """Block until `ready` was sent, and send it once the body is parked."""
        before = None
        while not self.announced.wait(QUIET_SECONDS):
            place = main_thread_place()
            quiet = monotonic() - self._touched
            is_parked = place == before and quiet >= self._quiet_seconds and is_asleep(main_thread().native_id)
            if place is not None and (is_parked or quiet >= PATIENCE):
                self.announce()
            before = place

    def refresh(self) -> None:
        """Send the files again if modules have been imported since. Costs one comparison when none were."""
        if len(sys.modules) == self._modules or not self.announced.is_set():
            return
        with self._lock:
            known = self._files
            self._modules = len(sys.modules)
            if find_project_files(sys.modules, self._project) != known:
                self._send_files()

    def _send_files(self) -> None:
        self._modules = len(sys.modules)
        # An encoder writes all our lines, the payload last: the engine need not read it.
        message: Message = {"type": "ready", "vouches": True}
        if self.lingers:
            message["lingers"] = True
        if self._project:
            self._files = message["files"] = find_project_files(sys.modules, self._project)
        self._send(message)


def is_asleep(thread: int | None) -> bool:
    """Tell whether the kernel has this thread waiting for something; True where the kernel does not say.

    A thread that waits for a processor, or for the disk to give it the next page of code, is not asleep.
    """
    try:
        with open(f"/proc/self/task/{thread}/stat", "rb") as stat:
            return stat.read().rpartition(b") ")[2][:1] == b"S"
    except OSError:
        return True


def main_thread_place() -> tuple[object, ...] | None:
    """Return where the main thread stands now; None while it imports, which always ends in more code."""
    frame = sys._current_frames().get(main_thread().ident or 0)
    place: list[object] = []
    while frame is not None:
        if frame.f_code.co_filename.startswith("<frozen importlib"):
            return None
        place += (frame.f_code, frame.f_lasti)
        frame = frame.f_back
    return tuple(place)


TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Mapping
    from typing import Any

# Folders of installed or generated code inside a project.
FOREIGN = (".venv", "site-packages", ".iii")


def find_project_files(modules: Mapping[str, Any], project: str) -> list[str]:
    """Return the real paths of all module files under `project`, sorted, installed packages left out."""
    if not project:
        return []
    root = os.path.realpath(project).rstrip(os.sep) + os.sep
    found = set()
    for module in list(modules.values()):
        file = getattr(module, "__file__", None)
        # Most modules are the interpreter's: a cheap look first, resolving links costs system calls.
        if isinstance(file, str) and (file.startswith((root, project)) or not os.path.isabs(file)):
            found.add(os.path.realpath(file))
    return sorted(path for path in found if path.startswith(root) and not _is_foreign(path[len(root) :]))


def _is_foreign(relative: str) -> bool:
    return any(part in FOREIGN for part in relative.split(os.sep))
