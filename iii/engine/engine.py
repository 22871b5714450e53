"""The composition root: wires the engine's parts, runs them, shuts them down.

Nothing is decided here. `run_engine` is called by `start.py`, which has begun the first workers by then.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import sys
import time
import uuid
from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor

from iii.engine.boot.prestart import Prestart
from iii.engine.boot.run_context import Options, RunContext
from iii.engine.builtins.client import EngineClient
from iii.engine.builtins.connection_check import DESCRIPTION as CHECK_DESCRIPTION
from iii.engine.builtins.connection_check import ID as CHECK
from iii.engine.builtins.connection_check import ConnectionCheck
from iii.engine.builtins.functions import Builtins
from iii.engine.builtins.http_function_check import HttpCheck
from iii.engine.channels.channel import Channels
from iii.engine.channels.unix_endpoint import ChannelDoor
from iii.engine.config.environment import environments_of
from iii.engine.config.project import load_project
from iii.engine.config.spec import WorkerSpec
from iii.engine.gateway.authentication import Terms
from iii.engine.gateway.server import Gateway, Listen
from iii.engine.health.heartbeat import Heartbeat
from iii.engine.reload.watcher import Watcher
from iii.engine.routing.events import (
    Event,
    FunctionsChanged,
    HttpFunctionRegistered,
    PeerDrained,
    PeerExpelled,
    PeerReady,
    WorkersChanged,
)
from iii.engine.routing.peer import Peer
from iii.engine.routing.registry import Validator
from iii.engine.routing.router import Router
from iii.engine.security.auth_throttle import Throttle
from iii.engine.security.peer_uid import is_same_user
from iii.engine.security.redaction import redactor_of
from iii.engine.supervision.critical_tasks import end_with_critical_tasks, start_critical
from iii.engine.supervision.reports import Notice
from iii.engine.supervision.run import Run
from iii.engine.supervision.supervisor import Supervisor
from iii.engine.telemetry.feed import Feed
from iii.engine.terminal.display import Display, style_of
from iii.engine.transport.accept import UnixAcceptor
from iii.engine.transport.message_pump import MessagePump
from iii.engine.worker_connections import WorkerConnections
from iii.errors import ProjectError
from iii.protocol.messages import RegisterFunction, is_empty
from iii.version import VERSION

EXIT_OK, EXIT_INTERRUPTED = 0, 130


class Engine:
    """One running engine of one project. Make it inside a running loop."""

    def __init__(self, run_context: RunContext, prestart: Prestart, options: Options, display: Display) -> None:
        self.project = project = run_context.project
        self.options = options
        self._run_context = run_context
        self._prestart = prestart
        self._report = self._display = display
        self._stopping = asyncio.Event()
        self._is_killed = False
        self._throttle = Throttle()  # of all listeners together
        self._environments = environments_of(project, os.environ)
        self.gateway: Gateway | None = None
        self.listeners: list[Gateway] = []
        self.router = Router(timeout=project.engine.invocation_timeout, compile_schema=_compile_schema)
        self.pump = MessagePump(self.router, on_event=self._on_event, on_output=self._on_output)
        self.pump.are_deadlines_paused = options.debug is not None
        self.worker_connections = WorkerConnections(self.pump)
        self.supervisor = Supervisor(
            project,
            hooks=self.worker_connections,
            environment=self._environment,
            reporter=display,
            spawn=prestart.take,
            on_files=self._on_files,
        )
        self.worker_connections.supervisor = self.supervisor
        self.watcher = Watcher(
            project,
            changed=self.supervisor.on_changed,
            project_changed=self._on_project_changed,
            warn=self.warn,
        )
        self.heartbeat = Heartbeat(
            self.pump,
            watched=self.worker_connections.watched,
            lost=self.worker_connections.give_up,
            held_up=self._on_held_up,
        )
        self.builtins = Builtins(self.router, _Control(self), self.pump.turn)
        self.http_check = HttpCheck(self.pump)
        self.feed = Feed(self.router, self.pump.turn, follow=display.follow, gauges=self.builtins.gauges)
        self.channels = Channels(mint=lambda: str(uuid.uuid4()), clock=time.monotonic)
        self.builtins.serve("engine::channels::create", self.channels.answer, "Make a channel for a stream of data")
        self.worker_connections.channel_door = ChannelDoor(self.channels)

    async def run(self) -> int:
        """Run until a signal stops it; return the exit code."""
        end_with_critical_tasks(self._display.close)
        # Two threads are enough for the few things that block, and more would stay for good.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2, thread_name_prefix="pool"))
        connection_check = ConnectionCheck(self._run_context.token, self._throttle, is_same_user)
        self.builtins.serve(CHECK, connection_check.answer, CHECK_DESCRIPTION)
        self.gateway = self._open_gateway()
        self._open_listeners()
        listener = UnixAcceptor(self._run_context.socket_path, self.worker_connections.accept)
        self._announce(is_ready=False)
        self._handle_signals()
        self._greet(self._run_context.killed_pids)
        watching = start_critical(self._watch(), "the watcher")
        try:
            await self._serve()
        finally:
            watching.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await watching
            listener.close()
            await self._shut_down()
        return EXIT_INTERRUPTED if self._is_killed else EXIT_OK

    def _greet(self, left: tuple[int, ...]) -> None:
        facts = [("sdk", self.gateway.url)] if self.gateway else []
        facts += [("debugger", spec.debug) for spec in self.project.workers.values() if spec.debug]
        self._display.open(VERSION, facts)
        if left:
            self.warn(f"ended {len(left)} processes that an earlier run had left behind: {', '.join(map(str, left))}")

    def describe(self, worker: str) -> str:
        """Return what a worker has registered: `2 functions`."""
        count = sum(function.owner.name == worker for function in self.router.registry)
        return f"{count} function{'' if count == 1 else 's'}"

    @property
    def dropped_log_lines(self) -> int:
        """How many lines of workers could not be kept."""
        return self._display.logs.dropped

    def _on_held_up(self, seconds: float) -> None:
        self.warn(f"the engine stood still for {seconds:.1f} s: the machine slept, or is overloaded")

    async def _serve(self) -> None:
        self._hide_secrets()
        stopping = asyncio.create_task(self._stopping.wait())
        starting = asyncio.create_task(self.supervisor.start(self.options.names))
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            self._prestart.close()
            self._announce(is_ready=True)
            _settle_memory()
            self.watcher.begin()
        await stopping
        starting.cancel()

    async def _shut_down(self) -> None:
        self.router.calls.stop_admitting()
        self.heartbeat.stop()
        await self.supervisor.shutdown()
        self._prestart.close()
        self.builtins.close()
        self.feed.close()
        for gateway in [*([self.gateway] if self.gateway else []), *self.listeners]:
            gateway.close()
        self.pump.close()
        self.worker_connections.close()
        self._run_context.release()

    def _open_gateway(self) -> Gateway | None:
        address = self._run_context.address
        if address is None:
            return None
        listen = Listen(address, self._run_context.token, throttle=self._throttle)
        gateway = Gateway(self.pump, self.worker_connections, self.channels, listen)
        gateway.on_telemetry = self.feed.take_frame
        if address.is_moved:
            self.warn(f"{self.project.engine.listen} is taken: official SDKs connect to {gateway.url} instead")
        return gateway

    def _open_listeners(self) -> None:
        if not self.project.engine.listeners:
            return
        engine_client = EngineClient(self.pump)
        for spec, address in zip(self.project.engine.listeners, self._run_context.listeners, strict=True):
            terms = Terms(engine_client, spec.rules, spec.middleware_function_id)
            # Without an auth function nobody would be asked who they are: then the token is.
            is_asked = spec.rules is not None and spec.rules.auth_function_id is not None
            token = None if is_asked else self._run_context.token
            listen = Listen(address, token, spec.origins, terms, self._throttle)
            self.listeners.append(Gateway(self.pump, self.worker_connections, self.channels, listen))
            self.listeners[-1].on_telemetry = self.feed.take_frame

    def _announce(self, *, is_ready: bool) -> None:
        self._run_context.run_dir.announce(
            {
                "pid": os.getpid(),
                "run_id": self._run_context.run_id,
                "socket": str(self._run_context.socket_path),
                "url": self._run_context.url,
                "project": str(self.project.root),
                "version": VERSION,
                "started_at": time.time(),
                "ready": is_ready,
            }
        )

    # Signals

    def _handle_signals(self) -> None:
        loop = asyncio.get_running_loop()
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            loop.add_signal_handler(number, self.stop)

    def stop(self) -> None:
        """Stop gracefully; called again, kill what is left."""
        if self._stopping.is_set():
            self._is_killed = True
            self.supervisor.kill()
        self._stopping.set()

    def warn(self, text: str, worker: str = "") -> None:
        """Tell the user a sentence about the engine or one worker."""
        self._report(Notice(text, worker))

    # What the parts tell

    def _on_event(self, event: Event) -> None:
        if isinstance(event, PeerReady):
            self.worker_connections.on_ready(event)
        elif isinstance(event, PeerDrained):
            self.worker_connections.on_drained(event)
        elif isinstance(event, PeerExpelled):
            self.worker_connections.expel(event.peer, event.why)
        elif isinstance(event, FunctionsChanged | WorkersChanged):
            self.builtins.on_event(event)
        elif isinstance(event, HttpFunctionRegistered):
            self.http_check.on_registered(event)
        else:
            self.warn(event.text, event.peer_name)

    def _on_output(self, peer: Peer, line: bytes) -> None:
        self.worker_connections.on_output(peer, line)

    def _on_files(self, worker: str, files: frozenset[str]) -> None:
        # The supervisor tells its first files while it is made, before there is a watcher; the watcher reads
        # the scripts from the project itself.
        if hasattr(self, "watcher"):
            self.watcher.set_files(worker, files)

    def _on_project_changed(self, files: tuple[str, ...]) -> None:
        try:
            project = load_project(self.project.file, environ=os.environ, profile=self.options.profile)
            environments = environments_of(project, os.environ)
        except ProjectError as error:
            self.warn(f"{error}; nothing was changed")
            return
        self._prestart.close()
        old, self._environments = self._environments, environments
        self.project = project
        self._hide_secrets()
        self.watcher.apply(project)
        touched = {name for name, values in environments.items() if values != old.get(name)}
        self.supervisor.apply(project, touched, files)

    def _hide_secrets(self) -> None:
        configs = [worker.config for worker in self.project.workers.values()]
        self.feed.redact = self.worker_connections.redactor = redactor_of((*self._environments.values(), *configs))

    async def _watch(self) -> None:
        if self.options.is_watching:
            await self.watcher.run(at_once=False)

    # The environment of a worker

    def _environment(self, spec: WorkerSpec, run: Run) -> Mapping[str, str]:
        return self._run_context.environment(spec, run, self.project)


class _Control:
    """What `engine::workers::*` may do with the engine."""

    def __init__(self, engine: Engine) -> None:
        self.rows = engine.supervisor.rows
        self.start_worker = engine.supervisor.start_worker
        self.stop_worker = engine.supervisor.stop_worker
        self.restart_worker = engine.supervisor.restart_worker
        self.adopt = engine.worker_connections.adopt
        self.identified = engine.worker_connections.identified
        self._engine = engine

    def counters(self) -> dict[str, int]:
        return {**self._engine.router.calls.counters, "log_lines_dropped": self._engine.dropped_log_lines}


def _compile_schema(declaration: RegisterFunction) -> Validator | None:
    if is_empty(declaration.request_format):
        return None
    from iii.engine.routing.payload_schemas import compile_schema  # 60 ms that wait for the first schema

    return compile_schema(declaration)


def _settle_memory() -> None:
    """Start is over: what lives now lives on, and the collector need not look at it again."""
    gc.collect()
    gc.freeze()
    gc.set_threshold(50_000, 20, 50)


def _loop_factory() -> Callable[[], asyncio.AbstractEventLoop]:
    if sys.platform == "win32":
        return asyncio.new_event_loop
    import uvloop  # not available everywhere

    return uvloop.new_event_loop


def run_engine(run_context: RunContext, prestart: Prestart, options: Options) -> int:
    """Run the engine until it is stopped; return the exit code."""

    async def main() -> int:
        style = style_of(options.color, os.environ, json_output=options.is_json)
        display = Display(run_context.project, style, lambda worker: engine.describe(worker))  # noqa: PLW0108 - made below
        engine = Engine(run_context, prestart, options, display)
        try:
            return await engine.run()
        finally:
            display.close()

    with asyncio.Runner(loop_factory=_loop_factory()) as runner:
        return runner.run(main())
