"""The lazy leader: one thread at a time reads the wire, and runs sync handlers itself.

Handing a call to another thread costs more than the call. So the leader offers its token while a handler runs, and
the monitor, a second thread, takes it only when the same handler still runs after a millisecond. Who holds the token
reads; holding is having popped it from a one-element list, which is atomic. A handler that blocks in `trigger` takes
its own token back and reads until its result is there. Handlers known to be slow get the token moved before they
start. Results are written once per batch. The hot loop lives here alone; what messages mean is `Receiver`'s.

Where coroutines do the work, a hand-over to their event loop would be needed for every message. So a leader whose last
batches ran no sync handler gives the token to that loop, which then reads whenever there is something to read, and
offers the token at all other times. The first sync handler moves the token back to a thread. A loop that leaves bytes
unread for some milliseconds is blocked, and the monitor takes the token from it like from anybody else.
"""

from __future__ import annotations

from collections import deque
from threading import Event, Lock, get_ident
from time import monotonic

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable
    from typing import Any

    from iii.worker.calls.call_table import BlockingCall
    from iii.worker.codec.codec import Message
    from iii.worker.functions.handler import Handler
    from iii.worker.runtime.line_reader import Intake
    from iii.worker.runtime.line_writer import Outbox
    from iii.worker.runtime.receiver_protocol import Receiver
    from iii.worker.runtime.thread_pool import ThreadPool
    from iii.worker.transport.base import Transport

# A handler that still runs after this may run for long: somebody else reads from then on.
PATIENCE = 0.001
# Results of a batch wait for the batch's end, but no longer than this.
MAX_HOLD = 0.0002
# The monitor sleeps for good after so many looks at an idle leader: an idle worker must not wake up.
IDLE_LOOKS = 20
# An event loop may read once so many batches in a row have run no sync handler: workers with both shall not pass the
# token on with every call.
CALM_BATCHES = 8
# Looks, a `PATIENCE` apart, at a loop that leaves bytes unread until it counts as blocked.
LOOP_LOOKS = 5


