"""The socket that HTTP is served on."""

from __future__ import annotations

import socket
from ipaddress import ip_address

from stdlib_workers.values.serving import listening_socket


def loopback_socket(host: str, port: int) -> socket.socket:
    """Return the socket to serve on. OSError when the port is taken, ValueError where other machines reach it."""
    sock = listening_socket(host, port)
    address = sock.getsockname()[0]
    if not ip_address(address).is_loopback:
        sock.close()
        raise ValueError(f"listen must be an address of this machine alone, such as 127.0.0.1:{port}, got {address}")
    return sock
