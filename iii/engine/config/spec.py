"""What a project declares, as frozen values: one `WorkerSpec` a worker, one `EngineSpec`, one `ProjectSpec`.

Durations are float seconds, sizes are bytes, paths are absolute. What iii.toml may hold is in `keys` and `project`.
"""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, Literal

from msgspec import Struct

if TYPE_CHECKING:
    from iii.engine.security.rbac import Rules


_EMPTY: Mapping[str, Any] = MappingProxyType({})


class WorkerSpec(Struct, frozen=True):
    """One `[workers.NAME]` table. Exactly one of `script`, `command` and `standard` is set."""

    name: str
    cwd: Path
    script: Path | None = None  # a Python file, started through the launcher
    command: tuple[str, ...] = ()  # any other program, as an argument vector; never a shell
    standard: str | None = None  # a package of stdlib_workers, e.g. "state"
    python: Path | None = None  # interpreter of `script`; symlinks of a virtual environment are kept
    has_declared_python: bool = False  # by a `python` key
    namespace: str = "default"
    env: Mapping[str, str] = _EMPTY  # the shell's value of a declared name wins
    env_files: tuple[Path, ...] = ()
    pass_env: tuple[str, ...] = ()  # further names (globs) taken over from the shell
    after: tuple[str, ...] = ()
    watch: tuple[str, ...] | None = ()  # extra globs; None turns reload off
    only: tuple[str, ...] = ()  # engines of the cluster that run it, as globs; none: every engine
    instances: int = 1
    concurrency: int | None = None  # calls in flight per instance; None: as many as come
    restart: Literal["always", "on-failure", "never"] = "on-failure"
    reload: Literal["swap", "exclusive"] = "swap"
    ready_timeout: float = 10.0
    stop_timeout: float = 5.0
    drain_timeout: float = 30.0
    max_memory: int | None = None
    pre: tuple[str, ...] = ()  # a command run before each start
    keep_children: bool = False
    validate: bool = True
    is_official: bool = False  # its own Python environment has the official SDK, which connects over WebSocket
    debug: str = ""  # 127.0.0.1:PORT where a debugger finds it
    listen: str | None = None  # HOST:PORT of a socket that the engine opens for it
    is_default_listen: bool = False  # iii.toml names no port: the engine may take the next free one
    config: Mapping[str, Any] = _EMPTY  # handed to the worker as III_CONFIG
    line: int = 0  # of the table in iii.toml, for messages

    @property
    def is_foreign(self) -> bool:
        """Whether it runs without our SDK: it never says `ready` and does not know `stop`."""
        return bool(self.command) or self.is_official


class ListenerSpec(Struct, frozen=True):
    """One `[[engine.listeners]]` table: a further WebSocket listener. `origins` are pages that may connect."""

    address: str
    line: int = 0
    origins: tuple[str, ...] = ()
    middleware_function_id: str | None = None
    rules: Rules | None = None


class EngineSpec(Struct, frozen=True):
    """The `[engine]` table."""

    listen: str = "127.0.0.1:49134"  # "off" turns the WebSocket listener off
    listen_line: int = 0  # 0: the default, which may move to a free port
    invocation_timeout: float = 30.0
    check_results: bool | None = None  # None: while files are watched, as under `iii dev`
    connections: int = 4096  # of a listener: of the engine's own user, and as many of all others together
    namespace_grace: float = 5.0  # seconds that the registrations of an SDK wait for its namespace (public contract)
    memory: int = 512_000_000  # bytes that the engine may hold for all peers together
    listeners: tuple[ListenerSpec, ...] = ()


class ClusterSpec(Struct, frozen=True):
    """The `[cluster]` table: where the other engines of the project are found, and who this one is."""

    servers: tuple[str, ...]
    name: str
    engine: str
    labels: tuple[str, ...] = ()
    credentials: Path | None = None
    user: str | None = None
    password: str | None = None
    token: str | None = None
    tls_ca: Path | None = None
    tls_cert: Path | None = None
    tls_key: Path | None = None
    durable: tuple[str, ...] = ()  # standard workers whose data the NATS servers keep
    monitors: tuple[str, ...] = ()  # URLs of the servers' monitoring pages
    sync_always: bool = False  # declared: the servers sync every write
    max_bytes: int = 256_000_000  # of the data of each durable worker
    line: int = 0


class ProjectSpec(Struct, frozen=True):
    """A whole iii.toml. `root` is its folder; `state_dir` is `root/.iii`."""

    root: Path
    name: str
    file: Path
    engine: EngineSpec = EngineSpec()
    cluster: ClusterSpec | None = None
    workers: Mapping[str, WorkerSpec] = _EMPTY

    @property
    def state_dir(self) -> Path:
        """Where all state of the project lives: `.iii/` beside iii.toml."""
        return self.root / ".iii"
