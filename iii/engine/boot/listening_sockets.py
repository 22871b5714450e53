"""The sockets that workers listen on: opened here, and handed to each process of a worker as a descriptor.

So that a worker's next process listens on the very socket of the one before, and no connection is refused between them.
A socket is closed when its worker will not serve any more.
"""

from __future__ import annotations

from iii.engine.config.spec import WorkerSpec
from iii.engine.transport.tcp_address import Address, Opened


class ListeningSockets:
    """One socket for each worker that has `listen`. `opened` finds sockets that the service manager has opened."""

    def __init__(self, opened: Opened) -> None:
        self._opened_before = opened
        self._open: dict[str, tuple[str, Address]] = {}  # by the worker's name: what it asked for, and what it got
        self._moves: list[str] = []

    def descriptor_of(self, spec: WorkerSpec, *, tells_move: bool = True) -> int | None:
        """Return the descriptor for a worker, None if it has no `listen`. Raises ProjectError for a port that is taken.

        `tells_move`: a default port that is taken, and the one in its place, are of interest.

        While a changed address cannot be had, the old one stays open: the old process still serves on it.
        """
        if spec.listen is None:
            return None
        listen, address = self._open.get(spec.name, ("", None))
        if address is None or listen != spec.listen:
            line = 0 if spec.is_default_listen else spec.line or 1
            opened = Address(spec.listen, line=line, opened=self._opened_before)
            opened.socket.setblocking(True)  # as programs expect it of a descriptor they are given
            self.close(spec.name)
            address = opened
            self._open[spec.name] = spec.listen, opened
            if opened.is_moved and tells_move:
                self._moves.append(f"{spec.listen} is taken: {spec.name} listens on {opened} instead")
        return address.socket.fileno()

    def address_of(self, worker: str) -> Address | None:
        """Return where a worker's socket listens, None if it has none."""
        return self._open[worker][1] if worker in self._open else None

    def take_moves(self) -> list[str]:
        """Return, once, what is to be said of default ports that were taken."""
        moves, self._moves = self._moves, []
        return moves

    def close(self, worker: str) -> None:
        """Let go of a worker's socket, if it has one. A process that still runs has a descriptor of its own."""
        if worker in self._open:
            self._open.pop(worker)[1].socket.close()
