"""The TCP address a project names, bound: a socket that listens, and how others reach it.

Bind, do not probe: what is bound is ours. Bound before any worker starts, whose environment tells the address;
`acceptor.py` accepts on it.
"""

from __future__ import annotations

import errno
import socket

from iii.errors import ProjectError

# How many ports above a taken default one are tried.
_TRIES = 64
_LOOPBACK = ("127.0.0.1", "localhost", "::1", "[::1]")
_ANY = {"0.0.0.0": "127.0.0.1", "[::]": "[::1]", "::": "[::1]"}


class Address:
    """A socket that listens where `listen` says, or near it when nobody named the port (`line` 0).

    Raises `ProjectError` when the address cannot be had; `line` is where iii.toml names it.
    """

    def __init__(self, listen: str, *, line: int = 0) -> None:
        self.host, _, port = listen.rpartition(":")
        self.socket = _bound(self.host, int(port), line)
        self.port: int = self.socket.getsockname()[1]
        self.is_moved = int(port) not in (0, self.port)

    def __str__(self) -> str:
        """`host:port` as a program on this machine reaches it."""
        return f"{_ANY.get(self.host, self.host)}:{self.port}"

    @property
    def is_loopback(self) -> bool:
        """Whether only this machine can reach it."""
        return self.host in _LOOPBACK


def _bound(host: str, port: int, line: int) -> socket.socket:
    is_movable = not line and port
    for candidate in range(port, min(port + _TRIES, 65536) if is_movable else port + 1):
        try:
            return _listening(host, candidate)
        except OSError as error:
            if error.errno != errno.EADDRINUSE:
                raise ProjectError(
                    f"cannot listen on {host}:{port}: {error.strerror or error}", file="iii.toml", line=line
                ) from None
    hint = "stop it, or name another port"
    raise ProjectError(f"port {port} is taken by {holder_of(port)}", file="iii.toml", line=line, hint=hint)


def _listening(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listening = socket.socket(family, socket.SOCK_STREAM)
    try:
        # A connection of the last run that still waits for its end must not keep the port from us.
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind((host.strip("[]"), port))
        listening.setblocking(False)
        listening.listen(256)
    except OSError:
        listening.close()
        raise
    return listening


def holder_of(port: int) -> str:
    """Say which process listens on a port, as far as we may know."""
    import psutil  # only for an error's words

    try:
        connections = psutil.net_connections("tcp")
    except psutil.Error:
        return "another process"
    for found in connections:
        if found.status == psutil.CONN_LISTEN and found.laddr and found.laddr.port == port and found.pid:
            try:
                return f"{psutil.Process(found.pid).name()} (pid {found.pid})"
            except psutil.Error:
                break
    return "another process"
