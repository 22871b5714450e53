"""What the standard workers that serve HTTP share: the socket, its address, uvicorn without what they do themselves."""

from __future__ import annotations

import os
import socket
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import uvicorn

# The names of this machine that a client of a loopback port may write in its Host header.
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


def listening_socket(host: str, port: int) -> socket.socket:
    """Return the socket that the engine has opened for this worker, or open one. OSError when the port is taken."""
    if descriptors := os.environ.get("III_LISTEN_FDS"):
        return socket.socket(fileno=os.dup(int(descriptors.partition(",")[0])))
    return socket.create_server((host, port), family=socket.AF_INET6 if ":" in host else socket.AF_INET)


def address_of(sock: socket.socket) -> str:
    """Return the URL of a listening socket, without a path."""
    host, port = sock.getsockname()[:2]
    return f"http://[{host}]:{port}" if ":" in host else f"http://{host}:{port}"


def uvicorn_config(application: Any, **options: Any) -> uvicorn.Config:
    """Return the settings for an ASGI application; `options` are uvicorn's own."""
    import uvicorn  # a worker may be ready before it serves

    return uvicorn.Config(
        application,
        interface="asgi3",
        lifespan="off",
        log_config=None,
        access_log=False,
        proxy_headers=False,
        server_header=False,
        **options,
    )
