"""The provider of the trigger types `http` and `websocket`: bindings become routes, live, and go with their worker.

The SDK tells of bindings on its own loop, in their order, and the table is changed there while the server reads it.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Collection
from pathlib import Path
from threading import Condition

from iii import TriggerConfig, TriggerHandler
from iii.arguments import arguments_from
from iii.config_schema import mistakes
from iii.declarations import load_declarations
from stdlib_workers.http.routes import SOCKET, Route, Routes

# What the worker declares, and the one method of each of its trigger types.
DECLARED = load_declarations(Path(__file__).parent)
METHODS = {"http": None, SOCKET: SOCKET}


class HttpTriggers(TriggerHandler):
    """Keeps the routes as the engine says, of one `method` if given.

    A binding goes when it is removed, and also when a successor of this process gets it: `is_superseded` tells which.
    """

    def __init__(self, routes: Routes, is_superseded: Callable[[], Awaitable[bool]], method: str | None = None) -> None:
        self._routes = routes
        self._is_superseded = is_superseded
        self._method = method
        self._going: set[str] = set()  # removed, unless a successor has got them
        self._seen: set[str] = set()
        self._arrived = Condition()

    async def register_trigger(self, config: TriggerConfig) -> None:
        """Add a route. ValueError when the config is wrong or the route is taken."""
        if self._going:
            await self._is_superseded()  # the answers come in the order of the questions: the path may be free by then
        try:
            self._routes.add(route_from(config, self._method))
        finally:
            with self._arrived:
                self._seen.add(config.id)
                self._arrived.notify()

    async def unregister_trigger(self, config: TriggerConfig) -> None:
        """Remove a route. One that our successor has got stays here for whoever asks us still."""
        self._going.add(config.id)
        is_superseded = await self._is_superseded()
        self._going.discard(config.id)
        if not is_superseded:
            self._seen.discard(config.id)
            self._routes.remove(config.id)

    def wait_for(self, ids: Collection[str], silence: float) -> None:
        """Wait until each of these bindings has come, accepted or refused, or none has come for so many seconds."""
        wanted = set(ids)
        with self._arrived:
            while len(self._seen) < len(wanted) or not wanted <= self._seen:
                if not self._arrived.wait(silence):
                    return


def route_from(config: TriggerConfig, method: str | None = None) -> Route:
    """Return the route of a binding, for `method` if that is given. ValueError says what is wrong with its config."""
    given = config.config if isinstance(config.config, dict) else {}
    fields = {key: value for key, value in given.items() if value is not None}
    if isinstance(names := fields.get("middleware_function_ids"), list):
        fields["middleware_function_ids"] = [name for name in names if isinstance(name, str)]
    if found := "; ".join(map(str, mistakes(fields, DECLARED.trigger_types["http"]["trigger_request_format"]))):
        raise ValueError(found)
    arguments = arguments_from(fields)
    if arguments is None and "status" in fields:
        raise ValueError('status needs payload = "arguments"; a function that gets the event says status_code itself')
    return Route(
        id=config.id,
        function_id=config.function_id,
        method=method or fields.get("http_method", "GET").upper(),
        pattern=fields["api_path"],
        namespace=config.namespace,
        metadata=config.metadata,
        condition=fields.get("condition_function_id"),
        middleware=tuple(fields.get("middleware_function_ids", ())),
        streams=fields.get("stream", False if arguments is None else None),
        cancels=fields.get("cancel", False),
        arguments=arguments,
        status=fields.get("status"),
    )