class Dispatcher:
    """Moves the token between threads and turns bytes into handler runs."""

    def __init__(
        self, transport: Transport, intake: Intake, outbox: Outbox, thread_pool: ThreadPool, receiver: Receiver
    ) -> None:
        self._transport = transport
        self._feed = intake.feed
        self._outbox = outbox
        self._thread_pool = thread_pool
        self._receiver = receiver
        self._find_inline, self._run = receiver.find_inline, receiver.run
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
        self._term = 0
        # Only a carrier with a descriptor can be read by a loop.
        self._input_fd = transport.input_fd
        self._loop: AbstractEventLoop | None = None  # the one that reads
        self._wish: tuple[AbstractEventLoop, int] | None = None  # one that could, and its thread
        self._calm = 0
        self._stamp = 0.0
        self._settled = 0.0
        self._waiter = 0
        self.ended = Event()

    # The token

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
        return self._thread_pool.run(self._lead_anew)

    def _lead_anew(self) -> None:
        self._owner = get_ident()
        self._lead()

    # The monitor

    def _is_watched_now(self) -> bool:
        # Nobody could take over from a handler that blocks: do not run one. (Taken meanwhile is fine.)
        return self._rouse() or not self._take()

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
        if self._thread_pool.run(self._monitor):
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
        seen, idle, term = -1, 0, self._term
        while self._term == term and not self.ended.is_set():
            self._alarm.acquire(timeout=PATIENCE)
            if self._turns != seen:
                seen, idle = self._turns, 0
            elif self._is_owner_stuck(idle):
                if self._take():
                    self._take_over()
                    return
            elif idle < IDLE_LOOKS:
                idle += 1
            else:
                idle = 0
                self._rest()
        if self._term == term:
            self._has_monitor = False

    def _is_owner_stuck(self, looks: int) -> bool:
        if self._loop is None:
            return bool(self._token)
        return bool(self._token) and looks >= LOOP_LOOKS and self._has_input(0)

    def _has_input(self, timeout: float | None) -> bool:
        from iii.worker.transport.stdio import has_input  # loaded by whoever has a descriptor

        return has_input(self._input_fd, timeout)

    def _retire_monitor(self) -> None:
        """Let the monitor of a loop go: it may rest where nobody but the engine can wake it."""
        self._term += 1
        self._has_monitor = False
        self._is_unwatched = True

    def _rest(self) -> None:
        if self._loop is not None:
            self._has_input(None)
            return
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
        inbox, me = self._inbox, get_ident()
        self._loop = None
        self._calm = 0
        while not self.ended.is_set():
            while inbox:
                if not self._turn(inbox.popleft(), me):
                    return
            self._outbox.flush()
            if self._wish is not None and self._calm > CALM_BATCHES and self._give_to_loop():
                return
            self._fill(None)
            if self._waiter and self._give_back():
                return

    def _give_back(self) -> bool:
        """Offer the token to a thread that makes one call after the other: it reads for itself then."""
        waiter, self._waiter = self._waiter, 0
        self._calm = 0
        since, self._settled = self._stamp - self._settled, self._stamp
        if since > PATIENCE or self._inbox:
            return False
        self._owner = waiter
        self._running = None
        self._offer_again()
        return True

    def _fill(self, timeout: float | None, here: AbstractEventLoop | None = None) -> bool:
        try:
            data = self._transport.read(timeout)
        except OSError:
            data = b""
        if data is None:
            return False
        if not data:
            self.end()
            return True
        self._waiter = self._receiver.sort(self._feed(data), self._inbox, here)
        self._calm += 1
        self._stamp = monotonic()
        return True

    def _turn(self, message: Any, me: int) -> bool:
        """Handle one message on this thread, `me`; False when it is no longer the leader."""
        handler = self._find_inline(message) if message.__class__ is dict else None
        if handler is None:
            self._receiver.receive(message)
            return True
        self._calm = 0
        if handler.is_slow:
            return self._run_slow(handler, message)
        self._running = handler
        # Offering and taking back as below, without the calls: this is the path of every sync handler.
        self._turns += 1
        self._token.append(None)
        if self._is_unwatched and not self._is_watched_now():
            self._receiver.refuse(message)
            return True
        self._run(handler, message)
        if self._owner != me:
            return self._step_down()
        try:
            self._token.pop()
        except IndexError:
            return self._step_down()
        self._running = None
        if monotonic() - self._stamp > MAX_HOLD:
            self._note_time(handler)
        return True

    def _step_down(self) -> bool:
        """Another thread leads meanwhile."""
        self._outbox.flush()
        return False

    def _note_time(self, handler: Handler) -> None:
        self._outbox.flush()
        now = monotonic()
        handler.is_slow = now - self._stamp > PATIENCE
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

    # An event loop as leader

    def wish_for(self, loop: AbstractEventLoop, thread: int) -> None:
        """Note that `loop`, which runs on `thread`, has use for what comes in: it may read for itself."""
        if self._input_fd is not None and self._loop is not loop:
            self._wish = loop, thread

    def _give_to_loop(self) -> bool:
        assert self._wish is not None
        self._running = None
        (self._loop, self._owner), self._wish = self._wish, None
        loop = self._loop
        self._offer_again()
        try:
            loop.call_soon_threadsafe(self._begin_on_loop, loop)
        except RuntimeError:
            # It is closed. Lead on, unless the monitor does already.
            self._loop = None
            return not self._take()
        return True

    def _begin_on_loop(self, loop: AbstractEventLoop) -> None:
        if self._loop is loop and self._owner == get_ident() and self._input_fd is not None:
            try:
                loop.add_reader(self._input_fd, self._read_on_loop, loop)
            except NotImplementedError:
                # A loop that watches no pipes (Windows): the monitor takes over, and no loop is asked again.
                self._input_fd = self._loop = None

    def _read_on_loop(self, loop: AbstractEventLoop) -> None:
        """Read a block and begin what it asks for; called by the loop when there are bytes."""
        if not self._take_back():
            self._stop_on_loop(loop)
            return
        self._fill(0, loop)
        inbox = self._inbox
        while inbox:
            message = inbox[0]
            if message.__class__ is dict and self._receiver.find_inline(message):
                self._give_to_thread(loop)
                return
            self._receiver.receive(inbox.popleft())
        self._outbox.flush_soon(loop)
        if self.ended.is_set():
            self._stop_on_loop(loop)
        self._offer_again()

    def _give_to_thread(self, loop: AbstractEventLoop) -> None:
        """A sync handler must not block the loop: let a thread lead from here on."""
        self._loop = None
        self._retire_monitor()
        self._stop_on_loop(loop)
        if not self._pass_on():
            self._refuse_all()
            self._wish = loop, get_ident()
            self._give_to_loop()

    def _stop_on_loop(self, loop: AbstractEventLoop) -> None:
        if self._input_fd is not None:
            loop.remove_reader(self._input_fd)

    # Waiting for a result

    def wait(self, call: BlockingCall, timeout: float | None) -> bool:
        """Block until `call` is settled, reading the wire meanwhile if this thread may; False after `timeout`."""
        deadline = None if timeout is None else monotonic() + timeout
        self._outbox.flush()
        if self._take_back():
            self._read_for(call, deadline)
        if call.is_settled:
            return True
        return call.lock.acquire(timeout=-1 if deadline is None else max(0.0, deadline - monotonic()))

    def _read_for(self, call: BlockingCall, deadline: float | None) -> None:
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
        return self._thread_pool.run(task)
