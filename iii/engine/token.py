"""The token of a running engine: who can read `.iii/run/token` may connect to its WebSocket listener.

256 bits, made anew by every engine, readable by this user only. Made by the composition root, read by `iii token`.
"""

from __future__ import annotations

import os
import stat
from base64 import urlsafe_b64encode
from pathlib import Path

from iii.errors import ProjectError

NAME = "token"


def make_token(run_dir: Path) -> str:
    """Write a fresh token; return it. Raises `ProjectError` if something that is not ours stands in its place."""
    path = run_dir / NAME
    try:
        found = path.lstat()
    except FileNotFoundError:
        pass
    else:
        if not stat.S_ISREG(found.st_mode) or found.st_uid != os.getuid():
            raise ProjectError(f"{path} is not a file of yours", hint="find out who put it there, then remove it")
        path.unlink()
    # As `secrets` does it, which would load hmac and random as well, before the first worker starts.
    token = urlsafe_b64encode(os.urandom(32)).rstrip(b"=").decode("ascii")
    fd = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL | os.O_NOFOLLOW | os.O_CLOEXEC, 0o600)
    with open(fd, "w", encoding="ascii") as stream:
        stream.write(token)
    return token


def read_token(run_dir: Path) -> str | None:
    """Return the token of the engine that runs there, None if there is none."""
    try:
        return (run_dir / NAME).read_text(encoding="ascii")
    except FileNotFoundError:
        return None


def remove_token(run_dir: Path) -> None:
    """The engine is gone, and its token with it."""
    (run_dir / NAME).unlink(missing_ok=True)
