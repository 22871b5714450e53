"""The start of an engine, in the order that brings its workers up soonest.

Read the project, fork the guard's child, make the run context, start the first workers: these steps load little. The
engine itself is loaded while the interpreters of those workers come up.
"""

from __future__ import annotations

import contextlib
import os
import socket
import subprocess
import sys
from pathlib import Path

from msgspec.structs import replace

from iii.engine.boot.prestart import Prestart
from iii.engine.boot.run_context import Options, RunContext
from iii.engine.boot.service_manager import ServiceManager
from iii.engine.config.cautions import cautions_of
from iii.engine.config.project import load_project, those_of_engine
from iii.engine.config.spec import ProjectSpec
from iii.engine.guard import Guard
from iii.errors import AlreadyRunning, IIIError, ProjectError
from iii.suggestions import did_you_mean

EXIT_CONFIG, EXIT_ALREADY_RUNNING = 2, 4
DEBUG_PORT = 5678  # where editors look for debugpy unless told otherwise
DEBUG_READY_TIMEOUT = 24 * 3600.0  # a worker may stand at a breakpoint while its script starts
_DEBUGPY_PROBE = "import importlib.util, sys; sys.exit(importlib.util.find_spec('debugpy') is None)"


def run(  # noqa: PLR0913 - what the command line can say, by name
    project_file: Path,
    *,
    names: tuple[str, ...] = (),
    watch: bool = True,
    profile: str | None = None,
    color: str = "auto",
    json_output: bool = False,
    debug: str | None = None,
    console: bool = False,
    with_nats: bool = False,
) -> int:
    """Run the project's engine until it is stopped; return the exit code. The caller has set SIGINT to its default.

    `with_nats` starts a NATS server on this machine for the project's [cluster], unless one answers there.

    Raises `ProjectError` for a project that cannot be run.
    """
    project = load_project(project_file, environ=os.environ, profile=profile)
    for name in names:
        if name not in project.workers:
            hint = did_you_mean(name, project.workers) or f"there are: {', '.join(project.workers)}"
            raise ProjectError(f"there is no worker `{name}`", hint=hint)
    everywhere, project = project, those_of_engine(project)
    for name in names:
        if name not in project.workers:
            only = ", ".join(everywhere.workers[name].only)
            raise ProjectError(f"worker `{name}` runs on other engines of the cluster", hint=f"its `only` says {only}")
    if debug is not None:
        project = _with_debugger(project, debug)
    server = None
    if with_nats:
        from iii.engine.boot.local_nats import NAME, with_local_nats  # only for trying a cluster

        project = with_local_nats(project)
        server = project.workers.get(NAME)
        names = (NAME, *names) if names and server is not None else names
    if cautions := cautions_of(project, os.environ):
        from iii.engine.security.sanitize import sanitize  # few projects need it here

        for caution in cautions:
            _warn(sanitize(caution))
    options = Options(names, watch and debug is None, profile, debug, color, json_output, console, server)
    return Guard(lambda lifeline: _run_engine(project, options, lifeline)).run()


def _warn(text: str) -> None:
    sys.stderr.write(f"warning: {text}\n")
    sys.stderr.flush()


def _with_debugger(project: ProjectSpec, name: str) -> ProjectSpec:
    """Return the project with this worker waiting for a debugger, at an address where the debugger's client connects.

    The launcher makes the worker listen there (III_DEBUG), and the message pump lets no deadline pass meanwhile.
    """
    spec = project.workers.get(name)
    if spec is None:
        hint = f"there are: {', '.join(project.workers)}"
        raise ProjectError(f"--debug {name}: there is no worker {name}", hint=hint)
    if spec.script is None:
        raise ProjectError(f"--debug {name}: worker {name} is no Python script", hint="start it with its own debugger")
    python = spec.python or Path(sys.executable)
    if subprocess.run([python, "-c", _DEBUGPY_PROBE], cwd="/", check=False).returncode:
        raise ProjectError(f"--debug {name}: {python} has no debugpy", hint=f"{python} -m pip install debugpy")
    for port in (DEBUG_PORT, 0):
        with socket.socket() as probe, contextlib.suppress(OSError):
            probe.bind(("127.0.0.1", port))
            address = f"127.0.0.1:{probe.getsockname()[1]}"
            break
    else:
        raise ProjectError("--debug: no port is free on 127.0.0.1", hint="close something")
    debugged = replace(spec, debug=address, instances=1, ready_timeout=DEBUG_READY_TIMEOUT)
    return replace(project, workers={**project.workers, name: debugged})


def _run_engine(project: ProjectSpec, options: Options, lifeline: int) -> int:
    """Run the engine in the guard's child. `lifeline` reads as ended when the guard is dead."""
    try:
        run_context = RunContext(project, ServiceManager(os.environ, _warn))
        prestart = Prestart()
        prestart.begin(project, options.names, lambda spec, run: run_context.environment(spec, run, project))
        from iii.engine.engine import run_engine  # loaded while the first workers come up

        return run_engine(run_context, prestart, options, lifeline)
    except IIIError as error:
        sys.stderr.write(f"error: {error}\n")
        return EXIT_ALREADY_RUNNING if isinstance(error, AlreadyRunning) else EXIT_CONFIG
