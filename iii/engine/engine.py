"""The composition root: makes the engine's parts, connects them by callables, runs them and shuts them down.

Decides nothing itself. When `run_engine` is called, the first workers have been spawned already.
"""

from __future__ import annotations

import asyncio
import contextlib
import gc
import os
import signal
import time
import uuid
from collections.abc import Mapping
from concurrent.futures import ThreadPoolExecutor
from typing import TYPE_CHECKING, Any

import uvloop
from msgspec import Raw

from iii.engine.boot.prestart import Prestart
from iii.engine.boot.run_context import Options, RunContext
from iii.engine.boot.run_dir import unwritable
from iii.engine.boot.service_manager import READY, STOPPING
from iii.engine.builtins.client import EngineClient, HttpFunctionCheck
from iii.engine.builtins.connection_check import ConnectionCheck
from iii.engine.builtins.functions import Builtins
from iii.engine.builtins.observers import start_observing
from iii.engine.channels.channel import Channels
from iii.engine.channels.unix_endpoint import ChannelAcceptor
from iii.engine.config.cautions import cautions_of
from iii.engine.config.environment import environments_of
from iii.engine.config.keys import ENGINE_KEYS
from iii.engine.config.project import load_project, those_of_engine
from iii.engine.config.spec import ClusterSpec, ListenerSpec, WorkerSpec
from iii.engine.console import Console
from iii.engine.failed_calls import FailedCalls
from iii.engine.gateway.authentication import AuthPolicy
from iii.engine.gateway.server import ConnectionLimits, Gateway, ListenerOptions
from iii.engine.health.heartbeat import Heartbeat
from iii.engine.local_clients import LocalClients
from iii.engine.reload.watcher import Watcher
from iii.engine.routing import events
from iii.engine.routing.budget import Budget
from iii.engine.routing.peer import Peer
from iii.engine.routing.registry import Validator
from iii.engine.routing.router import Router
from iii.engine.security.admission import AuthThrottle
from iii.engine.security.peer_uid import is_same_user
from iii.engine.supervision import lifecycle
from iii.engine.supervision.critical_tasks import end_with_critical_tasks, start_critical
from iii.engine.supervision.reports import Notice, StartingSlowly
from iii.engine.supervision.run import Run
from iii.engine.supervision.start_order import with_dependencies
from iii.engine.supervision.supervisor import Supervisor
from iii.engine.telemetry.exporter import TelemetryExporter
from iii.engine.terminal.display import Display, style_of
from iii.engine.transport.accept import accept_local_peers
from iii.engine.transport.message_pump import MessagePump
from iii.engine.transport.poller import make_poller
from iii.engine.worker_connections import WorkerConnections, run_of
from iii.errors import ErrorCode, InvocationError, ProjectError
from iii.protocol.codec import decode_object
from iii.protocol.messages import RegisterFunction, is_empty
from iii.redaction import Redactor, secrets_in
from iii.version import VERSION

if TYPE_CHECKING:
    from iii.engine.cluster.cluster import Cluster

# Keys of [engine] that a running engine takes over when iii.toml changes; its listeners are compared one by one.
_LIVE_KEYS = ("invocation_timeout", "memory")
EXIT_OK, EXIT_INTERRUPTED = 0, 130
# Seconds after which a start that is not over is mentioned; then twice that, and so on.
SLOW_START_INTERVAL = 2.0
# Seconds for which a start waits for providers to take the bindings of its workers, and between two looks at them: they
# answer within milliseconds, and one that never answers must not keep the project from being ready.
SETTLE_TIMEOUT, SETTLE_INTERVAL = 0.5, 0.002
FOLDER_INTERVAL = 1.0  # seconds between two looks at `.iii`


