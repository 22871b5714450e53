"""Pyro5: remote objects, a proxy for each thread that calls."""

from __future__ import annotations

import subprocess
import sys

import Pyro5.api
from figures import run_threads


@Pyro5.api.expose
class Adder:
    """The object in the other process."""

    def add(self, payload: dict[str, int]) -> dict[str, int]:
        """Add two numbers."""
        return {"c": payload["a"] + payload["b"]}


def serve() -> None:
    """Print the object's address and serve it."""
    Pyro5.config.SERVERTYPE = "thread"
    Pyro5.config.THREADPOOL_SIZE = 100
    with Pyro5.api.Daemon() as daemon:
        print(daemon.register(Adder), flush=True)
        daemon.requestLoop()


def main() -> None:
    """Call it."""
    server = subprocess.Popen([sys.executable, __file__, "serve"], stdout=subprocess.PIPE, text=True)
    assert server.stdout is not None
    address = server.stdout.readline().strip()

    def connect() -> object:
        proxies: list[Pyro5.api.Proxy] = []

        def call() -> object:
            # A proxy belongs to the thread that made it.
            if not proxies:
                proxies.append(Pyro5.api.Proxy(address))
            proxy = proxies[0]
            proxy._pyroClaimOwnership()
            return proxy.add({"a": 2, "b": 3})

        return call

    try:
        run_threads(connect)  # type: ignore[arg-type]
    finally:
        server.kill()
        server.communicate()


if __name__ == "__main__":
    serve() if sys.argv[1] == "serve" else main()
