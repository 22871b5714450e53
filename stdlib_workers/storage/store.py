"""`Store`: one thread that owns one database and commits in groups.

Commands queue up while a commit is on its way to the disk; the next commit takes them all, and a lone command commits
at once. A caller is answered after the commit that holds its command has returned. When the disk fails, all that wait
get an error and the process ends: nobody is ever told that something is durable after that.
"""

from __future__ import annotations

import os
import sqlite3
import sys
from collections.abc import Callable
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread, Timer
from traceback import clear_frames
from typing import Any, Protocol, TypeVar

from iii import InvocationError
from stdlib_workers.storage.database import Schema, close_database, open_database
from stdlib_workers.storage.errors import EXIT_IO, Refusal, error_from, is_fatal, is_full, stopped
from stdlib_workers.storage.lock import lock
from stdlib_workers.storage.pending import Pending, settled, wake

T = TypeVar("T")
Command = Callable[[sqlite3.Connection], T]

# More in one commit gains nothing (measured) and makes its first caller wait.
MAX_BATCH = 512
# Commands that may wait; more would only grow memory while the disk is the limit.
MAX_WAITING = 20_000
# How long answers get to leave before the process ends after a failure of the disk.
LAST_WORDS = 0.2
# The log is cut when it has grown past this, which only a reader from outside can cause.
MAX_LOG_BYTES = 64 * 1024 * 1024


class _Job:
    """A command, its result, and what to do once that is durable."""

    __slots__ = ("command", "error", "pending", "then", "value")

    def __init__(self, command: Command[Any], then: Callable[[Any], None] | None) -> None:
        self.command = command
        self.then = then
        self.pending: Pending[Any] = Pending()
        self.value: Any = None
        self.error: BaseException | None = None


class TransactionHook(Protocol):
    """What goes along with every transaction: it gathers what the commands of one have in common.

    Each statement makes the storage thread wait for its turn to run Python, so one for all commands is worth much
    more than it saves the disk. Called on the storage thread only; a transaction may begin again before it commits.
    """

    def begin(self) -> None:
        """Forget what the last transaction has gathered."""
        ...

    def finish(self, connection: sqlite3.Connection) -> None:
        """Make the last writes, before the commit."""
        ...

    def committed(self) -> None:
        """Take note that all of it is durable, before any caller is told."""
        ...


