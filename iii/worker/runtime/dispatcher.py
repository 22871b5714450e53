"""The leader at work: reads the wire, and runs sync handlers on the same thread.

Handing a call to another thread costs more than the call. So the leader runs sync handlers itself, and leaves the
reader lock free meanwhile; the monitor takes it only when a handler still runs after a millisecond. A handler that
waits for a call takes the lock back and reads until its result arrives. Before a handler that was slow the last time,
the leader hands the lock to another thread. Results are written once per batch (what one read returns). The hot loop
is here; `Receiver` knows what messages mean, `reader_lock.py` says who may read when.

Where coroutines do the work, each message would have to be handed to their event loop. So a leader whose last batches
ran no sync handler hands the lock to that loop, which reads whenever bytes arrive and leaves the lock free at all
other times. The first sync handler moves the lock back to a thread. A loop that leaves bytes unread for some
milliseconds is blocked, and loses the lock to the monitor.
"""

from __future__ import annotations

from collections import deque
from threading import Event, get_ident
from time import monotonic

from iii.worker.codec.text import report
from iii.worker.runtime.reader_lock import HANDLER_TIMEOUT, Monitor

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable
    from typing import Any

    from iii.worker.calls.call_table import BlockingCall
    from iii.worker.codec.codec import Message
    from iii.worker.functions.handler import Handler
    from iii.worker.runtime.lines import LineReader, LineWriter
    from iii.worker.runtime.reader_lock import ReaderLock
    from iii.worker.runtime.receiver import Receiver
    from iii.worker.runtime.runner import Runner
    from iii.worker.runtime.threads import ThreadPool
    from iii.worker.transport.base import Transport

# Results of a batch wait for the batch's end, but no longer than this.
FLUSH_TIMEOUT = 0.0002
# A loop may read once so many batches in a row have run no sync handler: a worker with both kinds of handlers shall
# not hand the lock over with every call.
BATCHES_BEFORE_LOOP_READS = 8


