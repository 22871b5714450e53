"""What the C library does with memory that is freed. Nothing where it is not glibc.

By itself it gives freed memory back so eagerly that every line of a mebibyte is put into fresh pages, which the kernel
clears one by one: half of what passing such a line on costs.
"""

from __future__ import annotations

import contextlib

# mallopt(3)
_M_TRIM_THRESHOLD = -1
_M_MMAP_THRESHOLD = -3
# Bytes that stay at hand, and the size from which a block is given back as soon as it is freed.
KEPT = 8 * 1024 * 1024
SEPARATE = 4 * 1024 * 1024


def keep_freed_memory() -> None:
    """Keep some of what is freed for the next large line."""
    import ctypes  # noqa: PLC0415 - only an engine that sees large lines needs it

    with contextlib.suppress(OSError, AttributeError, TypeError):
        libc = ctypes.CDLL(None)
        libc.mallopt(_M_MMAP_THRESHOLD, SEPARATE)
        libc.mallopt(_M_TRIM_THRESHOLD, KEPT)
