"""Folders that only this user can enter, and where in them the engine's socket lies.

The socket lies in `.iii/run/` (0700). A path too long for a socket address moves to a private runtime directory.
"""

from __future__ import annotations

import os
import stat
from pathlib import Path

from iii.errors import ProjectError

# `sun_path` holds 108 bytes on Linux and 104 on macOS, the closing NUL included.
_MAX_PATH = 103


def socket_path(run_dir: Path, name: str = "engine.sock") -> Path:
    """Return where the socket goes: in `run_dir`, or, if that path is too long, in a private runtime directory."""
    path = run_dir / name
    if len(os.fsencode(path)) <= _MAX_PATH:
        return path
    import hashlib  # noqa: PLC0415 - few paths are so long

    digest = hashlib.sha256(os.fsencode(run_dir)).hexdigest()[:16]
    return _runtime_dir() / f"{digest}.sock"


def _runtime_dir() -> Path:
    import tempfile  # noqa: PLC0415 - as above

    base = os.environ.get("XDG_RUNTIME_DIR")
    folder = Path(base) / "iii" if base else Path(tempfile.gettempdir()) / f"iii-{os.getuid()}"
    make_private(folder)
    return folder


def make_private(folder: Path) -> None:
    """Make a directory that only this user can enter. Raises `ProjectError` if that cannot be had there."""
    try:
        folder.mkdir(mode=0o700, parents=True, exist_ok=True)
    except FileExistsError:
        pass  # no directory: told below
    except OSError as error:
        text = f"{folder} cannot be made: {error.strerror}"
        raise ProjectError(text, hint="the engine keeps its state there: make the folder above it writable") from None
    found = folder.lstat()
    if not stat.S_ISDIR(found.st_mode) or found.st_uid != os.getuid():
        raise ProjectError(f"{folder} is not a directory of yours", hint="remove it, or set XDG_RUNTIME_DIR")
    folder.chmod(0o700)
