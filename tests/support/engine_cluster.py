"""Several real engines of one project on NATS servers of this machine, each with the workers that a test gives it."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

from tests.support.ground import Ground, eventually
from tests.support.nats_servers import NatsServers


class EngineCluster:
    """Engines by name. `add` declares one, `start` runs it, `sees` waits until another one's functions are known."""

    def __init__(self, folder: Path, servers: NatsServers | None) -> None:
        self._folder = folder
        self.servers = servers
        self.grounds: dict[str, Ground] = {}

    def __getitem__(self, name: str) -> Ground:
        return self.grounds[name]

    def add(self, name: str, *, urls: list[str] | None = None, table: str = "", folder: str | None = None) -> Ground:
        """Declare an engine; `table` are further lines of its [cluster]."""
        path = self._folder / (folder or name)
        path.mkdir()
        ground = self.grounds[folder or name] = Ground(path)
        servers = json.dumps(urls or (self.servers.urls if self.servers else []))
        ground.head += f'[cluster]\nname = "shop"\nengine = "{name}"\nservers = {servers}\n{table}'
        return ground

    def start(self, *names: str, prefix: tuple[str, ...] = ()) -> None:
        for name in names or tuple(self.grounds):
            self.grounds[name].start(prefix=prefix)

    def info(self, name: str) -> dict[str, Any]:
        """Return what an engine says of its cluster."""
        described: dict[str, Any] = self[name].call("engine::cluster::info")
        return described

    def knows(self, name: str) -> set[str]:
        """Return the names of the engines that an engine knows, itself among them."""
        return {row["engine"] for row in self.info(name)["engines"]}

    def await_function(self, name: str, function_id: str) -> None:
        """Wait until callers of an engine can call this function."""
        eventually(lambda: function_id in self.functions(name))

    def functions(self, name: str) -> dict[str, list[str]]:
        """Return the engines that have each function, as an engine sees them."""
        rows = self[name].call("engine::functions::list")["functions"]
        return {row["function_id"]: row.get("engines", []) for row in rows}

    def kill(self, name: str) -> None:
        """End an engine and its guard as a crash of both does; its workers end with it."""
        ground = self[name]
        ground.laws.clear()
        pid = ground.engine_pid
        ground.guard.kill()
        os.kill(pid, signal.SIGKILL)
        ground.await_exit()

    def start_again(self, name: str) -> None:
        """Start an engine that was killed."""
        ground = self[name]
        shown = len(ground.shown)
        ground.launch()
        ground.await_line("ready in", shown)
        ground.facts()

    def close(self) -> None:
        for ground in self.grounds.values():
            ground.close()
