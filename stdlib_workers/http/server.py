"""Joins the parts of the worker and gives them their order: take the socket, provide the type, get the routes, accept.

A generation accepts only when it has every route, and one that has a successor keeps its routes to the end: between
two generations no path is unknown for a moment.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import socket
from pathlib import Path
from typing import Any

from iii import InvocationError, TriggerRequestInput, Worker
from stdlib_workers.http.access import AccessLog
from stdlib_workers.http.application import Application, Fallback
from stdlib_workers.http.channels import Channels
from stdlib_workers.http.documentation import Documentation
from stdlib_workers.http.handover import Handover, bind, is_bound_to
from stdlib_workers.http.listening import Listening
from stdlib_workers.http.options import DEFAULT_PORT, Options
from stdlib_workers.http.origins import Origins, hosts_for
from stdlib_workers.http.routes import Routes
from stdlib_workers.http.sockets import METHOD, Sockets
from stdlib_workers.http.static import StaticFolder
from stdlib_workers.http.triggers import (
    CONFIG_SCHEMA,
    DESCRIPTION,
    SOCKET_DESCRIPTION,
    SOCKET_SCHEMA,
    HttpTriggers,
)

# How long a start waits for its routes. They come in one burst; a provider must be ready even if one is lost.
ROUTES_SECONDS = 2.0
# Left of the engine's patience for what comes after the last answer.
STOP_MARGIN_SECONDS = 1.0


class Server:
    """One generation of the http worker. `open`, then `start` on the loop, then `stop` from any thread."""

    def __init__(self, worker: Worker, options: Options, folder: Path) -> None:
        self._worker = worker
        self._options = options
        self._handover = Handover(folder, os.environ.get("III_WORKER_NAME", "http"))
        self._routes = Routes()
        self._socket_routes = Routes()
        self._kept: set[str] = set()
        self._is_closing = False
        self._log = AccessLog(is_on=options.access_log)
        self._application = Application(worker.trigger_async, self._routes, options, self._log)
        path = os.environ.get("III_SOCKET", "")
        self._application.channels = Channels(worker.trigger_async, path) if path else None
        self._documentation = Documentation(worker.trigger_async, self._routes)
        self._application.fallbacks = self._fallbacks(Path(os.environ.get("III_PROJECT", ".")))

    def _fallbacks(self, project: Path) -> list[Fallback]:
        folders: list[Fallback] = [StaticFolder(prefix, project / folder) for prefix, folder in self._options.static]
        return [*folders, self._documentation] if self._options.openapi else folders

    @property
    def port(self) -> int:
        """The port that is served."""
        return self._listening.port

    def open(self) -> None:
        """Take the socket over from the generation before, or bind one. OSError when the port is taken."""
        options = self._options
        self._socket = self._taken() or bind(options.host, options.port, DEFAULT_PORT)

    def _taken(self) -> socket.socket | None:
        taken = self._handover.take()
        if taken is not None and not is_bound_to(taken, self._options.host, self._options.port):
            taken.close()
            return None
        return taken

    async def start(self, loop: asyncio.AbstractEventLoop) -> None:
        """Provide the trigger type, get its bindings, and accept."""
        self._loop = loop
        sockets = Sockets(self._application, self._socket_routes, self._options.timeout, self._log)
        self._listening = Listening(self._socket, sockets)
        hosts = hosts_for(self._options.host, self.port, self._options.hosts)
        self._application.origins = Origins(hosts, self._options.cors)
        self._handover.on_successor_lost = self._take_back
        # Before the engine may start a successor: one that finds nobody would open a socket of its own.
        await self._handover.offer(self._socket)
        http = self._provide("http", DESCRIPTION, CONFIG_SCHEMA, HttpTriggers(self._routes, loop))
        sockets_type = HttpTriggers(self._socket_routes, loop, METHOD)
        websocket = self._provide("websocket", SOCKET_DESCRIPTION, SOCKET_SCHEMA, sockets_type)
        self._worker.register_function("http::openapi", self._documentation.describe)
        self._worker.ready()
        for type_id, triggers in (("http", http), ("websocket", websocket)):
            await triggers.wait_for(await self._bound(type_id), ROUTES_SECONDS)
        await self._listening.accept()

    def _provide(self, id: str, description: str, schema: dict[str, Any], triggers: HttpTriggers) -> HttpTriggers:
        triggers.keeps = self._keeps
        self._worker.register_trigger_type(
            {"id": id, "description": description, "trigger_request_format": schema}, triggers
        )
        return triggers

    async def _bound(self, type_id: str) -> list[str]:
        """Return the ids of all bindings that the engine has handed to this provider, or is about to."""
        with contextlib.suppress(InvocationError):
            call: TriggerRequestInput = {
                "function_id": "engine::registered-triggers::list",
                "payload": {"trigger_type": type_id},
            }
            rows = (await self._worker.trigger_async(call))["registered_triggers"]
            return [row["id"] for row in rows if row["state"] == "bound"]
        return []

    def _keeps(self, id: str) -> bool:
        """Whether a route stays although its binding has gone: it went to our successor."""
        if not self._handover.has_successor:
            return False
        self._kept.add(id)
        self._listening.pause()
        return True

    def _take_back(self) -> None:
        """The successor has failed before it was there for good: what it was given is gone or comes again."""
        for id in self._kept:
            self._routes.remove(id)
            self._socket_routes.remove(id)
        self._kept.clear()
        if not self._is_closing:
            self._accepting = self._loop.create_task(self._listening.accept())

    def stop(self, seconds: float) -> None:
        """Answer what has begun, within `seconds`, and let go of the socket."""
        asyncio.run_coroutine_threadsafe(self._close(seconds), self._loop).result()

    async def _close(self, seconds: float) -> None:
        self._is_closing = True
        limit = max(0.0, seconds - STOP_MARGIN_SECONDS) if seconds else self._options.timeout
        await self._listening.close(limit)
        self._handover.close()
        self._log.flush()
