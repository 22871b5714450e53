"""The lazy leader: one thread at a time reads the wire, and runs sync handlers itself.

Handing a call to another thread costs more than the call. So the leader offers its token while a handler runs, and
the monitor, a second thread, takes it only when the same handler still runs after a millisecond. Who holds the token
reads; holding is having popped it from a one-element list, which is atomic. A handler that blocks in `trigger` takes
its own token back and reads until its result is there. Handlers known to be slow get the token moved before they
start. Results are written once per batch. The hot loop lives here alone; what messages mean is `Receiver`'s.
"""

from __future__ import annotations

from collections import deque
from threading import Event, Lock, get_ident
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from typing import Any

    from iii.errors import RemoteProtocolError
    from iii.worker.calls import Call
    from iii.worker.crew import Crew
    from iii.worker.handlers import Handler
    from iii.worker.intake import Intake
    from iii.worker.json_codec import Message
    from iii.worker.outbox import Outbox
    from iii.worker.transport import Transport

# A handler that still runs after this may run for long: somebody else reads from then on.
PATIENCE = 0.001
# Results of a batch wait for the batch's end, but no longer than this.
MAX_HOLD = 0.0002
# The monitor sleeps for good after so many looks at an idle leader: an idle worker must not wake up.
IDLE_LOOKS = 20


class Receiver:
    """What the dispatcher hands messages to. `worker.py` has the real one."""

    def settle(self, message: Message) -> int:
        """Take an `invocationresult`; return the thread that waited for it if nobody waits any more, else 0."""
        raise NotImplementedError

    def find_inline(self, message: Message) -> Handler | None:
        """Return the sync handler this message asks to run, None when `receive` shall have it."""
        raise NotImplementedError

    def run(self, handler: Handler, message: Message) -> None:
        """Run a sync handler and add its result to the outbox."""
        raise NotImplementedError

    def refuse(self, message: Message) -> None:
        """Answer that no thread is left."""
        raise NotImplementedError

    def receive(self, message: Message | RemoteProtocolError) -> None:
        """Take any other message; must not block."""
        raise NotImplementedError

    def wake(self) -> None:
        """A block has been read: hand what it settled to waiting event loops."""
        raise NotImplementedError

    def ended(self) -> None:
        """The wire has ended."""
        raise NotImplementedError


