"""A TCP address of the project: the socket that listens on it, and how other programs reach it.

The socket is bound before any worker starts, because the environment of a worker holds the address. Ports are bound
and never probed: a port that was free a moment ago may be taken. Accepting is `accept.py`'s job.
"""

from __future__ import annotations

import contextlib
import errno
import socket
from collections.abc import Callable

from iii.errors import ProjectError

Opened = Callable[[str, int], socket.socket | None]

# How many ports are tried from a default port on.
_MAX_PORTS = 64
_LOOPBACK = ("127.0.0.1", "localhost", "::1", "[::1]")
_ANY = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]", "::": "[::1]"}


class Address:
    """A socket that listens on `listen` (`host:port`), or on a port above it if the port is only a default.

    `line` is the line of iii.toml that names the address, 0 for a default. `opened(host, port)` returns a socket that
    listens there already, or None. Raises `ProjectError` if the address cannot be bound.
    """

    def __init__(self, listen: str, *, line: int = 0, opened: Opened = lambda *_: None) -> None:
        self.host, _, port = listen.rpartition(":")
        self.socket = opened(self.host, int(port)) or _bind(self.host, int(port), line)
        self.socket.setblocking(False)
        self.port: int = self.socket.getsockname()[1]
        self.is_moved = int(port) not in (0, self.port)

    def __str__(self) -> str:
        """`host:port` as a program on this machine reaches it."""
        return f"{_ANY.get(self.host, self.host)}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return self.host in _LOOPBACK


def _bind(host: str, port: int, line: int) -> socket.socket:
    is_movable = not line and port
    for candidate in range(port, min(port + _MAX_PORTS, 65536) if is_movable else port + 1):
        try:
            return _listening(host, candidate)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise ProjectError(
                    f"cannot listen on {host}:{port}: {error.strerror or error}", file="iii.toml", line=line
                ) from error
    hint = "stop it, or name another port"
    raise ProjectError(f"port {port} is taken by {holder_of(port)}", file="iii.toml", line=line, hint=hint)


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        # A connection of the previous run in TIME_WAIT must not block the port.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host.strip("[]"), port))
        listening.listen(256)
    except OSError:
        listening.close()
        raise
    return listening


def holder_of(port: int) -> str:
    """Return name and pid of the process that listens on a port, `another process` if it belongs to another user."""
    import psutil  # only for the text of an error

    try:
        connections = psutil.net_connections("tcp")
    except psutil.Error:
        return "another process"
    for connection in connections:
        is_listening = connection.status == psutil.CONN_LISTEN and connection.laddr and connection.laddr.port == port
        if is_listening and connection.pid:
            with contextlib.suppress(psutil.Error):
                return f"{psutil.Process(connection.pid).name()} (pid {connection.pid})"
    return "another process"
