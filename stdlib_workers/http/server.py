"""Joins the parts of the worker and gives them their order: provide the types, get the routes, accept.

A generation accepts only when it has every route, and one that has a successor keeps its routes to the end: between
two generations no path is unknown for a moment. Both have the engine's listening socket.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from functools import partial
from pathlib import Path
from threading import Thread
from typing import Any

from iii import InvocationError, TriggerRequestInput, Worker
from stdlib_workers.http.access import AccessLog
from stdlib_workers.http.application import Application
from stdlib_workers.http.channels import Channels
from stdlib_workers.http.documentation import Documentation
from stdlib_workers.http.health import Health
from stdlib_workers.http.listening import Listening
from stdlib_workers.http.options import Options, parse_options
from stdlib_workers.http.origins import Origins, hosts_for
from stdlib_workers.http.requests import Trigger
from stdlib_workers.http.routes import Routes
from stdlib_workers.http.static import StaticFolder
from stdlib_workers.http.triggers import DECLARED, METHODS, HttpTriggers
from stdlib_workers.values.live_config import LiveConfig

# How long a start waits for the next of its routes. They come in one burst; one that is lost must not keep it.
ROUTES_SECONDS = 2.0
# Left of the engine's patience for what comes after the last answer.
STOP_MARGIN_SECONDS = 1.0


class Server:
    """One generation of the http worker. `start` on the loop, then `stop` from any thread.

    `project` is the folder of iii.toml. Without a socket nothing listens, and nothing happens beside the loop:
    `application` answers requests for whoever calls it.
    """

    def __init__(self, worker: Worker, options: Options, sock: socket.socket | None, project: Path) -> None:
        self._worker = worker
        self._options = options
        self._routes = Routes()
        self._log = AccessLog(is_on=options.access_log, record_spans=worker.record_spans)
        self._successor = Successor(worker)
        self._documentation = Documentation(worker.trigger_async, self._routes)
        self._health = Health(worker.trigger_async)
        application = Application(worker.trigger_async, self._routes, options, self._log)
        application.iterate = worker.stream_async
        if sock is not None:
            application.trigger_aside = _on_thread(worker.trigger_async)
        if path := os.environ.get("III_SOCKET"):
            application.channels = Channels(worker.trigger_async, partial(asyncio.open_unix_connection, path))
        self.application = application
        self._project = project
        self.listening = None if sock is None else Listening(sock, application)
        self._take(options)

    def _take(self, options: Options) -> None:
        self._options, self._log.is_on = options, options.access_log
        application = self.application
        application.take(options)
        application.fallbacks = [StaticFolder(prefix, self._project / folder) for prefix, folder in options.static]
        application.literals = [self._health, *([self._documentation] if options.openapi else [])]
        hosts = hosts_for(*self.listening.address, options.hosts) if self.listening else frozenset[str]()
        application.origins = Origins(hosts, options.origins)

    def _take_on_loop(self, options: Options) -> None:
        self._loop.call_soon_threadsafe(self._take, options)

    async def start(self) -> None:
        """Provide the trigger types, get their bindings, and accept."""
        self._loop = asyncio.get_running_loop()
        if self.listening is not None:
            parse = partial(parse_options, name=os.environ.get("III_WORKER_NAME", "http"))
            settings = LiveConfig(self._worker, "http", self._worker.config, parse, self._take_on_loop)
            # Before the first request: a generation that takes over has the settings of the one before.
            await asyncio.to_thread(settings.start)
        openapi, origins = DECLARED.functions["http::openapi"], DECLARED.functions["http::origins"]
        self._worker.register_function("http::openapi", self._documentation.describe, **openapi)
        self._worker.register_function("http::origins", self._own_origins, metadata={"internal": True}, **origins)
        providers = []
        for id, method in METHODS.items():
            triggers = HttpTriggers(self._routes, self._is_superseded, method)
            self._worker.register_trigger_type(DECLARED.trigger_types[id], triggers)
            providers.append((id, triggers))
        self._worker.ready()
        if self.listening is None:
            return
        for id, triggers in providers:
            await asyncio.to_thread(triggers.wait_for, await self._bound(id), ROUTES_SECONDS)
        await self.listening.accept()

    def _own_origins(self, _: Any) -> list[str]:
        """Return the origins of the pages that this worker serves: the stream worker lets them connect."""
        if self.listening is None:
            return []
        host, port = self.listening.address
        hosts = hosts_for(host, port, self._options.hosts) or hosts_for("127.0.0.1", port, ())
        return sorted(f"{scheme}://{host}" for host in hosts for scheme in ("http", "https"))

    async def _bound(self, type_id: str) -> list[str]:
        """Return the ids of all bindings that the engine has handed to this provider, or is about to."""
        with contextlib.suppress(InvocationError):
            found = await self._worker.trigger_async("engine::registered-triggers::list", {"trigger_type": type_id})
            return [row["id"] for row in found["registered_triggers"] if row["state"] == "bound"]
        return []

    async def _is_superseded(self) -> bool:
        if self.listening is None or not await self._successor.is_there():
            return False
        self._loop.call_soon_threadsafe(self.listening.pause)
        return True

    def stop(self, seconds: float) -> None:
        """Answer what has begun, within `seconds`, and let go of the socket."""
        asyncio.run_coroutine_threadsafe(self._close(seconds), self._loop).result()

    async def _close(self, seconds: float) -> None:
        if self.listening is not None:
            await self.listening.close(max(0.0, seconds - STOP_MARGIN_SECONDS) if seconds else self._options.timeout)
        self._log.flush()


def _on_thread(trigger: Trigger) -> Trigger:
    """Return the same as calls on a loop of their own: while it works on one, the other loop serves."""
    loop = asyncio.new_event_loop()
    Thread(target=loop.run_forever, name="large-bodies", daemon=True).start()

    async def run(request: TriggerRequestInput) -> Any:
        return await trigger(request)

    return lambda request: asyncio.wrap_future(asyncio.run_coroutine_threadsafe(run(request), loop))


class Successor:
    """Whether the engine has put a later generation in the place of this process. Asked on the SDK's loop."""

    def __init__(self, worker: Worker) -> None:
        self._worker = worker
        self._asking = asyncio.Lock()
        self._questions = self._answered = 0
        self._is_there = False

    async def is_there(self) -> bool:
        """Ask the engine. One answer is for all who have asked before its question was sent."""
        self._questions += 1
        question = self._questions
        async with self._asking:
            if self._answered < question and not self._is_there:
                self._answered = self._questions
                self._is_there = await self._ask()
        return self._is_there

    async def _ask(self) -> bool:
        name, instance = os.environ.get("III_WORKER_NAME", "http"), int(os.environ.get("III_INSTANCE", "0"))
        try:
            rows = (await self._worker.trigger_async("engine::workers::list", {"search": name}))["workers"]
        except InvocationError:
            return True  # the engine is about to stop this process: what is there stays
        own = [row for row in rows if row["name"] == name and row.get("instance") == instance]
        return any(row["generation"] > int(os.environ.get("III_GENERATION", "0")) for row in own)
