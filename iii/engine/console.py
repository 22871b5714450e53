"""The console of `iii dev`: its address is there at once, its worker is started for the first visitor.

So a start is not later for it, and nobody pays for a page that is not looked at. A project that names
`[workers.console]` has it as any other worker, and nothing is done here but to say where it is.
"""

from __future__ import annotations

import asyncio
import sys
from collections.abc import Callable

from msgspec.structs import replace

from iii.engine.boot.listening_sockets import ListeningSockets
from iii.engine.config.project import LISTENING
from iii.engine.config.spec import ProjectSpec, WorkerSpec
from iii.errors import ProjectError
from iii.one_time_keys import forget_keys, make_key

NAME = "console"


class Console:
    """Where the console of one run is. `is_offered`: also where the project does not name it."""

    def __init__(self, project: ProjectSpec, sockets: ListeningSockets, *, is_offered: bool) -> None:
        self._state_dir = project.state_dir
        self._sockets = sockets
        self._spec: WorkerSpec | None = None
        self._waiting_on = -1
        self._is_started = False
        if is_offered and NAME not in project.workers:
            listen = f"127.0.0.1:{LISTENING[NAME]}"
            spec = WorkerSpec(NAME, project.root, standard=NAME, listen=listen, is_default_listen=True)
            try:
                sockets.descriptor_of(spec, tells_move=False)  # the address is in the head of the screen
            except ProjectError:
                return  # no port is free: the project runs without it
            self._spec = spec

    @property
    def url(self) -> str | None:
        """The address of the page, None without a console."""
        address = self._sockets.address_of(NAME)
        return None if address is None else f"http://{address}"

    def link(self) -> str | None:
        """Return what to show of the address: with a new key in a terminal, without one where lines may be kept."""
        url = self.url
        if url is None:
            return None
        try:
            forget_keys(self._state_dir)
            return f"{url}/#key={make_key(self._state_dir)}" if sys.stdout.isatty() else url
        except OSError:
            return url  # `iii console` says what is wrong with the folder

    def start_for_visitor(self, start: Callable[[], None]) -> None:
        """Call `start` once somebody connects."""

        def on_visitor() -> None:
            self.stop_waiting()
            self._is_started = True
            start()

        if self._spec is not None:
            self._waiting_on = self._sockets.descriptor_of(self._spec) or -1
            asyncio.get_running_loop().add_reader(self._waiting_on, on_visitor)

    def stop_waiting(self) -> None:
        """Leave visitors to the worker."""
        if self._waiting_on >= 0:
            asyncio.get_running_loop().remove_reader(self._waiting_on)
            self._waiting_on = -1

    def added_to(self, project: ProjectSpec) -> ProjectSpec:
        """Return the project with the console among its workers, if it runs although the project does not name it.

        A console that iii.toml has named goes on when it no longer does.
        """
        if NAME in project.workers:
            self.stop_waiting()
            self._is_started = True
        elif self._spec is not None and self._is_started:
            return replace(project, workers={**project.workers, NAME: self._spec})
        return project