class Engine:
    """One running engine of one project. Make it inside a running loop. Implements `Control` for the builtins."""

    def __init__(
        self, run_context: RunContext, prestart: Prestart, options: Options, display: Display, lifeline: int
    ) -> None:
        self.project = project = run_context.project
        self._started_with = project.engine
        self.options = options
        self._run_context = run_context
        self._prestart = prestart
        self._display = display
        self._stopping = asyncio.Event()
        self._is_killed = False
        self._is_started = False
        self._lifeline = lifeline
        self._is_guarded = True
        self._throttle = AuthThrottle()  # of all listeners together
        self._environments = environments_of(project, os.environ)
        self._redactor = Redactor()
        self.gateways: list[Gateway] = []
        self._guarded: list[tuple[ListenerSpec, Gateway]] = []  # the listeners of iii.toml
        # Some parts call each other. Where one is made before the other, a lambda looks the other up when it is called.
        checks_results = project.engine.check_results
        if checks_results is None:
            checks_results = options.is_watching
        budget = Budget(project.engine.memory)
        self.router = Router(
            timeout=project.engine.invocation_timeout,
            compile_schema=_compile_schema,
            compile_result_schema=_compile_result_schema if checks_results else lambda _: None,
            budget=budget,
        )
        self._console = Console(project, run_context.listening_sockets, is_offered=options.has_console)
        self._failed_calls = FailedCalls(
            self.router.bindings,
            standard_of=self._standard_of,
            redact=lambda text: self._redactor(text),
            clock=time.monotonic,
        )
        self.pump = MessagePump(
            self.router,
            on_event=self._on_event,
            on_output=lambda peer, line: self.worker_connections.on_printed(peer, line),
        )
        self.pump.are_deadlines_paused = options.debug is not None
        self._poller = make_poller(self.pump.turn)
        self.channels = Channels(mint=lambda: str(uuid.uuid4()), clock=time.monotonic, budget=budget)
        self.local_clients = LocalClients(self.pump, self._poller, ChannelAcceptor(self.channels, self._poller))
        self.worker_connections = WorkerConnections(
            self.pump,
            self._poller,
            supervisor=lambda: self.supervisor,
            on_unavailable=run_context.listening_sockets.close,
        )
        self.supervisor = Supervisor(
            project,
            hooks=self.worker_connections,
            environment=self._environment_of,
            reporter=display,
            redact=lambda text: self._redactor(text),
            on_files=lambda worker, files, digests: self.watcher.set_files(worker, files, digests),
            spawn=prestart.take,
        )
        self.watcher = Watcher(
            project, changed=self.supervisor.on_changed, project_changed=self._on_project_changed, warn=self.warn
        )
        self.heartbeat = Heartbeat(
            self.pump,
            serving=self.worker_connections.serving,
            peers=lambda: [*self.worker_connections.peers, *self.local_clients.peers],
            on_lost=self._on_lost,
            on_slow=self.worker_connections.expel,
            on_held_up=lambda seconds: self.warn(
                f"the engine stood still for {seconds:.1f} s: the machine slept, or is overloaded"
            ),
        )
        self.builtins = Builtins(self.router, self, self.pump.turn)
        self.observing = start_observing(self.router, self.builtins, self.pump.turn, compile_schema=_compile_schema)
        self.http_check = HttpFunctionCheck(self.pump)
        self.telemetry_exporter = TelemetryExporter(
            self.router, self.pump.turn, follow=display.follow, worker_metrics=self.builtins.worker_metrics
        )
        self.cluster: Cluster | None = None  # of a project with [cluster]
        self.builtins.serve(
            "engine::config::list",
            self._config_list,
            "List the values of iii.toml, where each comes from, and mistakes",
        )
        self.builtins.serve("engine::channels::create", self.channels.answer, "Make a channel for a stream of data")

    async def run(self) -> int:
        """Run until a signal stops it; return the exit code."""
        end_with_critical_tasks(self._display.close)
        # Two threads are enough for the few things that block, and more would stay for good.
        asyncio.get_running_loop().set_default_executor(ThreadPoolExecutor(2, thread_name_prefix="pool"))
        self.builtins.serve(
            "engine::connections::check",
            ConnectionCheck(self._run_context.token, self._throttle, is_same_user).answer,
            "Say whether a connection to a worker's own listener comes from the engine's user, or shows the token",
        )
        self._open_gateways()
        try:
            listener = accept_local_peers(self._run_context.socket_path, self.local_clients.accept)
            self._announce(is_ready=False)
        except OSError as error:
            raise unwritable(self._run_context.socket_path, error) from None
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            asyncio.get_running_loop().add_signal_handler(number, self.stop)
        asyncio.get_running_loop().add_reader(self._lifeline, self._on_guard_lost)
        facts = [("sdk", self._run_context.url)] if self._run_context.url else []
        if link := self._console.link():
            facts.append(("console", link))
        facts += [("debugger", spec.debug) for spec in self.project.workers.values() if spec.debug]
        self._display.open(VERSION, facts)
        if left := self._run_context.killed_pids:
            self.warn(f"ended {len(left)} processes that an earlier run had left behind: {', '.join(map(str, left))}")
        watching = start_critical(self.watcher.run(), "the watcher") if self.options.is_watching else None
        self._check_folder()
        self._show_life()
        try:
            if self.project.cluster is not None:
                await self._join(self.project.cluster)
            await self._serve()
        finally:
            if watching is not None:
                watching.cancel()
                with contextlib.suppress(asyncio.CancelledError):
                    await watching
            listener.close()
            await self._shut_down()
        return EXIT_INTERRUPTED if self._is_killed else EXIT_OK

    def describe(self, worker: str) -> str:
        """Return what a worker has registered: `2 functions`."""
        count = sum(function.owner.name == worker for function in self.router.registry)
        return f"{count} function{'' if count == 1 else 's'}"

    async def _serve(self) -> None:
        self._hide_secrets()
        stopping = asyncio.create_task(self._stopping.wait())
        wanted = with_dependencies(self.options.names, self.project.workers)
        self._display.starting([name for name in self.project.workers if not wanted or name in wanted])
        starting = asyncio.create_task(self.supervisor.start(self.options.names, self._settle_bindings))
        waited, interval = 0.0, SLOW_START_INTERVAL
        while not (await asyncio.wait({starting, stopping}, timeout=interval, return_when=asyncio.FIRST_COMPLETED))[0]:
            late = {row["name"]: None for row in self.supervisor.rows() if row["state"] in ("starting", "backoff")}
            waited += interval
            self._display(StartingSlowly(waited, tuple(late)))
            interval *= 2
        if starting.done():
            starting.result()
            self._prestart.close()
            self._run_context.service_manager.report_unused()
            self._run_context.service_manager.notify(READY)
            try:
                self._announce(is_ready=True)
            except OSError as error:
                self.warn(str(unwritable(self._run_context.run_dir.path, error)))
            # What lives now lives as long as the engine: the garbage collector need not look at it again.
            gc.collect()
            gc.freeze()
            gc.set_threshold(50_000, 20, 50)
            self.watcher.begin()
            self._console.start_for_visitor(self._start_console)
        await stopping
        starting.cancel()

    async def _join(self, spec: ClusterSpec) -> None:
        from iii.engine.cluster.cluster import Cluster  # a project on one machine loads nothing of it

        self.cluster = Cluster(spec, self.router, version=VERSION, turn=self.pump.turn, warn=self.warn)
        self.builtins.serve("engine::cluster::info", self.cluster.answer, "Describe the engines of the cluster")
        await self.cluster.start()

    async def _settle_bindings(self) -> None:
        """Wait until what the workers have bound is bound: who reads that the project is ready may use its routes."""
        deadline = time.monotonic() + SETTLE_TIMEOUT
        while not self.router.bindings.is_settled and time.monotonic() < deadline:
            await asyncio.sleep(SETTLE_INTERVAL)
        self._is_started = True

    async def _shut_down(self) -> None:
        self._run_context.service_manager.notify(STOPPING)
        self._console.stop_waiting()
        self._display.starting(())
        self.router.calls.stop_admitting()
        if self.cluster is not None:
            self.cluster.leave_gently()
        self.heartbeat.stop_checking_workers()
        await self.supervisor.shutdown()
        if self.cluster is not None:
            await self.cluster.stop()
        self._prestart.close()
        if not self._is_guarded:
            await asyncio.to_thread(self._run_context.kill_rest)
        self.builtins.close()
        self.telemetry_exporter.close()
        for gateway in self.gateways:
            gateway.close()
        self.pump.close()
        self.heartbeat.stop()
        self.local_clients.close()
        self.worker_connections.close()
        self._poller.close()
        self._run_context.release()

    def _environment_of(self, spec: WorkerSpec, run: Run) -> Mapping[str, str]:
        environment = self._run_context.environment(spec, run, self.project)
        for text in self._run_context.listening_sockets.take_moves():
            self.warn(text)
        return environment

    def _open_gateways(self) -> None:
        """Open the listener for official SDKs, unless it is off, and the listeners of iii.toml with rules."""
        if (address := self._run_context.address) is not None:
            self._open_gateway(ListenerOptions(address, self._run_context.token, throttle=self._throttle))
            if address.is_moved:
                self.warn(f"{self.project.engine.listen} is taken: official SDKs connect to ws://{address} instead")
        if self.project.engine.listeners:
            self._gate_client = EngineClient(self.pump)
            for spec, address in zip(self.project.engine.listeners, self._run_context.listeners, strict=True):
                policy, token = self._policy_of(spec)
                options = ListenerOptions(address, token, spec.origins, policy, self._throttle)
                self._guarded.append((spec, self._open_gateway(options)))

    def _open_gateway(self, options: ListenerOptions) -> Gateway:
        engine = self.project.engine
        limits = ConnectionLimits(engine.connections, engine.connections, namespace_timeout=engine.namespace_grace)
        gateway = Gateway(
            self.pump,
            self.channels,
            options,
            limits,
            poller=self._poller,
            on_telemetry=self.telemetry_exporter.take_frame,
            on_routed=self.worker_connections.spoke,
            on_left=self.worker_connections.left,
        )
        self.gateways.append(gateway)
        return gateway

    def _policy_of(self, spec: ListenerSpec) -> tuple[AuthPolicy, str | None]:
        """Return who decides on a listener, and the token that it asks for if no auth function decides."""
        has_auth_function = spec.rules is not None and spec.rules.auth_function_id is not None
        token = None if has_auth_function else self._run_context.token
        return AuthPolicy(self._gate_client, spec.rules, spec.middleware_function_id), token

    def _apply_listeners(self, specs: tuple[ListenerSpec, ...], before: tuple[ListenerSpec, ...]) -> None:
        """Let changed rules of the open listeners hold at once; say which changes since `before` need a new start."""
        declared = list(specs)
        for former, gateway in list(self._guarded):
            spec = next((each for each in declared if each.address == former.address), None)
            if spec is None:
                self._guarded.remove((former, gateway))
                self.gateways.remove(gateway)
                gateway.close()
                self.warn(f"the listener on {gateway.address} is closed: it is no longer in iii.toml")
                continue
            declared.remove(spec)
            if names := _changed_keys(former, spec):
                self._guarded[self._guarded.index((former, gateway))] = spec, gateway
                policy, token = self._policy_of(spec)
                gateway.apply(policy, origins=spec.origins, token=token)
                self.warn(f"the listener on {gateway.address} goes by its new {', '.join(names)} from now on")
        told = [spec.address for spec in before]
        for spec in declared:
            if spec.address in told:
                told.remove(spec.address)
            else:
                self.warn(f"the new listener on {spec.address} opens after `iii stop` and a new start")

    def _announce(self, *, is_ready: bool) -> None:
        self._run_context.run_dir.announce(
            {
                "pid": os.getpid(),
                "run_id": self._run_context.run_id,
                "socket": str(self._run_context.socket_path),
                "url": self._run_context.url,
                "console": self._console.url,
                "project": str(self.project.root),
                "version": VERSION,
                "started_at": time.time(),
                "ready": is_ready,
            }
        )

    def stop(self) -> None:
        """Stop gracefully; at the second call, kill what is left."""
        if self._stopping.is_set():
            self._is_killed = True
            self.supervisor.kill()
        self._stopping.set()

    def warn(self, text: str, worker: str = "") -> None:
        """Tell the user a sentence about the engine or one worker."""
        self._display(Notice(text, worker))

    # What the parts report

    def _on_guard_lost(self) -> None:
        """The guard was killed. The engine does what the guard would have done: leaves no process behind."""
        asyncio.get_running_loop().remove_reader(self._lifeline)
        self._is_guarded = False
        self.warn("the process above the engine was killed: stopping")
        self.stop()

    def _show_life(self) -> None:
        """Tell the service manager's watchdog, if it has one, that this loop turns."""
        if interval := self._run_context.service_manager.watchdog_interval:
            self._run_context.service_manager.notify("WATCHDOG=1")
            asyncio.get_running_loop().call_later(interval, self._show_life)

    def _check_folder(self) -> None:
        """Look once a second whether `.iii` is still there; what stores there looks by itself before it answers."""
        if self._stopping.is_set():
            return
        if self._run_context.run_dir.is_intact():
            asyncio.get_running_loop().call_later(FOLDER_INTERVAL, self._check_folder)
        else:
            self._display(Notice(self._run_context.lost_folder, level="error"))

    def _on_event(self, event: events.Event) -> None:
        if isinstance(event, events.PeerReady):
            self.worker_connections.on_peer_ready(event)
        elif isinstance(event, events.PeerDrained):
            self.worker_connections.on_peer_drained(event)
        elif isinstance(event, events.PeerExpelled):
            self.worker_connections.expel(event.peer, event.why)
        elif isinstance(event, events.FunctionsChanged | events.WorkersChanged):
            self.builtins.on_event(event)
            if self.cluster is not None:
                self.cluster.on_functions_changed()
        elif isinstance(event, events.CallFailed):
            if (report := self._failed_calls.report_of(event, self.project.root)) is not None:
                self._display(report)
        elif isinstance(event, events.HttpFunctionRegistered):
            self.http_check.on_registered(event)
        else:
            self.warn(event.text, event.peer_name)

    def _standard_of(self, worker: str) -> str | None:
        spec = self.project.workers.get(worker)
        return None if spec is None else spec.standard

    def _on_lost(self, peer: Peer, why: str) -> None:
        if (run := run_of(peer)) is not None:
            self.supervisor.on_unresponsive(run, why, at_once=True)

    def _on_project_changed(self, files: tuple[str, ...]) -> None:
        self._run_context.service_manager.reloading()
        try:
            self._read_project(files)
        finally:
            self._run_context.service_manager.notify(READY)

    def _read_project(self, files: tuple[str, ...]) -> None:
        try:
            declared = load_project(self.project.file, environ=os.environ, profile=self.options.profile)
            project = self._console.added_to(those_of_engine(declared))
            if self.options.server is not None:
                from iii.engine.boot.local_nats import with_server  # as in `_join`

                project = with_server(project, self.options.server)
            environments = environments_of(project, os.environ)
        except ProjectError as error:
            more = tuple(map(str, error.others))
            self._display(Notice(f"{error}; nothing was changed", details=more))
            return
        for key in ENGINE_KEYS:
            value = getattr(project.engine, key.name)
            is_news = value not in (getattr(self.project.engine, key.name), getattr(self._started_with, key.name))
            if is_news and key.name not in _LIVE_KEYS:
                self.warn(f"[engine] {key.name} has changed: that applies after `iii stop` and a new start")
        if project.cluster != self.project.cluster:
            self.warn("[cluster] has changed: that applies after `iii stop` and a new start")
        self.router.calls.timeout = project.engine.invocation_timeout
        known = cautions_of(self.project, os.environ)
        for caution in cautions_of(project, os.environ):
            if caution not in known:
                self.warn(caution)
        self._prestart.close()
        old, self._environments = self._environments, environments
        before, self.project = self.project, project
        self.router.calls.budget.resize(project.engine.memory)
        self._hide_secrets()
        self.watcher.apply(project)
        self._apply_listeners(project.engine.listeners, before.engine.listeners)
        touched = {name for name, values in environments.items() if name in old and values != old[name]}
        self.supervisor.apply(project, touched, files)

    def _start_console(self) -> None:
        self.project = self._console.added_to(self.project)
        self.supervisor.apply(self.project)

    def _hide_secrets(self) -> None:
        tables = [*self._environments.values(), *(worker.config for worker in self.project.workers.values())]
        redactor = Redactor(secret for table in tables for secret in secrets_in(table))
        self.telemetry_exporter.redact = self._redactor = redactor

    # `Control`: what the management functions may do

    def rows(self) -> list[dict[str, Any]]:
        return self.supervisor.rows()

    async def start_worker(self, name: str) -> list[dict[str, Any]]:
        return await self.supervisor.command_worker(name, lifecycle.Event.START)

    async def stop_worker(self, name: str) -> list[dict[str, Any]]:
        return await self.supervisor.command_worker(name, lifecycle.Event.STOP)

    async def restart_worker(self, name: str) -> list[dict[str, Any]]:
        return await self.supervisor.command_worker(name, lifecycle.Event.RESTART)

    def counters(self) -> dict[str, int]:
        return {**self.router.calls.counters, "log_lines_dropped": self._display.logs.dropped}

    async def _config_list(self, payload: Raw, _: Peer) -> dict[str, Any]:
        from iii.engine.config.provenance import configuration_of  # only for those who look

        worker = decode_object(payload).get("worker")
        if not isinstance(worker, str | None):
            raise InvocationError(ErrorCode.INVALID_PAYLOAD, f"worker must be a string, got {worker!r:.80}")
        profile = self.options.profile
        try:
            return await asyncio.to_thread(configuration_of, self.project.file, dict(os.environ), profile, worker)
        except KeyError:
            raise InvocationError(ErrorCode.NOT_FOUND, f"iii.toml declares no worker {worker!r:.80}") from None

    def health(self) -> dict[str, Any]:
        # Stopped is a worker that `iii worker stop` has stopped, or that nobody has asked for yet.
        is_up = (lifecycle.Actual.READY.value, lifecycle.Actual.STOPPED.value)
        states = {row["name"]: row["state"] for row in self.supervisor.rows() if row["state"] not in is_up}
        status = "stopping" if self._stopping.is_set() else "degraded" if states else "ready"
        return {
            "status": status if self._is_started or status == "stopping" else "starting",
            "workers": [{"name": name, "state": state} for name, state in states.items()],
        }

    def adopt(self, peer: Peer, pid: int) -> bool:
        return self.worker_connections.adopt(peer, pid)

    def identified(self, peer: Peer) -> None:
        self.observing.identified(peer)
        self.worker_connections.identified(peer)


