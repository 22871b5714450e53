"""The settings with which every standard worker serves HTTP: uvicorn without what the workers do themselves."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    import uvicorn

# The names of this machine that a client of a loopback port may write in its Host header.
LOOPBACK = ("127.0.0.1", "localhost", "[::1]")


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
