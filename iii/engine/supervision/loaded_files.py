"""Whether files still hold what a worker has loaded from them.

A save in place empties a file before it fills it. A worker that started in between has loaded an empty module: such a
worker must not serve. So nothing is decided while a file was changed a moment ago, and then contents are compared.
"""

from __future__ import annotations

import asyncio
import os
import time
from collections.abc import Iterable, Mapping

from iii.engine.config.regular_file import digest_of_file

# Seconds without a change of a file after which no save of it is under way, at first.
AT_REST = 0.1
# The same for the generations after one that had loaded what was no longer there, and how many of those are replaced:
# then it must be the start itself that changes the file.
LONG_REST = 1.0
MAX_STALE = 3
# Seconds to wait for the end of saves.
MAX_REST_TIMEOUT = 10.0
# Bytes that are compared on the event loop, in a few milliseconds; more in a thread.
INLINE_SIZE = 256 * 1024


async def changed_since_loaded(digests: Mapping[str, str], rest: float = AT_REST) -> tuple[str, ...]:
    """Return the files that hold something else than their digest says, once they have been at rest for `rest` seconds.

    Raises TimeoutError if they are saved on and on.
    """
    deadline = time.monotonic() + MAX_REST_TIMEOUT
    while True:
        size, changed_at = _state_of(digests)
        age = time.time() - changed_at
        if not 0 <= age < rest:  # less than 0: another machine's clock
            break
        if time.monotonic() > deadline:
            raise TimeoutError
        await asyncio.sleep(rest - age)
    if size <= INLINE_SIZE:
        return _changed(digests)
    return await asyncio.to_thread(_changed, digests)


def _changed(digests: Mapping[str, str]) -> tuple[str, ...]:
    return tuple(path for path, digest in digests.items() if digest_of_file(path) != digest)


def _state_of(paths: Iterable[str]) -> tuple[int, float]:
    """Return the size of all files together, and when one of them was last changed, in seconds since the epoch."""
    size, changed_at = 0, 0.0
    for path in paths:
        try:
            status = os.stat(path)
        except OSError:
            continue
        size += status.st_size
        changed_at = max(changed_at, status.st_ctime)
    return size, changed_at
