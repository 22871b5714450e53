"""Opens files that others name or put there, and never waits for one.

Where a file is expected there may be a named pipe, whose open waits for a writer, a device or a socket. Each is opened
non-blocking, and only a regular file is handed out; anything else is an OSError that says what it is.
"""

from __future__ import annotations

import errno
import hashlib
import os
import stat
from pathlib import Path

DIGEST_SIZE = 16  # bytes
MAX_HASHED = 64 * 1024 * 1024  # bytes of a file that is read whole to see whether it has changed

_KINDS = {
    stat.S_IFIFO: "a named pipe",
    stat.S_IFDIR: "a folder",
    stat.S_IFCHR: "a device",
    stat.S_IFBLK: "a device",
    stat.S_IFSOCK: "a socket",
}


def open_regular(path: str | Path, flags: int = os.O_RDONLY, *, follow: bool = False) -> int:
    """Return a descriptor on a regular file; a link is refused unless `follow`. New files get mode 0600.

    Raises OSError; its `strerror` says what the path is if that is no regular file.
    """
    flags |= os.O_NONBLOCK | os.O_CLOEXEC | os.O_NOCTTY | (0 if follow else os.O_NOFOLLOW)
    try:
        fd = os.open(path, flags, 0o600)
    except OSError as error:
        # ENXIO: a socket, or a pipe without a reader, opened for writing. Look before saying what it is.
        if error.errno in (errno.ENXIO, errno.EISDIR, errno.ENODEV):
            _refuse(path, os.stat(path).st_mode)
        if error.errno == errno.ELOOP and not follow:
            raise OSError(errno.ELOOP, "this is a symbolic link", str(path)) from None
        raise
    mode = os.fstat(fd).st_mode
    if not stat.S_ISREG(mode):
        os.close(fd)
        _refuse(path, mode)
    os.set_blocking(fd, True)
    return fd


def _refuse(path: str | Path, mode: int) -> None:
    kind = _KINDS.get(stat.S_IFMT(mode), "something else")
    raise OSError(errno.EINVAL, f"this is {kind}, not a file", str(path))


def read_regular(path: str | Path, limit: int) -> bytes:
    """Return what a regular file holds, links followed. Raises OSError, EFBIG for more than `limit` bytes."""
    with open(open_regular(path, follow=True), "rb", buffering=0) as file:
        if os.fstat(file.fileno()).st_size > limit:
            raise _too_large(path, limit)
        data = bytearray()
        while chunk := file.read(limit + 1 - len(data)):
            data += chunk
            if len(data) > limit:  # it grows while it is read, or is a file of /proc, which has no size
                raise _too_large(path, limit)
        return bytes(data)


def digest_of_file(path: str | Path) -> str | None:
    """Return the digest of what a regular file holds, links followed; None for what is no file or cannot be read.

    BLAKE2b of 16 bytes, as the SDK has it of the sources that it loads. Of a huge file it is the time of its change.
    """
    try:
        with open(open_regular(path, follow=True), "rb", buffering=0) as file:
            status = os.fstat(file.fileno())
            if status.st_size > MAX_HASHED:
                return f"{status.st_ino} {status.st_size} {status.st_mtime_ns}"
            return hashlib.blake2b(file.readall(), digest_size=DIGEST_SIZE).hexdigest()
    except OSError:
        return None


def _too_large(path: str | Path, limit: int) -> OSError:
    return OSError(errno.EFBIG, f"larger than {limit // 1024} KiB", str(path))
