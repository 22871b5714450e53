"""Which user and which process hold the client's end of a local connection, from the kernel.

Linux only (/proc/net/tcp, /proc/net/tcp6, /proc/PID/fd). On other systems every client counts as another user and has
to show the token, and no connection is known to belong to a process.
"""

from __future__ import annotations

import contextlib
import ipaddress
import os
import sys
from collections.abc import Sequence
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


def are_same_user(sockets: Sequence[tuple[Address, Address]]) -> list[bool]:
    """As `is_same_user`, of many sockets with one look at the tables: each as its client and its server."""
    own: set[tuple[bytes, bytes]] = set()
    uid = str(os.getuid()).encode()
    for path in _TABLES:
        with contextlib.suppress(OSError):
            rows = (row.split() for row in path.read_bytes().splitlines()[1:])
            own.update((row[_LOCAL], row[_REMOTE]) for row in rows if row[_UID] == uid and row[_INODE] != b"0")
    return [
        any((_hex(client, mapped), _hex(server, mapped)) in own for mapped in (False, True))
        for client, server in sockets
    ]


def owner_in(table: bytes, client: Address, server: Address) -> int | None:
    """Return the uid of the socket from `client` to `server` in the text of a table, None if there is none.

    A row without inode is a socket that no process holds any more: the kernel shows uid 0 for it.
    """
    fields = _row_of(table, client, server)
    return None if fields is None else int(fields[_UID])


def is_held_by(pid: int, client: Address, server: Address) -> bool:
    """Whether the process `pid` of this machine holds the socket bound to `client` and connected to `server`.

    What a client says about itself is no proof: a process of a container has the pid of another one here.
    """
    for path in _TABLES:
        with contextlib.suppress(OSError):
            inode = inode_in(path.read_bytes(), client, server)
            if inode is not None:
                return _holds(pid, inode)
    return False


def inode_in(table: bytes, client: Address, server: Address) -> int | None:
    """Return the inode of the socket from `client` to `server` in the text of a table, None if there is none."""
    fields = _row_of(table, client, server)
    return None if fields is None else int(fields[_INODE])


def _holds(pid: int, inode: int) -> bool:
    wanted = f"socket:[{inode}]"
    with contextlib.suppress(OSError), os.scandir(f"/proc/{pid}/fd") as descriptors:
        for descriptor in descriptors:
            with contextlib.suppress(OSError):  # closed meanwhile
                if os.readlink(descriptor.path) == wanted:
                    return True
    return False


def _row_of(table: bytes, client: Address, server: Address) -> list[bytes] | None:
    wanted = {(_hex(client, mapped), _hex(server, mapped)) for mapped in (False, True)}
    for row in table.splitlines()[1:]:
        fields = row.split()
        if (fields[_LOCAL], fields[_REMOTE]) in wanted and fields[_INODE] != b"0":
            return fields
    return None


def _hex(address: Address, mapped: bool) -> bytes:
    """Format an address as the table does: 32-bit words in the machine's byte order."""
    packed = ipaddress.ip_address(address[0]).packed
    if mapped and len(packed) == 4:
        packed = b"\0" * 10 + b"\xff\xff" + packed
    words = [packed[at : at + 4] for at in range(0, len(packed), 4)]
    text = "".join(f"{int.from_bytes(word, sys.byteorder):08X}" for word in words)
    return f"{text}:{address[1]:04X}".encode()
