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
"""

from __future__ import annotations

from threading import get_ident

TYPE_CHECKING = False
if TYPE_CHECKING:
    from asyncio import AbstractEventLoop


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

    def offer_loop(self, loop: AbstractEventLoop, thread: int) -> None:
        """Note that `loop`, which runs on `thread`, does what messages ask for: it may read them itself."""
        if self.input_fd is not None and self.loop is not loop:
            self.candidate = loop, thread
