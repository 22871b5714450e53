"""The message pump between connections and the router: lines in, messages through the router, outboxes out.

Every call passes it twice, there and back: `take` decodes a batch of one peer's lines and gives each message to the
router; `turn` then writes every outbox that got something, once, and hands the router's events to `on_event`. The
pump owns the one timer for the deadlines of all calls. It decides nothing about a message.
"""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from iii.engine.routing.events import Event, PeerExpelled
from iii.engine.routing.invocation import TICK
from iii.engine.routing.peer import Peer
from iii.engine.routing.router import Router
from iii.errors import ErrorCode, RemoteProtocolError
from iii.protocol.codec import NotAMessage, UnknownType, invocation_id_in
from iii.protocol.lines import Oversized

# Seconds that the deadline timer may be late; beyond that, the engine was blocked or suspended.
STALL_THRESHOLD = 0.25
# Time to read the answers that came in meanwhile before calls are expired: one poll of the event loop.
CATCH_UP_TIMEOUT = 0.02
# Bytes from which on decoding a line takes longer than to look first whether it will be dropped.
LONG_LINE = 4096
# How often a paused deadline timer looks whether it may run again.
_PAUSED_INTERVAL = 1.0


class MessagePump:
    """Runs the router against real connections.

    `on_event(event)` gets the router's events, `on_output(peer, line)` each line that is no message: a program printed
    it on its stdout.
    """

    def __init__(
        self, router: Router, *, on_event: Callable[[Event], None], on_output: Callable[[Peer, bytes], None]
    ) -> None:
        self.router = router
        self._on_event = on_event
        self._on_output = on_output
        self._loop = asyncio.get_running_loop()
        self._clock = self._loop.time
        self._timer: asyncio.TimerHandle | None = None
        self._is_timer_far = False
        self._due_at = 0.0
        self.are_deadlines_paused = False  # while a debugger is attached

    def take(self, peer: Peer, lines: Sequence[bytes | Oversized]) -> None:
        """Route a batch of lines of one peer, in order. The caller then ends its turn with `turn`."""
        receive = self.router.receive
        decode = peer.decode
        now = peer.heard_at = self._clock()
        for line in lines:
            if type(line) is not bytes:
                self._on_oversized_line(peer, line)  # type: ignore[arg-type]
                continue
            if len(line) > LONG_LINE and self.router.drops_unread(line):
                continue
            try:
                receive(peer, decode(line), line, now)
            except NotAMessage:
                self._on_output(peer, line)
            except RemoteProtocolError as error:
                if isinstance(error, UnknownType) and error.invocation_id is None:
                    self.router.calls.counters["unknown_type"] += 1
                else:
                    self.router.calls.refuse(peer, error)
            except Exception as error:  # noqa: BLE001 - the wire's boundary: a bug costs the peer that met it
                self._expel(peer, error)

    def turn(self) -> None:
        """Finish a turn: write outboxes, hand out events, keep the deadline timer armed."""
        calls = self.router.calls
        while calls.dirty or calls.events:
            dirty, calls.dirty = calls.dirty, []
            for peer in dirty:
                try:
                    peer.flush()
                except Exception as error:  # noqa: BLE001 - the other peers' lines still go out
                    self._expel(peer, error)
            events = calls.events[:]
            calls.events.clear()
            for event in events:
                self._on_event(event)
        if self._timer is None:
            if len(calls.deadlines):
                self._arm()
        elif self._is_timer_far and calls.deadlines.unsorted:
            # A new call may have an earlier deadline than the one the timer waits for.
            self._timer.cancel()
            self._arm()

    def _arm(self) -> None:
        now = self._clock()
        wait = self.router.calls.deadlines.wait(now)
        if wait is not None:
            self._is_timer_far = wait > TICK
            self._due_at = now + wait
            self._timer = self._loop.call_later(wait, self._expire)

    def _expire(self) -> None:
        self._timer = None
        if self.are_deadlines_paused:
            self._timer = self._loop.call_later(_PAUSED_INTERVAL, self._expire)
            return
        now = self._clock()
        if now - self._due_at > STALL_THRESHOLD:
            # The engine stood still, and the answers of that time have not been read yet: they come first.
            self._due_at = now + CATCH_UP_TIMEOUT
            self._timer = self._loop.call_later(CATCH_UP_TIMEOUT, self._expire)
            return
        self.router.calls.expire(now)
        self.turn()

    def _expel(self, peer: Peer, error: Exception) -> None:
        """Log a bug of the engine in full, and expel the peer that it served."""
        context = {"message": f"internal error while serving {peer.name or peer.id}", "exception": error}
        self._loop.call_exception_handler(context)
        self.router.calls.events.append(PeerExpelled(peer, "met an internal error of the engine"))

    def _on_oversized_line(self, peer: Peer, line: Oversized) -> None:
        """Answer an over-long line with an error if it shows an invocation id; expel its peer otherwise."""
        message = f"a line of {line.size} bytes is over the limit; send large data through a channel"
        invocation_id = invocation_id_in(line.head)
        error = RemoteProtocolError(ErrorCode.PAYLOAD_TOO_LARGE, message, invocation_id=invocation_id)
        self.router.calls.refuse(peer, error)
        if invocation_id is None:
            self.router.calls.events.append(PeerExpelled(peer, f"wrote {message}"))

    def close(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
