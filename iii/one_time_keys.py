"""Keys that open the console once: the engine and `iii console` make them, the console's worker redeems them.

A key is kept as the name of an empty file, which is its digest: what lies in `.iii/console/keys` opens nothing, and
removing a file is what makes the second use fail, whichever process comes first.
"""

from __future__ import annotations

import hashlib
import os
from base64 import urlsafe_b64encode

TYPE_CHECKING = False
if TYPE_CHECKING:
    from pathlib import Path

FOLDER = ("console", "keys")  # in `.iii`
# Keys that nobody has used yet; the oldest goes.
MAX_KEYS = 16


def make_key(state_dir: Path) -> str:
    """Return a new key. `state_dir` is the project's `.iii`. OSError when the folder cannot be written."""
    folder = private_folder(state_dir, *FOLDER)
    # As `secrets` does it, which would load more: the engine makes a key at its start.
    key = urlsafe_b64encode(os.urandom(32)).rstrip(b"=").decode("ascii")
    os.close(os.open(folder / digest_of(key), os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600))
    forget_oldest(folder, MAX_KEYS)
    return key


def redeem(state_dir: Path, key: str) -> bool:
    """Whether the key is one that was made and not yet used; it is used now."""
    try:
        os.unlink(state_dir.joinpath(*FOLDER, digest_of(key)))
    except OSError:
        return False
    return True


def forget_keys(state_dir: Path) -> None:
    """Make the keys of earlier runs worthless."""
    folder = state_dir.joinpath(*FOLDER)
    if folder.is_dir():
        forget_oldest(folder, 0)


def digest_of(secret: str) -> str:
    """Return the name under which a secret is kept."""
    return hashlib.sha256(secret.encode("utf-8", "replace")).hexdigest()


def private_folder(state_dir: Path, *names: str) -> Path:
    """Return a folder in `.iii` that only this user can enter, making it if it is not there."""
    folder = state_dir
    for name in names:
        folder = folder / name
        folder.mkdir(mode=0o700, exist_ok=True)
    status = folder.lstat()
    if status.st_uid != os.getuid():
        raise PermissionError(1, "belongs to another user", str(folder))
    if status.st_mode & 0o077:
        folder.chmod(0o700)
    return folder


def forget_oldest(folder: Path, limit: int) -> None:
    """Remove the oldest files until at most `limit` are left."""
    entries = sorted(os.scandir(folder), key=lambda entry: entry.stat(follow_symlinks=False).st_mtime)
    for entry in entries[: max(0, len(entries) - limit)]:
        try:
            os.unlink(entry.path)
        except FileNotFoundError:
            continue  # used meanwhile