def _changed_keys(former: ListenerSpec, spec: ListenerSpec) -> list[str]:
    """Return the keys of a listener that differ, those of its `rbac` table by their own names."""
    names = [key for key in ("origins", "middleware_function_id") if getattr(former, key) != getattr(spec, key)]
    if former.rules is None or spec.rules is None:
        return names if former.rules is spec.rules else [*names, "rbac"]
    return names + [
        key for key in spec.rules.__struct_fields__ if getattr(former.rules, key) != getattr(spec.rules, key)
    ]


def _compile_schema(declaration: RegisterFunction) -> Validator | None:
    if is_empty(declaration.request_format):
        return None
    from iii.engine.routing.payload_schemas import compile_schema  # 60 ms that wait for the first schema

    return compile_schema(declaration)


def _compile_result_schema(declaration: RegisterFunction) -> Validator | None:
    if is_empty(declaration.response_format):
        return None
    from iii.engine.routing.payload_schemas import compile_result_schema  # as above

    return compile_result_schema(declaration)


def run_engine(run_context: RunContext, prestart: Prestart, options: Options, lifeline: int) -> int:
    """Run the engine until it is stopped, or the guard is dead (`lifeline` ends); return the exit code."""

    async def main() -> int:
        style = style_of(options.color, os.environ, json_output=options.is_json)
        call_later = asyncio.get_running_loop().call_later
        display = Display(run_context.project, style, lambda worker: engine.describe(worker), call_later)
        engine = Engine(run_context, prestart, options, display, lifeline)
        try:
            return await engine.run()
        finally:
            display.close()

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(main())
