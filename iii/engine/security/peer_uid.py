"""Which user owns the client's end of a loopback connection, from the kernel's socket table.

Linux only (/proc/net/tcp, /proc/net/tcp6). On other systems every client counts as another user and has to show the
token.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import sys
from pathlib import Path

Address = tuple[str, int]

_TABLES = (Path("/proc/net/tcp"), Path("/proc/net/tcp6"))
_LOCAL, _REMOTE, _UID, _INODE = 1, 2, 7, 9


def is_same_user(client: Address, server: Address) -> bool:
    """Whether the socket bound to `client` and connected to `server` belongs to the engine's user."""
    for path in _TABLES:
        with contextlib.suppress(OSError):
            if owner_in(path.read_bytes(), client, server) == os.getuid():
                return True
    return False


def owner_in(table: bytes, client: Address, server: Address) -> int | None:
    """Return the uid of the socket from `client` to `server` in the text of a table, None if there is none.

    A row without inode is a socket that no process holds any more: the kernel shows uid 0 for it.
    """
    wanted = {(_hex(client, mapped), _hex(server, mapped)) for mapped in (False, True)}
    for row in table.splitlines()[1:]:
        fields = row.split()
        if (fields[_LOCAL], fields[_REMOTE]) in wanted and fields[_INODE] != b"0":
            return int(fields[_UID])
    return None


def _hex(address: Address, mapped: bool) -> bytes:
    """Format an address as the table does: 32-bit words in the machine's byte order."""
    packed = ipaddress.ip_address(address[0]).packed
    if mapped and len(packed) == 4:
        packed = b"\0" * 10 + b"\xff\xff" + packed
    words = [packed[at : at + 4] for at in range(0, len(packed), 4)]
    text = "".join(f"{int.from_bytes(word, sys.byteorder):08X}" for word in words)
    return f"{text}:{address[1]:04X}".encode()
