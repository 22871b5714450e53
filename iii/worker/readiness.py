"""When a worker is ready, and which files it is made of.

Ready is the earliest of: the script's body has ended, `worker.ready()` was called, or the body still runs but has
registered nothing for a while (it ends in a loop). Files are sent again when more have been imported since.
"""

from __future__ import annotations

import sys
from threading import Event, Lock
from time import monotonic

from iii.worker.imports import find_project_files

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable

    from iii.worker.json_codec import Message

# A script that registers its functions one after the other never pauses for so long between them.
QUIET_SECONDS = 0.05


class Readiness:
    """Sends `ready`, once, and its files again when they have grown."""

    def __init__(self, send: Callable[[Message], None], project: str) -> None:
        self._send = send
        self._project = project
        self._lock = Lock()
        self._modules = 0
        self._files: list[str] = []
        self._touched = monotonic()
        self.announced = Event()

    def touch(self) -> None:
        """Note a registration: the quiet period starts anew."""
        self._touched = monotonic()

    def announce(self) -> None:
        """Send `ready` unless it has been sent."""
        with self._lock:
            if not self.announced.is_set():
                self._send_files()
                self.announced.set()

    def announce_when_quiet(self) -> None:
        """Block until `ready` was sent, and send it after the quiet period."""
        while not self.announced.wait(max(0.0, self._touched + QUIET_SECONDS - monotonic())):
            if monotonic() - self._touched >= QUIET_SECONDS:
                self.announce()

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
        message: Message = {"type": "ready"}
        if self._project:
            self._files = message["files"] = find_project_files(sys.modules, self._project)
        self._send(message)
