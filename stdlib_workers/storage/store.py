"""`Store`: one thread that owns one database and commits in groups.

Commands queue up while a commit is on its way to the disk; the next commit takes them all, and a lone command commits
at once. A caller gets its result after the commit that holds its command has returned. When the disk fails, all
callers that wait get an error and the process ends: after that, no caller is told that anything is durable.
"""

from __future__ import annotations

import errno
import os
import sqlite3
import sys
from collections import deque
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from queue import Empty, SimpleQueue
from threading import Thread, Timer
from traceback import clear_frames
from typing import TYPE_CHECKING, Any, TypeVar

from iii import InvocationError, Worker
from iii.declarations import load_declarations
from stdlib_workers.storage.backup import copy_database
from stdlib_workers.storage.database import Schema, lock, open_database, open_in_memory, read_epoch, real_path
from stdlib_workers.storage.errors import (
    EXIT_IO,
    EXIT_REFUSED,
    FULL,
    UNUSABLE,
    FileGone,
    Refusal,
    StorageFailure,
    error_from,
    is_fatal,
    is_full,
    no_quorum,
    stopped,
)
from stdlib_workers.storage.open_file import OpenFile
from stdlib_workers.storage.pending import Pending, settled, wake
from stdlib_workers.values import end_worker

if TYPE_CHECKING:
    from stdlib_workers.storage.replica import Replica

T = TypeVar("T")
Command = Callable[[sqlite3.Connection], T]

# More in one commit gains nothing (measured) and makes its first caller wait.
MAX_BATCH = 512
# Of a store that a cluster keeps: its rows leave in one message each, 1000 at most.
MAX_REPLICATED_BATCH = 128
# Commands that may wait; more would only grow memory while the disk is the limit.
MAX_WAITING = 20_000
# After a failure of the disk, how long the errors may take to reach their callers before the process ends.
EXIT_TIMEOUT = 0.2
# The write-ahead log is truncated when it has grown past this, which only a reader from outside can cause.
MAX_LOG_BYTES = 64 * 1024 * 1024
# Functions that copy a store, by the worker's name.
BACKUP = "storage::backup::"
# Errors of the system that may be over at another start.
_DISKS_OWN = frozenset({errno.EIO, errno.ENOSPC, errno.EDQUOT})


@dataclass(slots=True, eq=False)
class _Submission:
    """A command, its result, and what to do once that is durable."""

    command: Command[Any]
    then: Callable[[Any], None] | None
    pending: Pending[Any] = field(default_factory=Pending)
    value: Any = None
    error: BaseException | None = None


class TransactionHook:
    """Runs along with every transaction, and writes at its end what several of its commands have in common.

    Each statement makes the storage thread wait for its turn to run Python: one statement for all commands saves much
    more than the disk access. Methods run on the storage thread only; a transaction may begin again before it commits.
    This one does nothing.
    """

    def begin(self) -> None:
        """Forget what the last transaction has left here."""

    def finish(self, connection: sqlite3.Connection) -> None:
        """Make the last writes, before the commit."""

    def committed(self) -> None:
        """Take note that the transaction is durable, before any caller gets its result."""


