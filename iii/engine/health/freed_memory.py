"""Returns freed memory to the system. Linux with glibc; elsewhere nothing is done.

glibc keeps freed blocks that lie below one still in use: after a burst of large messages the process stays as large as
it was at the height of it, for good. `malloc_trim` gives such pages back. It takes milliseconds, so it is called only
when the process is much larger than what it holds explains.
"""

from __future__ import annotations

import contextlib
import gc
import os
from collections.abc import Callable
from pathlib import Path

_STATM = Path("/proc/self/statm")
# Bytes by which the process may be larger than expected before the allocator is asked to give memory back.
SLACK = 8 * 1024 * 1024
# Checks between a trim that left much and the next ones. After the last of them what is left is in use for good.
RETRIES = (2, 4, 8, 16, 32)


def resident_bytes() -> int:
    """Return the resident memory of this process; 0 where the system does not tell."""
    try:
        return int(_STATM.read_bytes().split()[1]) * os.sysconf("SC_PAGE_SIZE")
    except OSError:
        return 0


def trim_allocator(*, is_idle: bool) -> None:
    """Give the pages that hold nothing back to the system; when idle, those of the interpreter's free lists as well."""
    import ctypes  # only an engine that has held much needs it

    if is_idle:
        gc.collect()  # with few objects alive this takes milliseconds
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).malloc_trim(0)


class FreedMemory:
    """Compares the size of the process with what it holds, from check to check."""

    def __init__(
        self, resident: Callable[[], int] = resident_bytes, trim: Callable[..., None] = trim_allocator
    ) -> None:
        self._resident = resident
        self._trim = trim
        self._expected: int | None = None  # bytes beside those held; None before the first check
        self._most_held = 0  # since the last trim
        self._checks_to_retry = self._retry_after = 0  # 0: what is left counts as in use

    def check(self, held: int) -> bool:
        """Trim if much has been freed and not returned; return whether it did. `held`: bytes that are in use."""
        self._most_held = max(self._most_held, held)
        beside = self._resident() - held
        if self._expected is None or beside < self._expected:
            if beside < (self._expected or 0) - SLACK:
                self._checks_to_retry = self._retry_after = 0  # it was given back without a trim
            self._expected = beside
        if beside <= self._expected + SLACK and self._most_held - held <= SLACK and not self._is_retry_due():
            return False
        before = self._expected
        self._trim(is_idle=held < SLACK)
        # What could not be given back is in use, and the next check expects it. Perhaps only for now: lines that a
        # worker has yet to read are freed later, and nothing else would tell of that.
        self._expected = self._resident() - held
        self._most_held = held
        if self._expected > before + SLACK:
            self._retry_after = RETRIES[0]
        elif self._retry_after:
            self._retry_after = next((checks for checks in RETRIES if checks > self._retry_after), 0)
        self._checks_to_retry = self._retry_after
        return True

    def _is_retry_due(self) -> bool:
        self._checks_to_retry -= 1
        return self._checks_to_retry == 0
