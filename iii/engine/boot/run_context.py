"""What one run of the engine has of its own before it starts anything.

The lock of the project, an id, a token, the sockets it listens on; and with them the environment of its workers. All
that can be wrong with these is found before the first worker starts. Loads little, because the first workers wait for
it. Made by `start.py`, given back by the composition root.

MERGED: How a run of the engine differs from the plain one: the options of `iii dev`. Pure; made by `start.py`.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

from msgspec import Struct

from iii.engine.boot.run_dir import RunDir, make_token, remove_token, socket_path
from iii.engine.boot.stale_processes import sweep
from iii.engine.config.environment import environment_of
from iii.engine.config.spec import ProjectSpec, WorkerSpec
from iii.engine.supervision.run import Run
from iii.engine.transport.tcp_address import Address


class RunContext:
    """One run's claim on its project. Raises `AlreadyRunning`, and `ProjectError` for what cannot be had."""

    def __init__(self, project: ProjectSpec) -> None:
        self.project = project
        self.run_id = os.urandom(16).hex()
        self.run_dir = RunDir(project.state_dir)
        self.run_dir.claim()
        self.socket_path = socket_path(self.run_dir.path)
        self.swept = sweep(self.run_dir.path / "runs", self.run_id)  # the pids of what an earlier run had left behind
        self.token = make_token(self.run_dir.path)
        engine = project.engine
        self.address = None if engine.listen == "off" else Address(engine.listen, line=engine.listen_line)
        self.listeners = [Address(spec.address, line=spec.line) for spec in engine.listeners]

    @property
    def url(self) -> str | None:
        """Where official SDKs connect, None with the listener off."""
        return f"ws://{self.address}" if self.address else None

    def environment(self, spec: WorkerSpec, run: Run, project: ProjectSpec) -> Mapping[str, str]:
        """Return the whole environment of one process. Raises ProjectError for an env file that cannot be read."""
        declared = environment_of(spec, project, os.environ)
        return {name: value for name, (value, _) in declared.items()} | {
            "III_URL": self.url if self.url and spec.is_foreign else "stdio:",
            **({"III_WS_URL": self.url} if self.url else {}),
            "III_INSTANCE": str(run.instance),
            "III_GENERATION": str(run.generation),
            "III_RUN_ID": self.run_id,
            "III_PROJECT": str(project.root),
            "III_SOCKET": str(self.socket_path),
        }

    def release(self) -> None:
        """Give all of it back; the sockets are closed by who listens on them."""
        remove_token(self.run_dir.path)
        self.run_dir.release()


class Options(Struct, frozen=True):
    """`names` are the workers to start, all if there are none."""

    names: tuple[str, ...] = ()
    is_watching: bool = True
    profile: str | None = None
    debug: str | None = None  # a worker in a debugger: no deadline passes and nothing reloads
    color: str = "auto"
    is_json: bool = False