class Dispatcher:
    """Moves the token between threads and turns bytes into handler runs."""

    def __init__(self, transport: Transport, intake: Intake, outbox: Outbox, crew: Crew, receiver: Receiver) -> None:
        self._transport = transport
        self._feed = intake.feed
        self._outbox = outbox
        self._crew = crew
        self._receiver = receiver
        self._inbox: deque[Any] = deque()
        # The thread that makes the worker runs user code: it owns the token and has offered it.
        self._token: list[None] = [None]
        self._owner = get_ident()
        self._turns = 0
        self._running: Handler | None = None
        self._is_unwatched = True
        self._alarm = Lock()
        self._alarm.acquire()
        self._has_monitor = False
        self._stamp = 0.0
        self._settled = 0.0
        self._waiter = 0
        self.ended = Event()

    # The token

    def _offer(self) -> bool:
        self._turns += 1
        self._token.append(None)
        if self._is_unwatched and not self._rouse():
            # Nobody could take over from a handler that blocks: do not run one. (Taken meanwhile is fine.)
            return not self._take()
        return True

    def _take(self) -> bool:
        try:
            self._token.pop()
        except IndexError:
            return False
        self._owner = get_ident()
        return True

    def _take_back(self) -> bool:
        return self._owner == get_ident() and self._take()

    def _pass_on(self) -> bool:
        # Nobody owns the token in between: the new thread must not find it taken.
        return self._crew.run(self._lead_anew)

    def _lead_anew(self) -> None:
        self._owner = get_ident()
        self._lead()

    # The monitor

    def watch(self) -> None:
        """Make sure that a thread takes over reading when the token's owner is busy for long."""
        if self._is_unwatched:
            self._rouse()

    def _rouse(self) -> bool:
        self._is_unwatched = False
        if self._has_monitor:
            self._ring()
            return True
        # Noted first: the monitor may have taken over, and be none any more, before `run` returns.
        self._has_monitor = True
        if self._crew.run(self._monitor):
            return True
        self._has_monitor = False
        self._is_unwatched = True
        return False

    def _ring(self) -> None:
        try:
            self._alarm.release()
        except RuntimeError:
            # Two threads ring at once: it is awake.
            return

    def _monitor(self) -> None:
        seen, idle = -1, 0
        while not self.ended.is_set():
            self._alarm.acquire(timeout=PATIENCE)
            if self._turns != seen:
                seen, idle = self._turns, 0
            elif self._token:
                if self._take():
                    self._take_over()
                    return
            elif idle < IDLE_LOOKS:
                idle += 1
            else:
                idle = 0
                self._rest()
        self._has_monitor = False

    def _rest(self) -> None:
        self._is_unwatched = True
        # An offer made just before the flag was set has not seen it.
        if not self._token:
            self._alarm.acquire()
        elif self._is_unwatched:
            self._is_unwatched = False

    def _take_over(self) -> None:
        if self._running is not None:
            self._running.is_slow = True
        self._has_monitor = False
        self._is_unwatched = True
        self._lead()

    # The leader

    def lead(self) -> None:
        """Read and dispatch on this thread if it owns the token; return when another thread does, or at the end."""
        if self._take_back():
            self._lead()

    def _lead(self) -> None:
        inbox = self._inbox
        while not self.ended.is_set():
            while inbox:
                if not self._turn(inbox.popleft()):
                    return
            self._outbox.flush()
            self._fill(None)
            if self._waiter and self._give_back():
                return

    def _give_back(self) -> bool:
        """Offer the token to a thread that makes one call after the other: it reads for itself then."""
        waiter, self._waiter = self._waiter, 0
        since, self._settled = self._stamp - self._settled, self._stamp
        if since > PATIENCE or self._inbox:
            return False
        self._owner = waiter
        self._running = None
        self._offer_again()
        return True

    def _fill(self, timeout: float | None) -> bool:
        try:
            data = self._transport.read(timeout)
        except OSError:
            data = b""
        if data is None:
            return False
        if not data:
            self.end()
            return True
        settle = self._receiver.settle
        self._waiter = 0
        for message in self._feed(data):
            kind = message.get("type") if isinstance(message, dict) else None
            if kind == "invocationresult":
                self._waiter = settle(message)  # type: ignore[arg-type]  # only dicts have a kind
            elif kind == "invocationitem":
                # Now, not in its turn: it must not come after the result.
                self._receiver.receive(message)
            else:
                self._inbox.append(message)
        self._receiver.wake()
        self._stamp = monotonic()
        return True

    def _turn(self, message: Any) -> bool:
        """Handle one message; False when this thread is no longer the leader."""
        handler = self._receiver.find_inline(message) if message.__class__ is dict else None
        if handler is None:
            self._receiver.receive(message)
            return True
        if handler.is_slow:
            return self._run_slow(handler, message)
        self._running = handler
        if not self._offer():
            self._receiver.refuse(message)
            return True
        self._receiver.run(handler, message)
        if not self._take_back():
            self._outbox.flush()
            return False
        self._note_time(handler)
        return True

    def _note_time(self, handler: Handler) -> None:
        now = monotonic()
        spent = now - self._stamp
        self._running = None
        if spent > MAX_HOLD:
            self._outbox.flush()
            handler.is_slow = spent > PATIENCE
            self._stamp = now

    def _run_slow(self, handler: Handler, message: Message) -> bool:
        self._outbox.flush()
        if not self._pass_on():
            self._receiver.refuse(message)
            return True
        started = monotonic()
        self._receiver.run(handler, message)
        self._outbox.flush()
        handler.is_slow = monotonic() - started > PATIENCE / 2
        return False

    # Waiting for a result

    def wait(self, call: Call, timeout: float | None) -> bool:
        """Block until `call` is settled, reading the wire meanwhile if this thread may; False after `timeout`."""
        deadline = None if timeout is None else monotonic() + timeout
        self._outbox.flush()
        if self._take_back():
            self._read_for(call, deadline)
        if call.is_settled:
            return True
        return call.lock.acquire(timeout=-1 if deadline is None else max(0.0, deadline - monotonic()))

    def _read_for(self, call: Call, deadline: float | None) -> None:
        while not (self._inbox or call.is_settled or self.ended.is_set()):
            remaining = None if deadline is None else max(0.0, deadline - monotonic())
            if not self._fill(remaining):
                break
        # Handlers must not run below this one: their time would be added to ours. Another thread takes them.
        if not self._inbox:
            self._offer_again()
        elif not self._pass_on():
            self._refuse_all()
            self._offer_again()

    def _offer_again(self) -> None:
        self._token.append(None)
        self._turns += 1
        if self._is_unwatched:
            self._rouse()

    def _refuse_all(self) -> None:
        while self._inbox:
            message = self._inbox.popleft()
            if message.__class__ is dict and self._receiver.find_inline(message):
                self._receiver.refuse(message)
            else:
                self._receiver.receive(message)
        self._outbox.flush()

    def end(self) -> None:
        """End reading for good: the wire has ended, or the worker leaves. Later calls do nothing."""
        if not self.ended.is_set():
            self.ended.set()
            self._ring()
            self._receiver.ended()

    def call_elsewhere(self, task: Callable[[], None]) -> bool:
        """Run `task` on a spare thread; False when there is none."""
        return self._crew.run(task)
