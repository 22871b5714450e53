"""A project with every standard worker, beside a second engine that its bridge is connected to."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path

from tests.support.live_project import Project, free_ports, project

FAR = '[engine]\nlisten = "127.0.0.1:{far}"\n[workers.state]\n'
NEAR = """
[engine]
listen = "off"
check_results = true
[workers.state]
[workers.stream.config]
port = {stream}
[workers.queue]
[workers.flow]
[workers.pubsub]
[workers.configuration]
[workers.cron]
[workers.http.config]
port = {http}
[workers.http_functions.config.security]
block_private_ips = false
require_https = false
[workers.bridge.config]
url = "ws://127.0.0.1:{far}"
[workers.console.config]
port = 0
[workers.observability.config]
prometheus = false
[workers.mcp.config]
port = 0
"""


@contextmanager
def standard_project(folder: Path, workers: Mapping[str, str]) -> Iterator[Project]:
    """Run it with these workers of its own; its `ports` are those of `http` and `stream`."""
    ports = free_ports("far", "http", "stream")
    toml = NEAR.format(**ports) + "".join(f'[workers.{name}]\nrun = "{name}.py"\n' for name in workers)
    (folder / "far").mkdir()
    (folder / "near").mkdir()
    with project(folder / "far", FAR.format(**ports), {}), project(folder / "near", toml, workers) as near:
        near.wait("bridge: ws://")
        near.ports = ports
        yield near
