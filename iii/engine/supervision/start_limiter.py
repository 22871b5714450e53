"""Lets only a few processes start at the same time (`start_order.AT_A_TIME` says why).

A start waits until there is room and until what the worker depends on has come up.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable

from msgspec import Struct

from iii.engine.supervision.start_order import AT_A_TIME


class Ticket(Struct, frozen=True):
    """One queued start. `admitted` becomes true when the start may begin, false if the ticket has left before."""

    can_start: Callable[[], bool]
    admitted: asyncio.Future[bool]


class StartLimiter:
    """A queue of starts: first come, first served, except that starts whose `can_start()` is false are passed over."""

    def __init__(self, places: int = AT_A_TIME) -> None:
        self._places = places
        self._queue: list[Ticket] = []
        self._starting: list[Ticket] = []

    def __repr__(self) -> str:
        return f"<StartLimiter {self._places - len(self._starting)} free, {len(self._queue)} waiting>"

    def enter(self, can_start: Callable[[], bool]) -> Ticket:
        """Queue a start. The caller must `leave` with the ticket when the start is over or no longer wanted."""
        ticket = Ticket(can_start, asyncio.get_running_loop().create_future())
        self._queue.append(ticket)
        self.admit()
        return ticket

    def leave(self, ticket: Ticket) -> None:
        """Free the place of a start, or take it out of the queue if it was not admitted. Leaving twice is harmless."""
        if ticket in self._queue:
            self._queue.remove(ticket)
            ticket.admitted.set_result(False)
        elif ticket in self._starting:
            self._starting.remove(ticket)
            self.admit()

    def admit(self) -> None:
        """Admit as many queued starts as there are free places. Call this when a dependency may have come up."""
        free = self._places - len(self._starting)
        for ticket in [ticket for ticket in self._queue if ticket.can_start()][:free]:
            self._queue.remove(ticket)
            self._starting.append(ticket)
            ticket.admitted.set_result(True)
