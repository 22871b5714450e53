"""Errors of the storage: refusals to start, failures of single commands, and the codes that callers get. Pure.

Only this module decides which errors end the process: after a failed write or fsync it is unknown what the disk holds,
so the process must end and leave it to the recovery at the next start.
"""

from __future__ import annotations

import sqlite3
from collections.abc import Callable
from functools import wraps
from inspect import iscoroutinefunction
from typing import Any

from iii import InvocationError

Handler = Callable[[Any], Any]

FULL = "storage_full"
UNUSABLE = "storage_error"
CORRUPT = "storage_corrupt"

EXIT_TAKEN = 4
EXIT_REFUSED = 5
EXIT_IO = 74  # EX_IOERR of sysexits.h

# Primary codes (the low byte) after which nothing that this process does with the file can be trusted.
_FATAL = frozenset({sqlite3.SQLITE_IOERR, sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB, sqlite3.SQLITE_CANTOPEN})
# The caller may try again: nothing was written and the cause may pass.
_PASSING = frozenset({sqlite3.SQLITE_BUSY, sqlite3.SQLITE_LOCKED, sqlite3.SQLITE_NOMEM})


class Refusal(Exception):
    """The storage must not be used: the worker prints the text and ends.

    `exit_code` is 4 for a file in use by another process, 5 for a refused file, 74 when another start may succeed.
    """

    def __init__(self, message: str, exit_code: int = EXIT_REFUSED) -> None:
        super().__init__(message)
        self.exit_code = exit_code


class FileGone(Exception):
    """The file that is open is not the one at its path any more: what was written to it is lost with this process."""

    may_be_stored = False  # what the last command wrote


class StorageFailure(InvocationError):
    """A command failed for the storage's own reasons: FULL, UNUSABLE or CORRUPT."""

    def with_code(self, code: str) -> InvocationError:
        """Return it under the code that the contract has for a function; our own code is in the details' `reason`."""
        details = {**self.details, "reason": self.code}
        return InvocationError(code, f"{self.code}: {self.message}", details=details, retryable=self.retryable)


def primary_code(error: sqlite3.Error) -> int:
    """Return the error's primary result code, 0 when it has none."""
    return (getattr(error, "sqlite_errorcode", 0) or 0) & 0xFF


def is_full(error: BaseException) -> bool:
    """Tell whether the disk (or a quota) had no room."""
    return isinstance(error, sqlite3.Error) and primary_code(error) == sqlite3.SQLITE_FULL


def is_fatal(error: BaseException) -> bool:
    """Tell whether the process must not go on using the file."""
    return isinstance(error, FileGone) or (isinstance(error, sqlite3.Error) and primary_code(error) in _FATAL)


def is_disks_own(error: sqlite3.Error) -> bool:
    """Tell whether the cause is the disk or a lock, not what the file holds."""
    return primary_code(error) in _PASSING | {sqlite3.SQLITE_IOERR, sqlite3.SQLITE_FULL}


def error_from(error: BaseException) -> BaseException:
    """Return what the caller of a failed command gets; errors of neither SQLite nor its file stay as they are."""
    if isinstance(error, FileGone):
        return StorageFailure(UNUSABLE, f"{error}; {_end(error.may_be_stored)}", retryable=not error.may_be_stored)
    if not isinstance(error, sqlite3.Error):
        return error
    code = primary_code(error)
    if code == sqlite3.SQLITE_FULL:
        return StorageFailure(FULL, f"the disk is full: {error}", retryable=True)
    if code in (sqlite3.SQLITE_CORRUPT, sqlite3.SQLITE_NOTADB):
        return StorageFailure(CORRUPT, f"the storage is damaged: {error}")
    text = f"the storage failed: {error}"
    return StorageFailure(UNUSABLE, text, retryable=code in _PASSING)


def stopped() -> InvocationError:
    """Return the error of a command that is sent after the store was closed or has failed."""
    return StorageFailure(UNUSABLE, "the storage is closed", retryable=True)


def _end(may_be_stored: bool) -> str:
    return "this may be stored or not" if may_be_stored else "this was not stored"


def no_quorum(*, may_be_stored: bool) -> StorageFailure:
    """Return the error of a command for which no majority of the servers is there."""
    text = f"no_quorum: no majority of the NATS servers answers; {_end(may_be_stored)}"
    return StorageFailure(UNUSABLE, text, retryable=not may_be_stored)


def map_storage_errors(code: str, handler: Handler) -> Handler:
    """Return the handler, async if it is; a `StorageFailure` in it becomes an InvocationError `code`.

    What the handler raises by itself passes unchanged.
    """
    if iscoroutinefunction(handler):

        @wraps(handler)
        async def run_async(payload: Any) -> Any:
            try:
                return await handler(payload)
            except StorageFailure as failure:
                raise failure.with_code(code) from None

        return run_async

    @wraps(handler)
    def run(payload: Any) -> Any:
        try:
            return handler(payload)
        except StorageFailure as failure:
            raise failure.with_code(code) from None

    return run
