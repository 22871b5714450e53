"""What the engine has to do with systemd, or a manager with its protocol (sd_notify, socket activation).

The manager starts the guard, and the engine is the guard's child: both pids mean us. All variables of the protocol are
taken out of the environment, so that no worker inherits them. The guard keeps its own copy of them and of the sockets,
so a crashed engine that it starts again finds the same.
"""

from __future__ import annotations

import os
import socket
import time
from collections.abc import Callable, MutableMapping

# The first descriptor that a manager passes (sd_listen_fds).
FIRST_SOCKET = 3
READY, STOPPING = "READY=1", "STOPPING=1"
_NAMES = ("NOTIFY_SOCKET", "WATCHDOG_USEC", "WATCHDOG_PID", "LISTEN_FDS", "LISTEN_PID", "LISTEN_FDNAMES")


class ServiceManager:
    """Tells the manager how the engine is, and has the sockets that it has opened. Without a manager it does nothing.

    `warn` says a sentence to the user.
    """

    def __init__(self, environ: MutableMapping[str, str], warn: Callable[[str], None]) -> None:
        given = {name: environ.pop(name, "") for name in _NAMES}
        self._warn = warn
        self._address = given["NOTIFY_SOCKET"]
        self._notifying: socket.socket | None = None
        if self._address:
            self._notifying = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
            self._notifying.setblocking(False)
        microseconds = given["WATCHDOG_USEC"]
        is_watched = microseconds.isdecimal() and _means_us(given["WATCHDOG_PID"] or str(os.getpid()))
        # Half of the seconds within which the manager wants to hear of us; 0 for a manager that does not.
        self.watchdog_interval = int(microseconds) / 2e6 if is_watched and self._notifying else 0.0
        count = int(given["LISTEN_FDS"]) if given["LISTEN_FDS"].isdecimal() and _means_us(given["LISTEN_PID"]) else 0
        self._sockets: dict[tuple[str, int], socket.socket] = {}
        self._used: set[socket.socket] = set()
        for fd in range(FIRST_SOCKET, FIRST_SOCKET + count):
            self._take(fd)

    def _take(self, fd: int) -> None:
        try:
            passed = socket.socket(fileno=os.dup(fd))  # not inherited by workers; the guard's stays open
        except OSError as error:
            self._warn(f"descriptor {fd} of LISTEN_FDS is no socket: {error.strerror}")
            return
        os.set_inheritable(fd, False)
        is_stream = passed.family in (socket.AF_INET, socket.AF_INET6) and passed.type == socket.SOCK_STREAM
        if is_stream and passed.getsockopt(socket.SOL_SOCKET, socket.SO_ACCEPTCONN):
            self._sockets[passed.getsockname()[:2]] = passed
        else:
            self._warn(f"descriptor {fd} of LISTEN_FDS is no listening TCP socket, and is not used")
            passed.close()

    def socket_for(self, host: str, port: int) -> socket.socket | None:
        """Return a copy of the manager's socket for an address, None if there is none.

        The manager keeps its own: nobody else can bind the address, also after the copy is closed.
        """
        found = self._sockets.get(("127.0.0.1" if host == "localhost" else host.strip("[]"), port))
        if found is None:
            return None
        self._used.add(found)
        return found.dup()

    def report_unused(self) -> None:
        """Say of sockets that nothing in iii.toml listens there."""
        for (host, port), passed in self._sockets.items():
            if passed not in self._used:
                where = f"[{host}]:{port}" if ":" in host else f"{host}:{port}"
                self._warn(f"the service manager has opened {where}, and nothing in iii.toml listens there")

    def notify(self, *lines: str) -> None:
        """Send a state such as `READY`. A manager that cannot be reached is said once."""
        if self._notifying is None:
            return
        address = "\0" + self._address[1:] if self._address.startswith("@") else self._address
        try:
            self._notifying.sendto("\n".join(lines).encode(), address)
        except BlockingIOError:
            pass  # the manager is behind; the next sign of life is on its way
        except OSError as error:
            self._warn(f"NOTIFY_SOCKET={self._address} cannot be reached: {error.strerror}")
            self.close()

    def reloading(self) -> None:
        """Say that the configuration is being read anew. `READY` ends that."""
        self.notify("RELOADING=1", f"MONOTONIC_USEC={time.clock_gettime_ns(time.CLOCK_MONOTONIC) // 1000}")

    def close(self) -> None:
        """Say nothing more."""
        if self._notifying is not None:
            self._notifying.close()
            self._notifying = None


def _means_us(pid: str) -> bool:
    """Whether a pid of the protocol is the engine's, or that of the guard, which the manager has started."""
    return pid.isdecimal() and int(pid) in (os.getpid(), os.getppid())
