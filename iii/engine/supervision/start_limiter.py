"""Lets only a few processes start at the same time.

Interpreters that all start at once are slower than two at a time, and starve the workers that serve
meanwhile. A start waits until there is room and what it depends on has come up. Used by `generation.py`.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from msgspec import Struct

from iii.engine.supervision.start_order import AT_A_TIME


class Ticket(Struct, frozen=True):
    """A place in the queue: `admitted` becomes true when it is its turn, false if it was given back."""

    can_start: Callable[[], bool]
    admitted: asyncio.Future[bool]


class Gate:
    """A queue of starts, in order, except that those which cannot start yet are passed over."""

    def __init__(self, places: int = AT_A_TIME) -> None:
        self._free = places
        self._queue: list[Ticket] = []

    def __repr__(self) -> str:
        return f"<Gate {self._free} free, {len(self._queue)} waiting>"

    def enter(self, can_start: Callable[[], bool]) -> Ticket:
        """Queue up. Whoever is admitted calls `leave` once."""
        ticket = Ticket(can_start, asyncio.get_running_loop().create_future())
        self._queue.append(ticket)
        self.admit()
        return ticket

    def leave(self) -> None:
        """Give the place to the next."""
        self._free += 1
        self.admit()

    def give_back(self, ticket: Ticket) -> None:
        """Leave the queue without having been admitted."""
        if ticket in self._queue:
            self._queue.remove(ticket)
            ticket.admitted.set_result(False)

    def admit(self) -> None:
        """Admit whom there is room for. Call it when a dependency may have come up."""
        for ticket in [ticket for ticket in self._queue if ticket.can_start()][: self._free]:
            self._queue.remove(ticket)
            self._free -= 1
            ticket.admitted.set_result(True)
