"""The provider of the trigger types `http` and `websocket`: bindings become routes, live, and go with their worker.

The SDK tells of bindings on its own loop; every change is made on the server's, so that the table needs no lock.
"""

from __future__ import annotations

import asyncio
import contextlib
from collections import deque
from collections.abc import Awaitable, Callable, Iterable
from typing import Any

from iii import TriggerConfig, TriggerHandler
from stdlib_workers.http.routes import Route, Routes

DESCRIPTION = "A request to a method and a path of the http worker."
SOCKET_DESCRIPTION = "A WebSocket of the http worker: the function gets the events connect, message and close."
SOCKET_SCHEMA = {"type": "object", "properties": {"api_path": {"type": "string"}}, "required": ["api_path"]}
CONFIG_SCHEMA = {
    "type": "object",
    "properties": {
        "api_path": {"type": "string"},
        "http_method": {"type": "string", "default": "GET"},
        "condition_function_id": {"type": "string"},
        "middleware_function_ids": {"type": "array", "items": {"type": "string"}},
        "cancel": {"type": "boolean", "description": "Cancel the function when its client leaves."},
        "stream": {"type": "boolean", "description": "Pass request_body and response, the ends of two channels."},
    },
    "required": ["api_path"],
}
# Changes of the table between which requests are answered: about a millisecond of work.
CHANGES_AT_A_TIME = 64


class HttpTriggers(TriggerHandler):
    """Keeps the routes as the engine says, of one `method` if given.

    A binding goes when it is removed, and also when a successor of this process gets it: `is_superseded` tells which.
    """

    def __init__(
        self,
        routes: Routes,
        loop: asyncio.AbstractEventLoop,
        is_superseded: Callable[[], Awaitable[bool]],
        method: str | None = None,
    ) -> None:
        self._routes = routes
        self._method = method
        self._loop = loop
        self._is_superseded = is_superseded
        self._going: set[str] = set()  # removed, unless a successor has got them
        self._seen: set[str] = set()
        self._changed = asyncio.Event()
        self._changes: deque[tuple[Callable[[Any], None], Any, asyncio.Future[None]]] = deque()

    async def register_trigger(self, config: TriggerConfig) -> None:
        """Add a route. ValueError when the config is wrong or the route is taken."""
        if self._going:
            await self._is_superseded()  # the answers come in the order of the questions: the path may be free by then
        await self._on_server(self._add, config)

    async def unregister_trigger(self, config: TriggerConfig) -> None:
        """Remove a route. One that our successor has got stays here for whoever asks us still."""
        self._going.add(config.id)
        is_superseded = await self._is_superseded()
        self._going.discard(config.id)
        if not is_superseded:
            await self._on_server(self._remove, config.id)

    async def wait_for(self, ids: Iterable[str], silence: float) -> bool:
        """Wait until each of these bindings has come, accepted or refused; False if none comes for so many seconds."""
        wanted = set(ids)
        try:
            while len(self._seen) < len(wanted) or not wanted <= self._seen:
                self._changed.clear()
                async with asyncio.timeout(silence):
                    await self._changed.wait()
        except TimeoutError:
            return False
        return True

    async def _on_server(self, work: Callable[[Any], None], argument: Any) -> None:
        """Have the server's loop do a piece of work. Those that come in a burst share the ways there and back."""
        loop = asyncio.get_running_loop()
        done = loop.create_future()
        self._changes.append((work, argument, done))
        if len(self._changes) == 1:
            self._loop.call_soon_threadsafe(self._work_off, loop)
        await done

    def _work_off(self, answer_on: asyncio.AbstractEventLoop) -> None:
        answers: list[tuple[asyncio.Future[None], ValueError | None]] = []
        while self._changes and len(answers) < CHANGES_AT_A_TIME:
            work, argument, done = self._changes.popleft()
            try:
                work(argument)
            except ValueError as error:
                answers.append((done, error))
            else:
                answers.append((done, None))
        with contextlib.suppress(RuntimeError):  # the SDK's loop has ended: nobody waits any more
            answer_on.call_soon_threadsafe(_settle, answers)
        if self._changes:
            self._loop.call_soon(self._work_off, answer_on)

    def _add(self, config: TriggerConfig) -> None:
        self._seen.add(config.id)
        self._changed.set()
        self._routes.add(route_from(config, self._method))

    def _remove(self, id: str) -> None:
        self._seen.discard(id)
        self._routes.remove(id)


def _settle(answers: list[tuple[asyncio.Future[None], ValueError | None]]) -> None:
    for done, error in answers:
        if done.done():  # whoever waited was cancelled
            continue
        if error is None:
            done.set_result(None)
        else:
            done.set_exception(error)


def route_from(config: TriggerConfig, method: str | None = None) -> Route:
    """Return the route of a binding, for `method` if that is given. ValueError says what is wrong with its config."""
    fields = config.config if isinstance(config.config, dict) else {}
    pattern, method = fields.get("api_path"), method or fields.get("http_method") or "GET"
    condition, middleware = fields.get("condition_function_id"), fields.get("middleware_function_ids") or []
    if not isinstance(pattern, str):
        raise ValueError(f"an http trigger needs api_path, the path it answers, as a text; got {pattern!r}")
    if not isinstance(method, str):
        raise ValueError(f"http_method must be a text, not {method!r}")
    if condition is not None and not isinstance(condition, str):
        raise ValueError(f"condition_function_id must be a text, not {condition!r}")
    if not isinstance(middleware, list):
        raise ValueError(f"middleware_function_ids must be a list, not {middleware!r}")
    return Route(
        id=config.id,
        function_id=config.function_id,
        method=method.upper(),
        pattern=pattern,
        namespace=config.namespace,
        metadata=config.metadata,
        condition=condition,
        middleware=tuple(name for name in middleware if isinstance(name, str)),
        streams=fields.get("stream") is True,
        cancels=fields.get("cancel") is True,
    )
