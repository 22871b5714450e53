"""The socket that HTTP is served on, and its address."""

from __future__ import annotations

import os
import socket
from ipaddress import ip_address

DEFAULT_PORT = 3114
PATH = "/mcp"


def listening_socket(descriptors: str, host: str, port: int | None) -> socket.socket:
    """Return the socket that the engine has opened for this worker, or open one. OSError when the port is taken,
    ValueError for an address that other machines reach.

    `descriptors` is `III_LISTEN_FDS`.
    """
    if descriptors:
        sock = socket.socket(fileno=os.dup(int(descriptors.partition(",")[0])))
        address = sock.getsockname()[0]
        if not ip_address(address).is_loopback:
            sock.close()
            raise ValueError(f"listen must be an address of this machine alone, such as 127.0.0.1:3114, got {address}")
        return sock
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    return socket.create_server((host, DEFAULT_PORT if port is None else port), family=family)


def address_of(sock: socket.socket) -> str:
    """Return the URL of a listening socket, without a path."""
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"