class Store:
    """Runs commands against one database. `path` None keeps it in memory."""

    def __init__(
        self, path: Path | None, schema: Schema, *, on_fatal: Callable[[BaseException], None] | None = None
    ) -> None:
        self._path = path
        self._schema = schema
        self._on_fatal = on_fatal or _leave
        self._queue: SimpleQueue[_Job | None] = SimpleQueue()
        self._is_closed = False
        self._opened: Pending[None] = Pending()
        self._thread = Thread(target=self._own, name=f"iii-store-{path.stem if path else 'memory'}", daemon=True)
        self._abandoned: sqlite3.Connection | None = None
        self._rider: TransactionHook = _Nobody()
        self.commits = 0
        self._thread.start()
        self._opened.result()

    def run(self, command: Command[T], *, then: Callable[[T], None] | None = None) -> Pending[T]:
        """Run `command(connection)` inside the next commit; its result is there when that is durable.

        What the command raises undoes its own writes only and goes to its own caller. A command may run twice (after a
        failure beside it, or a full disk), so it must change nothing but the database; `then(result)` is the place for
        that: it runs once, on the storage thread, after the commit, in the order of the commands; never raises.
        `await` the result or call its `result()`. Errors: `storage_full`, `storage_error`, `overloaded`.
        """
        if self._is_closed:
            return settled(None, stopped())
        if self._queue.qsize() >= MAX_WAITING:
            return settled(None, InvocationError("overloaded", "the storage has too much to do", retryable=True))
        job = _Job(command, then)
        self._queue.put(job)
        if self._is_closed:
            # Closed in between: the storage thread may have looked for the last time.
            self._fail_waiting(stopped())
        return job.pending

    def attach(self, rider: TransactionHook) -> None:
        """Let `rider` go along with every transaction. Once, before the first command that needs it."""
        self._rider = rider

    def close(self) -> None:
        """Finish what waits, close the file, end the thread."""
        self._is_closed = True
        self._queue.put(None)
        self._thread.join()

    # The storage thread

    def _own(self) -> None:
        guard = None
        try:
            guard = lock(self._path) if self._path else None
            connection = open_database(self._path, self._schema)
            self._opened.settle(None)
            self._serve(connection)
        except Refusal as refusal:
            self._opened.settle(None, refusal)
        except OSError as error:
            self._opened.settle(None, Refusal(f"{self._path} cannot be used: {error}"))
        except sqlite3.Error as error:
            self._fail(error)
        finally:
            self._fail_waiting(stopped())
            if guard is not None:
                os.close(guard)

    def _serve(self, connection: sqlite3.Connection) -> None:
        while True:
            batch, is_last = self._take()
            if batch and not self._commit(connection, batch):
                # Kept open until the process ends: closing would move the log through the disk that has just failed.
                self._abandoned = connection
                return
            if is_last:
                close_database(connection)
                return

    def _take(self) -> tuple[list[_Job], bool]:
        batch: list[_Job] = []
        job = self._queue.get()
        while job is not None:
            batch.append(job)
            if len(batch) == MAX_BATCH:
                return batch, False
            try:
                job = self._queue.get_nowait()
            except Empty:
                return batch, False
        return batch, True

    def _commit(self, connection: sqlite3.Connection, batch: list[_Job]) -> bool:
        """Run a batch as one transaction and answer it; False when the file must not be used any more."""
        left, failure = batch, self._transact(connection, batch)
        while isinstance(failure, _HalfDone):
            # Rare, and worth another run: a savepoint for each command costs a third of all speed.
            left = [job for job in left if job is not failure.job]
            failure = self._transact(connection, left)
        if failure is None:
            self._answer(batch)
            self._limit_log(connection)
            return True
        if len(left) > 1 and (is_full(failure) or isinstance(failure, _Unfinished)):
            # One command too large must not fail its neighbours: each gets a transaction of its own.
            self._answer([job for job in batch if job not in left])
            return all([self._commit(connection, [job]) for job in left])
        return self._give_up(batch, left, failure)

    def _give_up(self, batch: list[_Job], left: list[_Job], failure: Exception) -> bool:
        cause = failure.cause if isinstance(failure, _Unfinished) else failure
        for job in left:
            job.error = error_from(cause)
        is_over = is_fatal(cause)
        self._is_closed = self._is_closed or is_over
        self._answer(batch)
        if is_over:
            self._fail(cause)
        return not is_over

    def _transact(self, connection: sqlite3.Connection, batch: list[_Job]) -> Exception | None:
        try:
            self._rider.begin()
            connection.execute("BEGIN IMMEDIATE")
            for job in batch:
                _run(connection, job)
            self._finish(connection)
            connection.execute("COMMIT")
        except (sqlite3.Error, _HalfDone, _Unfinished) as error:
            _roll_back(connection)
            return error
        self.commits += 1
        self._rider.committed()
        return None

    def _finish(self, connection: sqlite3.Connection) -> None:
        try:
            self._rider.finish(connection)
        except Exception as error:
            # The boundary to what a worker lets ride along, as that to its commands.
            if is_fatal(error) or is_full(error):
                raise
            raise _Unfinished(error) from error

    def _answer(self, batch: list[_Job]) -> None:
        for job in batch:
            if job.error is None and job.then is not None:
                job.then(job.value)
            job.pending.settle(job.value, job.error)
        wake([job.pending for job in batch])

    def _limit_log(self, connection: sqlite3.Connection) -> None:
        if self._path is None or self.commits % 64:
            return
        log = self._path.with_name(self._path.name + "-wal")
        if log.exists() and log.stat().st_size > MAX_LOG_BYTES:
            connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def _fail(self, failure: Exception) -> None:
        self._is_closed = True
        self._fail_waiting(error_from(failure))
        self._on_fatal(failure)

    def _fail_waiting(self, error: BaseException) -> None:
        waiting: list[_Job] = []
        while not self._queue.empty():
            try:
                job = self._queue.get_nowait()
            except Empty:
                break
            if job is not None:
                job.error = error
                waiting.append(job)
        self._answer(waiting)

    def __repr__(self) -> str:
        return f"<Store {self._path or 'in memory'}, {self.commits} commits>"


class _HalfDone(Exception):
    """A command has failed after it had written something."""

    def __init__(self, job: _Job) -> None:
        super().__init__("half done")
        self.job = job


class _Unfinished(Exception):
    """What the commands have gathered could not be written; nobody knows whose fault it is."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


class _Nobody:
    """The rider of a store whose commands have nothing in common."""

    def begin(self) -> None:
        """Forget nothing."""

    def finish(self, _: sqlite3.Connection) -> None:
        """Write nothing."""

    def committed(self) -> None:
        """Note nothing."""


def _run(connection: sqlite3.Connection, job: _Job) -> None:
    """Run a command; one that fails before its first write leaves nothing to undo."""
    changes = connection.total_changes
    try:
        # The boundary to a worker's commands: whatever they raise is their caller's.
        job.value, job.error = job.command(connection), None
    except Exception as error:
        _release(error)
        if is_fatal(error) or is_full(error):
            raise
        job.error = error_from(error)
        if connection.total_changes != changes or not connection.in_transaction:
            raise _HalfDone(job) from error


def _release(error: Exception) -> None:
    # An error keeps its frames, they their cursors, and a half-read cursor keeps the log from ever being cut.
    clear_frames(error.__traceback__)


def _roll_back(connection: sqlite3.Connection) -> None:
    try:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    except sqlite3.Error as error:
        sys.stderr.write(f"iii: rollback failed: {error}\n")


def _leave(error: BaseException) -> None:
    sys.stderr.write(f"iii: the disk failed ({error}); nothing can be trusted to be durable, so this process ends\n")
    sys.stderr.flush()
    timer = Timer(LAST_WORDS, os._exit, (EXIT_IO,))
    timer.daemon = True
    timer.start()


def open_store(name: str, schema: Schema, *, project: str, in_memory: bool = False) -> Store:
    """Open `.iii/NAME.db` of a project folder (or nothing but memory). Refusal when it cannot be used."""
    return Store(None if in_memory else Path(project or ".", ".iii", f"{name}.db"), schema)
