"""Who reads the wire: one thread or one event loop at a time, the leader (of the pattern Leader/Followers).

The leader holds the reader lock while it reads and dispatches. While it runs user code, it leaves the lock free for
the monitor, which takes it when the user code lasts; otherwise the leader takes it back. So a leader is in one of
these states:

    state                      `free`  `thread`       `loop`   who may take the lock
    reads or dispatches        no      the leader's   None     no thread; the leader blocks in a read, or is quick
    runs user code             yes     the leader's   None     the leader when the code returns or waits for a call;
                                                               the monitor when the code runs for a millisecond
    the loop reads a block     no      the loop's     set      no thread
    the loop does other work   yes     the loop's     set      the loop when bytes arrive; the monitor when they stay
                                                               unread for some milliseconds
    is handing over            no      the old one's  None     no thread; the next leader enters its number itself

A worker starts in the second state: the thread that makes it runs user code.

The monitor is a thread that compares the lock's `releases` once a millisecond, takes the lock from a leader that made
no progress, and then leads in its place; the next release starts another monitor. It sleeps while the leader is blocked
in a read, because an idle worker must not wake up. So it is in one of these states:

    state       `_alarm`        `needs_monitor`   ends with
    absent      None            yes               a release of the lock: a thread becomes the monitor
    watching    its own         no                taking the lock: absent; an idle leader: asleep
    asleep      its own         yes               a release of the lock: watching
    retired     another, None   either            its own next check: its thread leaves

Where a loop reads, the monitor sleeps without `needs_monitor`: bytes on the wire wake it, as they wake the loop.
"""

from __future__ import annotations

from threading import Lock, get_ident

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop
    from collections.abc import Callable
    from threading import Event

    from iii.worker.runtime.threads import ThreadPool

# A handler that still runs after this may run for long: another thread reads from then on.
HANDLER_TIMEOUT = 0.001
# So many checks without progress, `HANDLER_TIMEOUT` apart, let the monitor sleep.
CHECKS_BEFORE_SLEEP = 20
# So many checks of a loop that leaves bytes unread show that it is blocked.
CHECKS_OF_LOOP = 5


class ReaderLock:
    """The right to read, and who had it last. The dispatcher's hot path reads and writes the attributes itself.

    `free`: holds one item while the lock is free, none while it is held. Popping it is atomic, and a `threading.Lock`
    would cost each sync call 50 ns more.
    `thread`: the leader. Only this thread may take the lock back; any other thread may take it only as the monitor.
    `loop`: the event loop that reads, None while a thread does.
    `candidate`: a loop that could read, with its thread; None without one. Never set where `input_fd` is None.
    `input_fd`: the descriptor that a loop can watch, None for a transport that only threads can read.
    `releases`: how often the lock was released. The monitor takes an unchanged number for a leader in user code.
    `needs_monitor`: no monitor watches, because there is none or it sleeps: the next release has to call it.
    """

    __slots__ = ("candidate", "free", "input_fd", "loop", "needs_monitor", "releases", "thread")

    def __init__(self, input_fd: int | None) -> None:
        self.free: list[None] = [None]
        self.thread = get_ident()
        self.loop: AbstractEventLoop | None = None
        self.candidate: tuple[AbstractEventLoop, int] | None = None
        self.input_fd = input_fd
        self.releases = 0
        self.needs_monitor = True

    def take(self) -> bool:
        """Take the lock for this thread, whichever thread had it last; False when it is held."""
        try:
            self.free.pop()
        except IndexError:
            return False
        self.thread = get_ident()
        return True

    def take_back(self) -> bool:
        """Take the lock if this thread had it last; False when it is held or another thread has had it since."""
        # `take` sets the thread again: the monitor may have taken and released the lock since the comparison.
        return self.thread == get_ident() and self.take()

    def abandon(self) -> None:
        """Let no thread of this process take the lock any more."""
        self.free.clear()
        self.thread = 0
        self.loop = self.candidate = self.input_fd = None

    def offer_loop(self, loop: AbstractEventLoop, thread: int) -> None:
        """Note that `loop`, which runs on `thread`, does what messages ask for: it may read them itself."""
        if self.input_fd is not None and self.loop is not loop:
            self.candidate = loop, thread


class Monitor:
    """Watches over the leader. `take_over()` is run on its thread when it has taken the lock, and leads from there.

    `_alarm` is the lock that the thread of the present monitor waits on, released to wake it; None without a monitor.
    Each monitor has its own: with a common one, a retired monitor could take the wake-up of its successor.
    """

    def __init__(self, lock: ReaderLock, thread_pool: ThreadPool, take_over: Callable[[], None], ended: Event) -> None:
        self._lock = lock
        self._thread_pool = thread_pool
        self._take_over = take_over
        self._ended = ended
        self._alarm: Lock | None = None

    def call(self) -> bool:
        """Wake the monitor, or start one; False when there is no thread for it."""
        self._lock.needs_monitor = False
        if self._alarm is not None:
            self.wake()
            return True
        alarm = Lock()
        alarm.acquire()
        # Set first: when `run` returns, the monitor may have taken over, and be no monitor any more.
        overtaken, self._alarm = self._alarm, alarm
        _release(overtaken)  # of another thread that called at the same time: its monitor leaves
        if self._thread_pool.run(lambda: self._watch(alarm)):
            return True
        self.retire()
        return False

    def wake(self) -> None:
        _release(self._alarm)

    def retire(self) -> None:
        """Let the monitor go: its thread leaves at its next check. The next release starts another."""
        alarm, self._alarm = self._alarm, None
        self._lock.needs_monitor = True
        _release(alarm)

    def _watch(self, alarm: Lock) -> None:
        lock = self._lock
        releases, checks = -1, 0
        while True:
            alarm.acquire(timeout=HANDLER_TIMEOUT)
            # Behind `acquire`, which may have taken the wake-up of `retire`: no other would end a sleep.
            if self._alarm is not alarm or self._ended.is_set():
                return
            if lock.releases != releases:
                releases, checks = lock.releases, 0
            elif lock.free and (lock.loop is None or (checks >= CHECKS_OF_LOOP and self._has_input(wait=False))):
                if lock.take():
                    self.retire()
                    self._take_over()
                    return
            elif checks < CHECKS_BEFORE_SLEEP:
                checks += 1
            else:
                checks = 0
                self._sleep(alarm)

    def _sleep(self, alarm: Lock) -> None:
        lock = self._lock
        if lock.loop is not None:
            self._has_input(wait=True)
            return
        lock.needs_monitor = True
        # The leader may have released the lock just before, without seeing the flag: then stay awake. If this monitor
        # is retired, `call` starts another in its place.
        if not lock.free:
            alarm.acquire()
        elif lock.needs_monitor:
            self.call()

    def _has_input(self, *, wait: bool) -> bool:
        """Tell whether the wire has bytes or its end, without reading it; with `wait`, block until it has."""
        import select  # loaded only where there is a descriptor

        input_poll = select.poll()
        if self._lock.input_fd is not None:
            input_poll.register(self._lock.input_fd, select.POLLIN)
        return bool(input_poll.poll(None if wait else 0))


def _release(alarm: Lock | None) -> None:
    if alarm is not None:
        try:
            alarm.release()
        except RuntimeError:
            return  # another thread has woken it already
