"""The poller of the peers' descriptors: an epoll set inside the event loop.

The event loop watches one descriptor, the epoll set. When it wakes, the poller handles every ready descriptor, turn by
turn, until none is ready; each turn ends with `on_turn`, which writes what the turn produced. Compared to one loop
callback per descriptor, this saves the loop's own work per event and combines the writes of a turn. And uvloop calls
back only once for a connection that was reset: what came before the reset would stay unread, and the connection open.

Spinning. Waking a sleeping process costs more than a call. While calls come and go, the next event is often
microseconds away, so the poller polls again for a moment before it sleeps. It measures whether that pays (on a busy
machine, or with one processor, it does not), and stops spinning for a while when it does not.
"""

from __future__ import annotations

import asyncio
import os
import select
from collections.abc import Callable
from time import perf_counter

Callback = Callable[[], object]

# Longest time for turns before the event loop handles its timers and signals.
_SLICE_TIMEOUT = 0.002
# How long to spin before sleeping: a little more than one hop through a Python worker takes.
_SPIN_TIMEOUT = 60e-6
# Least share of attempts to spin that must find an event (moving average over about 16 attempts).
_MIN_SUCCESS = 0.5
# Sleeps without spinning after the share fell below that.
_SLEEPS_WITHOUT_SPIN = 500
# Events of one poll.
_MAX_EVENTS = 256


class Spin:
    """Decides by its own success whether to poll once more before sleeping."""

    __slots__ = ("_is_possible", "_sleeps_left", "_success")

    def __init__(self, processors: int) -> None:
        self._is_possible = processors > 1
        self._success = 1.0
        self._sleeps_left = 0

    def is_worthwhile(self) -> bool:
        if self._sleeps_left:
            self._sleeps_left -= 1
            return False
        return self._is_possible

    def note(self, *, found: bool) -> None:
        self._success += ((1.0 if found else 0.0) - self._success) / 16
        if self._success < _MIN_SUCCESS:
            self._sleeps_left = _SLEEPS_WITHOUT_SPIN
            self._success = 0.75


class Poller:
    """Calls back when descriptors can be read or written: here by one callback of the event loop per descriptor."""

    def __init__(self, on_turn: Callback) -> None:
        self._on_turn = on_turn
        self._readers: dict[int, Callback] = {}
        self._writers: dict[int, Callback] = {}
        self._loop = asyncio.get_running_loop()

    def add_reader(self, fd: int, callback: Callback) -> None:
        """Call back whenever there is something to read, or the other side has closed."""
        self._readers[fd] = callback
        self._watch(fd)

    def remove_reader(self, fd: int) -> None:
        self._readers.pop(fd, None)
        self._watch(fd)

    def add_writer(self, fd: int, callback: Callback) -> None:
        """Call back whenever there is room to write."""
        self._writers[fd] = callback
        self._watch(fd)

    def remove_writer(self, fd: int) -> None:
        self._writers.pop(fd, None)
        self._watch(fd)

    def close(self) -> None:
        for fd in {*self._readers, *self._writers}:
            self._loop.remove_reader(fd)
            self._loop.remove_writer(fd)

    def _watch(self, fd: int) -> None:
        if fd in self._readers:
            self._loop.add_reader(fd, self._call, self._readers[fd])
        else:
            self._loop.remove_reader(fd)
        if fd in self._writers:
            self._loop.add_writer(fd, self._call, self._writers[fd])
        else:
            self._loop.remove_writer(fd)

    def _call(self, callback: Callback) -> None:
        callback()
        self._on_turn()


class EpollPoller(Poller):
    """An epoll set inside the event loop, with spinning. Linux."""

    def __init__(self, on_turn: Callback) -> None:
        super().__init__(on_turn)
        self._epoll = select.epoll()
        has_affinity = hasattr(os, "sched_getaffinity")
        self._spin = Spin(len(os.sched_getaffinity(0)) if has_affinity else os.cpu_count() or 1)
        self._loop.add_reader(self._epoll.fileno(), self._run)

    def close(self) -> None:
        if not self._epoll.closed:
            self._loop.remove_reader(self._epoll.fileno())
            self._epoll.close()

    def _watch(self, fd: int) -> None:
        mask = (select.EPOLLIN if fd in self._readers else 0) | (select.EPOLLOUT if fd in self._writers else 0)
        try:
            self._epoll.modify(fd, mask)
        except FileNotFoundError:
            self._epoll.register(fd, mask)
        if not mask:
            self._epoll.unregister(fd)

    def _run(self) -> None:
        """Handle ready descriptors, turn by turn, until none is ready or the time slice is over."""
        poll = self._epoll.poll
        readers, writers = self._readers, self._writers
        end = perf_counter() + _SLICE_TIMEOUT
        events = poll(0, _MAX_EVENTS)
        while events:
            for fd, mask in events:
                # An earlier callback of this turn may have removed the descriptor: look it up only now.
                if mask & ~select.EPOLLOUT and (reader := readers.get(fd)) is not None:
                    reader()
                if mask & ~select.EPOLLIN and (writer := writers.get(fd)) is not None:
                    writer()
            self._on_turn()
            if perf_counter() > end:
                return
            # One event at a time means there is time to sleep; several mean that more are on their way.
            events = poll(0, _MAX_EVENTS) if len(events) > 1 else self._spin_for_events()

    def _spin_for_events(self) -> list[tuple[int, int]]:
        """Poll for a moment, if that pays; return the events that it found."""
        if not self._spin.is_worthwhile():
            return []
        poll = self._epoll.poll
        end = perf_counter() + _SPIN_TIMEOUT
        while perf_counter() < end:
            if events := poll(0, _MAX_EVENTS):
                self._spin.note(found=True)
                return events
        self._spin.note(found=False)
        return []


def make_poller(on_turn: Callback) -> Poller:
    """Return the best poller of this system; it calls `on_turn` after every batch of events."""
    return EpollPoller(on_turn) if hasattr(select, "epoll") else Poller(on_turn)
