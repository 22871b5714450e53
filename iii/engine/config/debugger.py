"""`iii dev --debug NAME`: one worker in a debugger.

Finds out whether the worker can have one, and where the debugger's client finds it. The launcher makes the worker
listen (III_DEBUG); the exchange lets no deadline pass meanwhile. Called by the composition root before the start.
"""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

from msgspec.structs import replace

from iii.engine.config.spec import ProjectSpec, WorkerSpec
from iii.errors import ProjectError

PORT = 5678  # where editors look for debugpy unless told otherwise
# Who stands at a breakpoint while its script starts is in no hurry.
READY_TIMEOUT = 24 * 3600.0
_PROBE = "import importlib.util, sys; sys.exit(importlib.util.find_spec('debugpy') is None)"


def with_debugger(project: ProjectSpec, name: str) -> ProjectSpec:
    """Return the project with this worker waiting for a debugger. Raises `ProjectError` if it cannot have one."""
    spec = project.workers.get(name)
    if spec is None:
        raise ProjectError(
            f"--debug {name}: there is no worker {name}", hint=f"there are: {', '.join(project.workers)}"
        )
    if spec.script is None:
        raise ProjectError(f"--debug {name}: worker {name} is no Python script", hint="start it with its own debugger")
    python = spec.python or Path(sys.executable)
    if subprocess.run([python, "-c", _PROBE], cwd="/", check=False).returncode:
        raise ProjectError(f"--debug {name}: {python} has no debugpy", hint=f"{python} -m pip install debugpy")
    return _with_worker(project, replace(spec, debug=_address(), instances=1, ready_timeout=READY_TIMEOUT))


def _with_worker(project: ProjectSpec, spec: WorkerSpec) -> ProjectSpec:
    return replace(project, workers={**project.workers, spec.name: spec})


def _address() -> str:
    for port in (PORT, 0):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return f"127.0.0.1:{probe.getsockname()[1]}"
    raise ProjectError("--debug: no port is free on 127.0.0.1", hint="close something")
