"""The key that clients over HTTP show: 256 random bits in `.iii/mcp.key`, which only the project's user can read.

It is kept over restarts, since it stands in the configuration of clients. It opens this worker alone: the engine's own
token would let a client call everything.
"""

from __future__ import annotations

import os
import secrets
import stat
from pathlib import Path

NAME = "mcp.key"
LEAST = 32
_MOST = 256


def read_or_make(folder: Path) -> str:
    """Return the key in this folder, making one if there is none. ValueError for a file that cannot be trusted."""
    path = folder / NAME
    key = secrets.token_urlsafe(32)
    draft = folder / f".{NAME}.{secrets.token_hex(8)}"
    descriptor = os.open(draft, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW, 0o600)
    with open(descriptor, "w", encoding="ascii") as file:
        file.write(key)
    try:
        # In one step, and never over a key: two generations that start at once have the same.
        os.link(draft, path)
        return key
    except FileExistsError:
        return _read(path)
    finally:
        draft.unlink()


def _read(path: Path) -> str:
    try:
        descriptor = os.open(path, os.O_RDONLY | os.O_NOFOLLOW | os.O_NONBLOCK)
    except OSError as error:
        raise ValueError(f"{path} cannot be read ({error.strerror}); remove it, and a new key is made") from None
    with open(descriptor, "rb") as file:
        facts = os.fstat(descriptor)
        if not stat.S_ISREG(facts.st_mode) or facts.st_uid != os.getuid() or facts.st_mode & 0o077:
            raise ValueError(f"{path} can be read by others; remove it, and a new key is made")
        data = file.read(_MOST + 1).strip()
    if not LEAST <= len(data) <= _MOST or not data.isascii():
        raise ValueError(f"{path} holds no key; remove it, and a new one is made")
    return data.decode()
