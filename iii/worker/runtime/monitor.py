"""The monitor: a thread that becomes the leader when the leader is busy with user code.

It compares the reader lock's `releases` once a millisecond, takes the lock from a leader that made no progress, and
then leads in its place; the next release starts another monitor. It sleeps while the leader is blocked in a read,
because an idle worker must not wake up. So it is in one of these states:

    state       `_exists`  `needs_monitor` of the lock   ends with
    absent      no         yes                           a release of the lock: a thread becomes the monitor
    watching    yes        no                            taking the lock: absent; an idle leader: asleep
    asleep      yes        yes                           a release of the lock: watching
    retired     no         yes                           its thread leaves at its next check; another may have begun

Where a loop reads, the monitor sleeps without `needs_monitor`: bytes on the wire wake it, as they wake the loop.
"""

from __future__ import annotations

from threading import Lock

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable
    from threading import Event

    from iii.worker.runtime.reader_lock import ReaderLock
    from iii.worker.runtime.thread_pool import ThreadPool

# A handler that still runs after this may run for long: another thread reads from then on.
HANDLER_TIMEOUT = 0.001
# So many checks without progress, `HANDLER_TIMEOUT` apart, let the monitor sleep.
CHECKS_BEFORE_SLEEP = 20
# So many checks of a loop that leaves bytes unread show that it is blocked.
CHECKS_OF_LOOP = 5


class Monitor:
    """Watches over the leader. `take_over()` is run on its thread when it has taken the lock, and leads from there.

    `_number` counts the monitors that were retired: a thread that began under another number leaves.
    """

    def __init__(self, lock: ReaderLock, thread_pool: ThreadPool, take_over: Callable[[], None], ended: Event) -> None:
        self._lock = lock
        self._thread_pool = thread_pool
        self._take_over = take_over
        self._ended = ended
        self._exists = False
        self._number = 0
        self._alarm = Lock()
        self._alarm.acquire()

    def call(self) -> bool:
        """Wake the monitor, or start one; False when there is no thread for it."""
        self._lock.needs_monitor = False
        if self._exists:
            self.wake()
            return True
        # Set first: when `run` returns, the monitor may have taken over, and be no monitor any more.
        self._exists = True
        if self._thread_pool.run(self._watch):
            return True
        self._exists = False
        self._lock.needs_monitor = True
        return False

    def wake(self) -> None:
        """Let a monitor that sleeps check again."""
        try:
            self._alarm.release()
        except RuntimeError:
            return  # another thread has woken it already

    def retire(self) -> None:
        """Let the monitor go: it may sleep until bytes arrive. The next release starts another."""
        self._number += 1
        self._exists = False
        self._lock.needs_monitor = True

    def _watch(self) -> None:
        lock, number = self._lock, self._number
        releases, checks = -1, 0
        while self._number == number and not self._ended.is_set():
            self._alarm.acquire(timeout=HANDLER_TIMEOUT)
            if lock.releases != releases:
                releases, checks = lock.releases, 0
            elif lock.free and (lock.loop is None or (checks >= CHECKS_OF_LOOP and self._has_input(wait=False))):
                if lock.take():
                    self._exists = False
                    lock.needs_monitor = True
                    self._take_over()
                    return
            elif checks < CHECKS_BEFORE_SLEEP:
                checks += 1
            else:
                checks = 0
                self._sleep()
        if self._number == number:
            self._exists = False

    def _sleep(self) -> None:
        lock = self._lock
        if lock.loop is not None:
            self._has_input(wait=True)
            return
        lock.needs_monitor = True
        # The leader may have released the lock just before, without seeing the flag: then stay awake.
        if not lock.free:
            self._alarm.acquire()
        elif lock.needs_monitor:
            lock.needs_monitor = False

    def _has_input(self, *, wait: bool) -> bool:
        from iii.worker.transport.stdio import has_input  # loaded only where there is a descriptor

        return has_input(self._lock.input_fd, wait=wait)