class Dispatcher:
    """Turns bytes into handler runs. Only the thread that holds the reader lock changes what is listed here.

    `_inbox`: messages that are read and not dispatched yet; the next leader goes on with them.
    `_running`: the sync handler that the leader runs, for the monitor to mark as slow; None while it runs none.
    `_batches_without_sync`: batches in a row without a sync handler and without a waiting thread.
    `_batch_time`: when the batch was read, or when its results were last flushed because a handler took long.
    `_waiting_thread`: the thread whose blocking call the batch has answered, if no other call is outstanding; else 0.
    `_last_wait_time`: the `_batch_time` of the last batch that had a waiting thread.

    `ended` is set once, on any thread, when the wire has ended or the worker leaves; then `on_end()` is called.
    `has_failed`: it has ended because the leader itself failed.
    """

    def __init__(
        self,
        transport: Transport,
        lock: ReaderLock,
        reader: LineReader,
        writer: LineWriter,
        thread_pool: ThreadPool,
        receiver: Receiver,
        runner: Runner,
        on_end: Callable[[], None],
    ) -> None:
        self._transport = transport
        self._lock = lock
        self._feed = reader.feed
        self._writer = writer
        self._thread_pool = thread_pool
        self._receiver = receiver
        self._find_inline, self._run = receiver.find_inline, runner.run
        self._on_end = on_end
        self._inbox: deque[Any] = deque()
        self._running: Handler | None = None
        self._batches_without_sync = 0
        self._batch_time = 0.0
        self._waiting_thread = 0
        self._last_wait_time = 0.0
        self.ended = Event()
        self.has_failed = False
        self._monitor = Monitor(lock, thread_pool, self._take_over, self.ended)

    def watch(self) -> None:
        """Make sure that another thread leads while the leader is busy with user code."""
        if self._lock.needs_monitor:
            self._monitor.call()

    def end(self) -> None:
        """End reading for good: the wire has ended, or the worker leaves. Later calls do nothing."""
        if not self.ended.is_set():
            self.ended.set()
            self._monitor.wake()
            self._on_end()

    # A thread as leader

    def _take_over(self) -> None:
        """Lead on the monitor's thread, which has taken the lock from a handler or a loop."""
        if self._running is not None:
            self._running.is_slow = True
        self._lead()

    def _lead(self) -> None:
        """Read and dispatch on this thread, for which the lock is held."""
        try:
            self._lead_in_turn()
        except BaseException:  # noqa: BLE001 - a fault of ours, or no memory: a worker that reads nothing must not seem to live
            report("the thread that reads the wire has failed")
            self.has_failed = True
            self.end()

    def _lead_in_turn(self) -> None:
        inbox, lock, me = self._inbox, self._lock, get_ident()
        lock.thread = me
        lock.loop = None
        self._batches_without_sync = 0
        while not self.ended.is_set():
            while inbox:
                if not self._dispatch(inbox.popleft(), lock, me):
                    self._writer.flush()
                    return
            self._writer.flush()
            if lock.candidate and self._batches_without_sync > BATCHES_BEFORE_LOOP_READS and self._hand_to_loop():
                return
            self._read(None)
            if self._waiting_thread and self._leave_to_waiting_thread():
                return

    def _read(self, timeout: float | None, here: AbstractEventLoop | None = None) -> bool:
        """Read a batch into the inbox, on a thread or on the loop `here`; False after `timeout` without any bytes."""
        try:
            data = self._transport.read(timeout)
        except OSError as error:
            if error.errno is None:
                raise  # not the kernel's: a signal handler has raised it on the main thread
            data = b""
        if data is None:
            return False
        if not data:
            self.end()
            return True
        self._waiting_thread = self._receiver.sort(self._feed(data), self._inbox, here)
        self._batches_without_sync += 1
        self._batch_time = monotonic()
        return True

    def _dispatch(self, message: Any, lock: ReaderLock, me: int) -> bool:
        """Act on one message on this thread, `me`; False when another thread has taken the lock and leads."""
        handler = self._find_inline(message) if message.__class__ is dict else None
        if handler is None:
            self._receiver.receive(message)
            return True
        self._batches_without_sync = 0
        if handler.is_slow:
            return self._run_slow(handler, message)
        self._running = handler
        # As `_release` and `take_back`, without the calls: this is the path of every sync handler.
        lock.releases += 1
        lock.free.append(None)
        # Without a monitor no thread would read while this handler blocks, so it does not run. If the lock is taken
        # meanwhile, another thread reads.
        if lock.needs_monitor and not self._monitor.call() and lock.take():
            self._receiver.refuse(message)
            return True
        self._run(handler, message)
        if lock.thread != me:
            return False
        try:
            lock.free.pop()
        except IndexError:
            return False
        self._running = None
        if monotonic() - self._batch_time > FLUSH_TIMEOUT:
            self._writer.flush()
            now = monotonic()
            handler.is_slow = now - self._batch_time > HANDLER_TIMEOUT
            self._batch_time = now
        return True

    def _run_slow(self, handler: Handler, message: Message) -> bool:
        """Let another thread lead, and run a handler that was slow the last time on this one."""
        self._writer.flush()
        if not self._thread_pool.run(self._lead):
            self._receiver.refuse(message)
            return True
        started = monotonic()
        self._run(handler, message)
        handler.is_slow = monotonic() - started > HANDLER_TIMEOUT / 2
        return False

    def _leave_to_waiting_thread(self) -> bool:
        """Release the lock to a thread that makes one call after the other: it reads its next answer itself."""
        lock = self._lock
        waiting_thread, self._waiting_thread = self._waiting_thread, 0
        self._batches_without_sync = 0
        since_last, self._last_wait_time = self._batch_time - self._last_wait_time, self._batch_time
        if since_last > HANDLER_TIMEOUT or self._inbox:
            return False
        lock.thread = waiting_thread
        self._running = None
        self._release()
        return True

    def _release(self) -> None:
        lock = self._lock
        lock.releases += 1  # first: the monitor must not see a free lock with an old number
        lock.free.append(None)
        if lock.needs_monitor:
            self._monitor.call()

    # An event loop as leader

    def _hand_to_loop(self) -> bool:
        """Make the candidate the leader; False when it is closed and this thread leads on."""
        lock = self._lock
        assert lock.candidate is not None
        self._running = None
        (loop, lock.thread), lock.candidate = lock.candidate, None
        lock.loop = loop
        self._release()
        try:
            loop.call_soon_threadsafe(self._watch_input, loop)
        except RuntimeError:
            # The loop is closed: lead on, unless the monitor does already.
            lock.loop = None
            return not lock.take()
        return True

    def _watch_input(self, loop: AbstractEventLoop) -> None:
        lock = self._lock
        if lock.loop is loop and lock.thread == get_ident() and lock.input_fd is not None:
            try:
                loop.add_reader(lock.input_fd, self._read_on_loop, loop)
            except NotImplementedError:
                # A loop that watches no pipes (Windows): the monitor takes over, and no loop becomes a candidate again.
                lock.input_fd = lock.loop = None

    def _read_on_loop(self, loop: AbstractEventLoop) -> None:
        """Read a block and begin what its messages ask for. The loop calls this when there are bytes."""
        if not self._lock.take_back():
            self._stop_on_loop(loop)
            return
        self._read(0, loop)
        inbox = self._inbox
        while inbox:
            message = inbox[0]
            if message.__class__ is dict and self._receiver.find_inline(message):
                self._hand_to_thread(loop)
                return
            self._receiver.receive(inbox.popleft())
        self._writer.flush_soon(loop)
        if self.ended.is_set():
            self._stop_on_loop(loop)
        self._release()

    def _hand_to_thread(self, loop: AbstractEventLoop) -> None:
        """Let a thread lead: a sync handler must not block the loop."""
        self._lock.loop = None
        self._monitor.retire()
        self._stop_on_loop(loop)
        if not self._thread_pool.run(self._lead):
            self._refuse_inbox()
            self._lock.candidate = loop, get_ident()
            self._hand_to_loop()

    def _stop_on_loop(self, loop: AbstractEventLoop) -> None:
        if self._lock.input_fd is not None:
            loop.remove_reader(self._lock.input_fd)

    # Waiting for a result

    def wait(self, call: BlockingCall, timeout: float | None) -> bool:
        """Block until `call` is settled, reading the wire meanwhile if this thread may; False after `timeout`."""
        deadline = None if timeout is None else monotonic() + timeout
        self._writer.flush()
        if self._lock.take_back():
            try:
                while not (self._inbox or call.is_settled or self.ended.is_set()):
                    if not self._read(None if deadline is None else max(0.0, deadline - monotonic())):
                        break
            finally:  # also when a signal handler raises
                # Another thread dispatches what has arrived: a handler that ran here would delay the one that waits.
                if not self._inbox:
                    self._release()
                elif not self._thread_pool.run(self._lead):
                    self._refuse_inbox()
                    self._release()
        if call.is_settled:
            return True
        return call.lock.acquire(timeout=-1 if deadline is None else max(0.0, deadline - monotonic()))

    def _refuse_inbox(self) -> None:
        """Refuse the sync handlers in the inbox, for which no thread is left, and act on all other messages."""
        while self._inbox:
            message = self._inbox.popleft()
            if message.__class__ is dict and self._receiver.find_inline(message):
                self._receiver.refuse(message)
            else:
                self._receiver.receive(message)
        self._writer.flush()
