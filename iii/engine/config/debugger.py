"""`iii dev --debug NAME`: one worker in a debugger.

Finds out whether the worker can run in a debugger, and chooses the address where the debugger's client connects. The
launcher makes the worker listen there (III_DEBUG), and the message pump lets no deadline pass meanwhile.
"""

from __future__ import annotations

import socket
import subprocess
import sys
from pathlib import Path

from msgspec.structs import replace

from iii.engine.config.spec import ProjectSpec
from iii.errors import ProjectError

PORT = 5678  # where editors look for debugpy unless told otherwise
# A worker may stand at a breakpoint while its script starts.
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
    debugged = replace(spec, debug=_free_address(), instances=1, ready_timeout=READY_TIMEOUT)
    return replace(project, workers={**project.workers, name: debugged})


def _free_address() -> str:
    for port in (PORT, 0):
        with socket.socket() as probe:
            try:
                probe.bind(("127.0.0.1", port))
            except OSError:
                continue
            return f"127.0.0.1:{probe.getsockname()[1]}"
    raise ProjectError("--debug: no port is free on 127.0.0.1", hint="close something")