class Store:
    """Runs commands against one database. `path` None keeps it in memory, or where `replica` keeps it.

    With a replica, making the store waits until this process owns the data.
    """

    def __init__(
        self,
        path: Path | None,
        schema: Schema,
        *,
        replica: Replica | None = None,
        on_fatal: Callable[[BaseException], None] | None = None,
    ) -> None:
        self._path = path
        self._replica = replica
        self._max_batch = MAX_BATCH if replica is None else MAX_REPLICATED_BATCH
        self._schema = schema
        self._on_fatal = on_fatal or end_process
        self._queue: SimpleQueue[_Submission | None] = SimpleQueue()
        self._is_closed = False
        self._opened: Pending[None] = Pending()
        self._thread = Thread(target=self._run_thread, name=f"iii-store-{path.stem if path else 'memory'}", daemon=True)
        self._abandoned: sqlite3.Connection | None = None
        self._file: OpenFile | None = None
        self._lock: int | None = None
        self._backups: deque[Pending[Path | None]] = deque()
        self.epoch = 0
        self._hook = TransactionHook()
        self.commits = 0
        self._thread.start()
        self._opened.result()

    def run(self, command: Command[T], *, then: Callable[[T], None] | None = None) -> Pending[T]:
        """Run `command(connection)` inside the next commit; its result is there when that is durable.

        What the command raises undoes its own writes only and goes to its own caller. A command may run twice (when
        another one of its transaction fails, or the disk is full), so it must change nothing but the database.
        `then(result)` may change other things: it runs once, on the storage thread, after the commit, in the order of
        the commands; it must not raise. `await` the result or call its `result()`. Errors: `storage_full`,
        `storage_error`, `overloaded`.
        """
        if self._is_closed:
            return settled(None, stopped())
        if self._queue.qsize() >= MAX_WAITING:
            return settled(None, InvocationError("overloaded", "the storage has too much to do", retryable=True))
        submission = _Submission(command, then)
        self._queue.put(submission)
        if self._is_closed:
            # Closed in between: the storage thread may have emptied the queue for the last time.
            self._fail_waiting(stopped())
        return submission.pending

    @property
    def is_serving(self) -> bool:
        """Whether what is in memory is what is stored."""
        return self._replica is None or self._replica.is_serving

    def attach(self, hook: TransactionHook) -> None:
        """Run `hook` along with every transaction. Call it once, before the first command that needs the hook."""
        self._hook = hook

    def backup(self) -> Pending[Path | None]:
        """Copy the database into one file beside it and return its path, None without a file.

        The copy holds every command that was answered before this call; commands go on meanwhile. One backup at a time:
        the next replaces the copy. Errors: `storage_full`, `storage_error`.
        """
        if self._path is None:
            return settled(None)
        pending: Pending[Path | None] = Pending()
        self._backups.append(pending)
        self.run(lambda _: None)  # wakes the storage thread
        return pending

    def close(self) -> None:
        """Finish what waits, close the file, end the thread."""
        self._is_closed = True
        self._queue.put(None)
        self._thread.join()

    # The storage thread

    def _run_thread(self) -> None:
        try:
            connection = self._open()
            self._opened.settle(None)
            self._serve(connection)
        except Refusal as refusal:
            self._opened.settle(None, refusal)
        except OSError as error:
            code = EXIT_IO if error.errno in _DISKS_OWN else EXIT_REFUSED
            self._opened.settle(None, Refusal(f"{self._path} cannot be used: {error}", code))
        except (sqlite3.Error, FileGone) as error:
            self._fail(error)
        finally:
            self._fail_waiting(stopped())
            while self._backups:
                self._end_backup(self._backups.popleft(), None, stopped())
            if self._lock is not None:
                os.close(self._lock)

    def _open(self) -> sqlite3.Connection:
        if self._path is None:
            connection = open_in_memory(self._schema)
            if self._replica is not None:
                self._replica.open(connection)
        else:
            self._path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
            self._lock = lock(real_path(self._path))
            self._file = open_database(self._path, self._schema)
            connection = self._file.connection
        self.epoch = read_epoch(connection)
        return connection

    def _serve(self, connection: sqlite3.Connection) -> None:
        """Commit batches until the store is closed; then close the file, unless it must not be used any more."""
        is_last = False
        while not is_last:
            batch, is_last = self._take()
            if batch and not self._commit(connection, batch):
                # Stays open until the process ends: closing would move the log through the disk that has failed.
                self._abandoned = connection
                return
            while self._backups and self._file is not None:
                self._back_up(self._file, self._backups.popleft())
        if self._file is not None:
            self._file.close()
        else:
            connection.close()
            if self._replica is not None:
                self._replica.close()

    def _take(self) -> tuple[list[_Submission], bool]:
        """Wait for the next batch. True with the last one: the store has been closed."""
        batch: list[_Submission] = []
        submission = self._queue.get()
        while submission is not None:
            batch.append(submission)
            if len(batch) == self._max_batch:
                return batch, False
            try:
                submission = self._queue.get_nowait()
            except Empty:
                return batch, False
        return batch, True

    def _commit(self, connection: sqlite3.Connection, batch: list[_Submission]) -> bool:
        """Run a batch as one transaction and answer it; False when the file must not be used any more."""
        left, failure = batch, self._transact(connection, batch)
        while isinstance(failure, _PartialWrite):
            # Rare, and worth another run: a savepoint for each command costs a third of all speed.
            left = [submission for submission in left if submission is not failure.submission]
            failure = self._transact(connection, left)
        if failure is None:
            self._answer(batch)
            self._limit_log()
            return True
        if len(left) > 1 and (is_full(failure) or isinstance(failure, _HookFailed | StorageFailure)):
            # A command that is too large must not fail the others: each gets a transaction of its own.
            self._answer([submission for submission in batch if submission not in left])
            return all([self._commit(connection, [submission]) for submission in left])
        cause = failure.cause if isinstance(failure, _HookFailed) else failure
        for submission in left:
            submission.error = error_from(cause)
        is_over = is_fatal(cause)
        self._is_closed = self._is_closed or is_over
        self._answer(batch)
        if is_over:
            self._fail(cause)
        return not is_over

    def _back_up(self, file: OpenFile, pending: Pending[Path | None]) -> None:
        def serve(*_: int) -> None:
            """Commit what has come meanwhile; SQLite brings the copy up to date with it."""
            batch: list[_Submission] = []
            while len(batch) < MAX_BATCH and not self._queue.empty():
                submission = self._queue.get()
                if submission is None:
                    self._queue.put(None)  # the store is being closed, after the copy
                    break
                batch.append(submission)
            if batch and not self._commit(file.connection, batch):
                raise FileGone("the store has failed")

        try:
            self._end_backup(pending, copy_database(file.connection, file.path, serve))
        except (sqlite3.Error, OSError, FileGone) as error:
            failure = StorageFailure(FULL if is_full(error) else UNUSABLE, f"the copy was not made: {error}")
            self._end_backup(pending, None, failure)

    @staticmethod
    def _end_backup(pending: Pending[Path | None], copy: Path | None, error: BaseException | None = None) -> None:
        pending.settle(copy, error)
        wake([pending])

    def _transact(self, connection: sqlite3.Connection, batch: list[_Submission]) -> Exception | None:
        try:
            self._hook.begin()
            connection.execute("BEGIN IMMEDIATE")
            for submission in batch:
                _run(connection, submission)
            try:
                self._hook.finish(connection)
            except Exception as error:
                # The boundary to the worker's hook, as that to its commands.
                if is_fatal(error) or is_full(error):
                    raise
                raise _HookFailed(error) from error
            if self._replica is not None:
                self._replica.save(lambda: self._give_up(batch))
            connection.execute("COMMIT")
            if self._file is not None:
                self._file.acknowledge()
        except (sqlite3.Error, FileGone, StorageFailure, _PartialWrite, _HookFailed) as error:
            _roll_back(connection)
            return error
        if self._replica is not None:
            self._replica.committed()
        self.commits += 1
        self._hook.committed()
        return None

    def _answer(self, batch: list[_Submission]) -> None:
        for submission in batch:
            if submission.error is None and submission.then is not None:
                submission.then(submission.value)
            submission.pending.settle(submission.value, submission.error)
        wake([submission.pending for submission in batch])

    def _give_up(self, batch: list[_Submission]) -> bool:
        """Let no caller wait longer, while the transaction does: it may still be stored. False when it must not."""
        for submission in batch:
            submission.pending.settle(None, no_quorum(may_be_stored=True))
        wake([submission.pending for submission in batch])
        self._fail_waiting(no_quorum(may_be_stored=False))
        return not self._is_closed

    def _limit_log(self) -> None:
        if self._file is not None and self.commits % 64 == 0 and self._file.log_bytes() > MAX_LOG_BYTES:
            self._file.truncate_log()

    def _fail(self, failure: Exception) -> None:
        self._is_closed = True
        self._fail_waiting(error_from(failure))
        self._on_fatal(failure)

    def _fail_waiting(self, error: BaseException) -> None:
        waiting: list[_Submission] = []
        while not self._queue.empty():
            try:
                submission = self._queue.get_nowait()
            except Empty:
                break
            if submission is not None:
                submission.error = error
                waiting.append(submission)
        self._answer(waiting)


