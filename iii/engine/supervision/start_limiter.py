"""Lets only a few processes start at the same time.

Interpreters that all start at once are slower than two at a time, and take the processor from the workers that serve
already. A start waits until there is room and until what the worker depends on has come up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from msgspec import Struct

from iii.engine.supervision.start_order import AT_A_TIME


class Ticket(Struct, frozen=True):
    """One queued start. `admitted` becomes true when the start may begin, false if the ticket was given back."""

    can_start: Callable[[], bool]
    admitted: asyncio.Future[bool]


class StartLimiter:
    """A queue of starts: first come, first served, except that starts whose `can_start()` is false are passed over."""

    def __init__(self, places: int = AT_A_TIME) -> None:
        self._free = places
        self._queue: list[Ticket] = []

    def __repr__(self) -> str:
        return f"<StartLimiter {self._free} free, {len(self._queue)} waiting>"

    def enter(self, can_start: Callable[[], bool]) -> Ticket:
        """Queue a start. A caller that is admitted must call `leave` once."""
        ticket = Ticket(can_start, asyncio.get_running_loop().create_future())
        self._queue.append(ticket)
        self.admit()
        return ticket

    def leave(self) -> None:
        """Free the place of a start that is over."""
        self._free += 1
        self.admit()

    def give_back(self, ticket: Ticket) -> None:
        """Take a ticket out of the queue that was not admitted."""
        if ticket in self._queue:
            self._queue.remove(ticket)
            ticket.admitted.set_result(False)

    def admit(self) -> None:
        """Admit as many queued starts as there are free places. Call this when a dependency may have come up."""
        for ticket in [ticket for ticket in self._queue if ticket.can_start()][: self._free]:
            self._queue.remove(ticket)
            self._free -= 1
            ticket.admitted.set_result(True)
