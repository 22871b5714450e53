"""One owner for each database file: an `flock` on `NAME.lock` beside it.

The kernel drops the lock with its holder, so a crash leaves nothing to clean up. The file's text is the holder's pid,
for the message only.
"""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

from stdlib_workers.storage.errors import EXIT_TAKEN, Refusal

# The kernel ends the workers of a killed engine with it, but a new engine may be faster, and a refusal is final.
LOCK_TIMEOUT = 5.0
RETRY_INTERVAL = 0.02


def lock(path: Path, timeout: float = LOCK_TIMEOUT) -> int:
    """Return the descriptor that holds the lock of `path`. Refusal (exit code 4) when another process has it."""
    path.parent.mkdir(mode=0o700, parents=True, exist_ok=True)
    file = path.with_name(path.name + ".lock")
    descriptor = os.open(file, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC | os.O_NOFOLLOW, 0o600)
    deadline = time.monotonic() + timeout
    while True:
        try:
            # Waiting for the lock in the kernel would have no timeout: try again.
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
            break
        except BlockingIOError:
            if time.monotonic() >= deadline:
                holder = os.read(descriptor, 32).decode(errors="replace").strip() or "unknown"
                os.close(descriptor)
                raise Refusal(f"{path} is in use by process {holder}; stop that engine first", EXIT_TAKEN) from None
        time.sleep(RETRY_INTERVAL)
    os.ftruncate(descriptor, 0)
    os.write(descriptor, f"{os.getpid()}\n".encode())
    return descriptor
