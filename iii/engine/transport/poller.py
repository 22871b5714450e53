"""Readiness of the peers' descriptors, on a poll set of its own inside the event loop.

The event loop watches one descriptor: the poll set. When it wakes, everything that is ready is handled here, turn by
turn, until nothing is; each turn ends with `on_turn`, which writes what the turn produced. Compared to one loop
callback per descriptor this saves the loop's own work per event, and lets the writes of a whole turn be combined.

Spinning. Waking a sleeping process costs more than a call does. While calls come and go, the next event is often
microseconds away: the poller then looks again for a moment before it goes to sleep. It keeps count of whether that
pays (on a busy machine, or with one processor, it does not) and stops for a while when it does not.
"""

from __future__ import annotations

import asyncio
import os
import select
from collections.abc import Callable
from time import perf_counter
from typing import Protocol

Callback = Callable[[], None]

# Longest time in here before the event loop may see to its timers and signals.
_SLICE = 0.002
# How long to look for the next event before sleeping. A little above one hop through a Python worker.
_SPIN = 60e-6
# Spinning goes on while at least this share of it finds something (moving average over about 16 attempts).
_WORTHWHILE = 0.5
# After it did not pay: this many sleeps until it is tried again.
_REST = 500
_EVENTS = 256


class Spin:
    """Whether to look once more before sleeping, decided by its own success."""

    __slots__ = ("_is_possible", "_resting", "_success")

    def __init__(self, processors: int) -> None:
        self._is_possible = processors > 1
        self._success = 1.0
        self._resting = 0

    def is_worthwhile(self) -> bool:
        """Whether to spin now."""
        if not self._is_possible:
            return False
        if self._resting:
            self._resting -= 1
            return False
        return True

    def note(self, *, found: bool) -> None:
        """Take the outcome of one attempt."""
        self._success += ((1.0 if found else 0.0) - self._success) / 16
        if self._success < _WORTHWHILE:
            self._resting = _REST
            self._success = 0.75


class Poller(Protocol):
    """Calls back when descriptors can be read or written. Runs on the event loop's thread."""

    def add_reader(self, fd: int, callback: Callback) -> None:
        """Call back whenever there is something to read, or the other side has closed."""

    def remove_reader(self, fd: int) -> None:
        """Undo `add_reader`."""

    def add_writer(self, fd: int, callback: Callback) -> None:
        """Call back whenever there is room to write."""

    def remove_writer(self, fd: int) -> None:
        """Undo `add_writer`."""

    def close(self) -> None:
        """Stop watching everything."""


def make_poller(on_turn: Callback) -> Poller:
    """Return the best poller of this system; it calls `on_turn` after every batch of events."""
    return EpollPoller(on_turn) if hasattr(select, "epoll") else LoopPoller(on_turn)


class LoopPoller:
    """The event loop's own callbacks, one a descriptor: where there is no epoll."""

    def __init__(self, on_turn: Callback) -> None:
        self._loop = asyncio.get_running_loop()
        self._on_turn = on_turn
        self._readers: set[int] = set()
        self._writers: set[int] = set()

    def add_reader(self, fd: int, callback: Callback) -> None:
        """Call back whenever there is something to read, or the other side has closed."""
        self._readers.add(fd)
        self._loop.add_reader(fd, self._run, callback)

    def remove_reader(self, fd: int) -> None:
        """Undo `add_reader`."""
        self._readers.discard(fd)
        self._loop.remove_reader(fd)

    def add_writer(self, fd: int, callback: Callback) -> None:
        """Call back whenever there is room to write."""
        self._writers.add(fd)
        self._loop.add_writer(fd, self._run, callback)

    def remove_writer(self, fd: int) -> None:
        """Undo `add_writer`."""
        self._writers.discard(fd)
        self._loop.remove_writer(fd)

    def close(self) -> None:
        """Stop watching everything."""
        for fd in list(self._readers):
            self.remove_reader(fd)
        for fd in list(self._writers):
            self.remove_writer(fd)

    def _run(self, callback: Callback) -> None:
        callback()
        self._on_turn()


class EpollPoller:
    """A poll set inside the event loop, with spinning. Linux."""

    def __init__(self, on_turn: Callback) -> None:
        self._loop = asyncio.get_running_loop()
        self._epoll = select.epoll()
        self._readers: dict[int, Callback] = {}
        self._writers: dict[int, Callback] = {}
        self._on_turn = on_turn
        self._spin = Spin(_processors())
        self._loop.add_reader(self._epoll.fileno(), self._run)

    def add_reader(self, fd: int, callback: Callback) -> None:
        """Call back whenever there is something to read, or the other side has closed."""
        self._readers[fd] = callback
        self._set(fd)

    def remove_reader(self, fd: int) -> None:
        """Undo `add_reader`."""
        self._readers.pop(fd, None)
        self._set(fd)

    def add_writer(self, fd: int, callback: Callback) -> None:
        """Call back whenever there is room to write."""
        self._writers[fd] = callback
        self._set(fd)

    def remove_writer(self, fd: int) -> None:
        """Undo `add_writer`."""
        self._writers.pop(fd, None)
        self._set(fd)

    def close(self) -> None:
        """Stop watching everything."""
        if not self._epoll.closed:
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()

    def _set(self, fd: int) -> None:
        mask = (select.EPOLLIN if fd in self._readers else 0) | (select.EPOLLOUT if fd in self._writers else 0)
        try:
            self._epoll.modify(fd, mask)
        except FileNotFoundError:
            self._epoll.register(fd, mask)
        if not mask:
            self._epoll.unregister(fd)

    def _run(self) -> None:
        """Handle what is ready, turn by turn, until nothing is or the slice is over."""
        poll = self._epoll.poll
        dispatch = self._dispatch
        end = perf_counter() + _SLICE
        events = poll(0, _EVENTS)
        while events:
            for fd, mask in events:
                dispatch(fd, mask)
            self._on_turn()
            if perf_counter() > end:
                return
            # One event at a time means there is time to sleep; several mean that more are on their way.
            events = poll(0, _EVENTS) if len(events) > 1 else self._look_again()

    def _dispatch(self, fd: int, mask: int) -> None:
        # A callback may have removed another descriptor of the same turn: look each one up when its turn comes.
        if mask & ~select.EPOLLOUT:
            reader = self._readers.get(fd)
            if reader is not None:
                reader()
        if mask & ~select.EPOLLIN:
            writer = self._writers.get(fd)
            if writer is not None:
                writer()

    def _look_again(self) -> list[tuple[int, int]]:
        """Spin for a moment, if that pays; return what became ready."""
        if not self._spin.is_worthwhile():
            return []
        poll = self._epoll.poll
        end = perf_counter() + _SPIN
        while perf_counter() < end:
            events = poll(0, _EVENTS)
            if events:
                self._spin.note(found=True)
                return events
        self._spin.note(found=False)
        return []


def _processors() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
