"""What one run of the engine has before its first worker starts, and the options it was started with.

The run context owns the lock of the project, the run's id, its token, the sockets the engine listens on, and from these
the environment of each worker. Everything that can be wrong with them is found here, before the first worker starts.
Loads little, because the first workers wait for it.
"""

from __future__ import annotations

import os
from collections.abc import Mapping

import msgspec
from msgspec import Struct

from iii.engine import run_tag
from iii.engine.boot.listening_sockets import ListeningSockets
from iii.engine.boot.run_dir import RunDir, make_token, remove_token, socket_path, unwritable
from iii.engine.boot.service_manager import ServiceManager
from iii.engine.boot.stale_processes import kill_rest, kill_stale_processes, record_of
from iii.engine.config.environment import environment_of
from iii.engine.config.spec import ProjectSpec, WorkerSpec
from iii.engine.supervision.process import LISTEN_FDS, raise_file_limit
from iii.engine.supervision.run import Run
from iii.engine.transport.tcp_address import Address
from iii.errors import ProjectError

# Standard workers that acknowledge what they have written into `.iii`.
STORING = frozenset({"state", "stream", "queue", "flow", "cron", "pubsub", "observability", "configuration"})


class RunContext:
    """What one run holds. Raises `AlreadyRunning`, and `ProjectError` for a folder or address that cannot be had."""

    def __init__(self, project: ProjectSpec, service_manager: ServiceManager) -> None:
        self.project = project
        self.service_manager = service_manager
        self.run_id = os.urandom(16).hex()
        self.run_dir = RunDir(project.state_dir)
        self.run_dir.claim()
        run_tag.wear(run_tag.tag_run(self.run_id))
        raise_file_limit()
        try:
            self.socket_path = socket_path(self.run_dir.path)
            run = record_of(self.run_id, project.root)
            self.killed_pids = kill_stale_processes(self.run_dir.path / "runs", run)
            self.token = make_token(self.run_dir.path)
        except OSError as error:
            raise unwritable(self.run_dir.path, error) from None
        engine = project.engine
        opened = service_manager.socket_for
        self.address = (
            None if engine.listen == "off" else Address(engine.listen, line=engine.listen_line, opened=opened)
        )
        self.listening_sockets = ListeningSockets(opened)
        self.listeners = [Address(spec.address, line=spec.line, opened=opened) for spec in engine.listeners]

    @property
    def lost_folder(self) -> str:
        """The sentence about a `.iii` that is gone."""
        return (
            f"{self.project.state_dir} was removed or replaced while the engine runs: nothing more is kept. "
            "Stop this engine and start it again"
        )

    @property
    def url(self) -> str | None:
        """Where official SDKs connect, None with the listener off."""
        return f"ws://{self.address}" if self.address else None

    def environment(self, spec: WorkerSpec, run: Run, project: ProjectSpec) -> Mapping[str, str]:
        """Return the whole environment of one process.

        Raises ProjectError for an env file that cannot be read, for a port that is taken, and for a worker that would
        keep data in a `.iii` which is no longer that of this engine.
        """
        if spec.standard in STORING and not self.run_dir.is_intact():
            raise ProjectError(self.lost_folder)
        declared = environment_of(spec, project, os.environ)
        descriptor = self.listening_sockets.descriptor_of(spec)
        cluster = project.cluster
        is_durable = cluster is not None and spec.standard in cluster.durable
        return {name: value for name, (value, _) in declared.items()} | {
            "III_URL": self.url if self.url and spec.is_foreign else "stdio:",
            **({"III_WS_URL": self.url} if self.url else {}),
            **({"III_CLUSTER": msgspec.json.encode(cluster, enc_hook=str).decode()} if is_durable else {}),
            **({} if descriptor is None else {LISTEN_FDS: str(descriptor)}),
            "III_INSTANCE": str(run.instance),
            "III_GENERATION": str(run.generation),
            "III_RUN_ID": self.run_id,
            "III_PROJECT": str(project.root),
            "III_SOCKET": str(self.socket_path),
        }

    def kill_rest(self) -> None:
        """Kill every process of this run but the engine. Takes milliseconds: not for the event loop."""
        kill_rest(self.run_id)

    def release(self) -> None:
        """Remove the token and drop the lock. The acceptors close the sockets they accept on."""
        if self.run_dir.is_intact():
            remove_token(self.run_dir.path)
        self.run_dir.release()


class Options(Struct, frozen=True):
    """How this run differs from a plain `iii dev`. `names` are the workers to start, all if there are none."""

    names: tuple[str, ...] = ()
    is_watching: bool = True
    profile: str | None = None
    debug: str | None = None  # a worker in a debugger: no deadline passes and nothing reloads
    color: str = "auto"
    is_json: bool = False
    has_console: bool = False  # offer the console although the project does not name it
    server: WorkerSpec | None = None  # of NATS, for trying a cluster: no worker of iii.toml
