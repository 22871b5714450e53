"""Hands the listening socket from one generation of the worker to the next, so that no connection is refused.

The running generation offers its socket in `.iii/run/`, a folder that only its user can enter. A successor takes a
duplicate of the descriptor and keeps the link open: as long as it is, the two share one queue of connections. The
link's end without a stop of ours means that the successor has failed.
"""

from __future__ import annotations

import asyncio
import os
import socket
from collections.abc import Callable
from pathlib import Path

# A running generation answers at once, whatever its load: it has nothing to do but to send a descriptor.
TAKE_SECONDS = 2.0
_GREETING = b"iii-http"


class Handover:
    """One end of the link: `take` before this process serves, `offer` once it does."""

    def __init__(self, folder: Path, name: str) -> None:
        self._folder = folder
        self._name = f"{name}.sock"
        self._link: socket.socket | None = None
        self._server: asyncio.Server | None = None
        self._successors = 0
        self.on_successor_lost: Callable[[], None] = lambda: None

    @property
    def has_successor(self) -> bool:
        """Whether another generation holds our socket too."""
        return self._successors > 0

    def take(self) -> socket.socket | None:
        """Return the listening socket of the generation that runs now, None without one."""
        link = socket.socket(socket.AF_UNIX)
        link.settimeout(TAKE_SECONDS)
        try:
            with _Reachable(self._folder) as folder:
                link.connect(f"{folder}/{self._name}")
            greeting, descriptors, _, _ = socket.recv_fds(link, len(_GREETING), 1)
        except OSError:
            link.close()
            return None
        if greeting != _GREETING or len(descriptors) != 1:
            link.close()
            return None
        self._link = link
        return socket.socket(fileno=descriptors[0])

    async def offer(self, listening: socket.socket) -> None:
        """Hand the socket to whoever asks from now on, in place of an earlier generation."""
        offered = socket.socket(socket.AF_UNIX)
        draft = f".{self._name}.{os.getpid()}"
        with _Reachable(self._folder) as folder:
            offered.bind(f"{folder}/{draft}")
            os.chmod(f"{folder}/{draft}", 0o600)
            offered.listen()
            # In one step: a generation that starts in this very moment finds one of the two.
            os.replace(f"{folder}/{draft}", f"{folder}/{self._name}")

        async def hand_over(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await self._serve(listening, reader, writer)

        self._server = await asyncio.start_unix_server(hand_over, sock=offered)

    async def _serve(
        self, listening: socket.socket, reader: asyncio.StreamReader, writer: asyncio.StreamWriter
    ) -> None:
        link: socket.socket = writer.get_extra_info("socket")
        self._successors += 1
        try:
            # The transport's own socket: nothing has been written to it, so it has room for a few bytes.
            with socket.socket(fileno=os.dup(link.fileno())) as duplicate:
                socket.send_fds(duplicate, [_GREETING], [listening.fileno()])
            await reader.read()
        except OSError:
            pass
        finally:
            self._successors -= 1
            writer.close()
        if not self._successors:
            self.on_successor_lost()

    def close(self) -> None:
        """Offer no more, and let go of the generation before."""
        if self._server is not None:
            self._server.close()
        if self._link is not None:
            self._link.close()


class _Reachable:
    """A folder's path that is short enough for a unix socket, however deep the project lies."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._fd = -1

    def __enter__(self) -> str:
        if len(str(self._folder)) < 60 or not os.path.isdir("/proc/self/fd"):
            return str(self._folder)
        self._fd = os.open(self._folder, os.O_RDONLY | os.O_DIRECTORY)
        return f"/proc/self/fd/{self._fd}"

    def __exit__(self, *_: object) -> None:
        if self._fd >= 0:
            os.close(self._fd)


def bind(host: str, port: int | None, default: int) -> socket.socket:
    """Return a socket bound to `port`; without one, to `default` or a port after it that is free.

    OSError when the named port is taken.
    """
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    for candidate in [port] if port is not None else [*range(default, default + 20), 0]:
        sock = socket.socket(family, socket.SOCK_STREAM)
        sock.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            sock.bind((host, candidate))
            sock.listen(2048)
        except OSError:
            sock.close()
            if port is not None:
                raise
        else:
            return sock
    raise OSError(f"no port from {default} on is free on {host}")


def is_bound_to(sock: socket.socket, host: str, port: int | None) -> bool:
    """Whether a socket taken over is the one that the configuration asks for now."""
    address = sock.getsockname()
    return address[0] in _addresses_of(host) and port in (None, 0, address[1])


def _addresses_of(host: str) -> set[str]:
    """Return a name's addresses: a socket knows only those. None for a name that means nothing."""
    try:
        return {str(found[4][0]) for found in socket.getaddrinfo(host, None, type=socket.SOCK_STREAM)}
    except OSError:
        return set()