class _PartialWrite(Exception):
    """A command has failed after it had written something."""

    def __init__(self, submission: _Submission) -> None:
        super().__init__("partial write")
        self.submission = submission


class _HookFailed(Exception):
    """The hook could not write what the commands have left there. Which command is the cause is unknown."""

    def __init__(self, cause: Exception) -> None:
        super().__init__(str(cause))
        self.cause = cause


def _run(connection: sqlite3.Connection, submission: _Submission) -> None:
    """Run a command; one that fails before its first write leaves nothing to undo."""
    changes = connection.total_changes
    try:
        # The boundary to a worker's commands: whatever they raise is their caller's.
        submission.value, submission.error = submission.command(connection), None
    except Exception as error:
        # An error keeps its frames, they their cursors, and a half-read cursor keeps the log from ever being truncated.
        clear_frames(error.__traceback__)
        if is_fatal(error) or is_full(error):
            raise
        submission.error = error_from(error)
        if connection.total_changes != changes or not connection.in_transaction:
            raise _PartialWrite(submission) from error


def _roll_back(connection: sqlite3.Connection) -> None:
    try:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
    except sqlite3.Error as error:
        sys.stderr.write(f"iii: rollback failed: {error}\n")


def end_process(error: BaseException) -> None:
    """Say why nothing more can be stored, and end the process once callers had the time to hear of it."""
    cause = error if isinstance(error, FileGone) else f"the disk failed ({error})"
    sys.stderr.write(f"iii: {cause}; nothing more can be made durable, so this process ends\n")
    sys.stderr.flush()
    timer = Timer(EXIT_TIMEOUT, os._exit, (EXIT_IO,))
    timer.daemon = True
    timer.start()


def look_after(worker: Worker, name: str, store: Store) -> None:
    """Close the store once the worker has stopped, and offer `storage::backup::NAME` for `iii backup`."""

    async def backup(_: Any) -> dict[str, str | None]:
        path = await store.backup()
        return {"path": None if path is None else str(path)}

    worker.before_stop(lambda _: store.close)
    description = f"Copy the data of {name} into a file beside it"
    metadata = {"internal": True, "store": name}
    formats = load_declarations(Path(__file__).parent).functions["storage::backup"]
    worker.register_function(f"{BACKUP}{name}", backup, description=description, metadata=metadata, **formats)


def open_store(name: str, schema: Schema, *, in_memory: bool) -> Store:
    """Open `.iii/NAME.db` of the worker's project, or nothing but memory. Ends the process when it must not be used."""
    path = None if in_memory else Path(os.environ.get("III_PROJECT") or ".", ".iii", f"{name}.db")
    try:
        return Store(path, schema)
    except Refusal as refusal:
        end_worker(f"{name}: {refusal}", refusal.exit_code)
