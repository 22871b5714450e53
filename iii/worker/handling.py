"""Decorators that bind a function to events, and handles of what other workers keep: sugar over the plain methods.

The binding half of `Worker`. What a decorator does is in `handlers/`, loaded by its first use: most of a worker's start
is its imports.
"""

from __future__ import annotations

import os
import sys

TYPE_CHECKING = False
if TYPE_CHECKING:
    from collections.abc import Callable, Mapping, Sequence
    from typing import Any, ParamSpec, TypeVar, Unpack, overload

    from iii.worker.api.options import FunctionOptions, InitOptions
    from iii.worker.api.triggers import FunctionRef, Trigger, TriggerInput
    from iii.worker.flows.declaration import FlowOptions
    from iii.worker.functions.handler import Handler
    from iii.worker.handlers.bindings import BindingOptions, CronOptions, RouteOptions
    from iii.worker.handlers.queues import QueuedFunction, QueueOptions
    from iii.worker.handlers.state import State
    from iii.worker.handlers.streams import StreamGroup

    F = TypeVar("F", bound=Callable[..., Any])
    P = ParamSpec("P")
    R = TypeVar("R")
    T = TypeVar("T")


class Handling:
    """Binds functions to events by decorators. The attributes below are the worker's."""

    _options: InitOptions
    _namespace: str | None
    _typed_functions: dict[Callable[..., Any], tuple[str, bool]]

    if TYPE_CHECKING:

        def register_trigger(self, trigger: TriggerInput) -> Trigger: ...
        def trigger(self, request: Any, payload: Any = None) -> Any: ...
        async def trigger_async(self, request: Any, payload: Any = None) -> Any: ...
        def _register(
            self,
            function_id: str,
            handler: Callable[..., Any],
            options: FunctionOptions,
            *,
            typed: bool,
            by_name: bool = False,
        ) -> FunctionRef: ...
        def _check_function(self, function_id: str, handler: Any, source: dict[str, Any] | None = None) -> None: ...
        def _offer(self, handler: Handler, details: dict[str, Any]) -> FunctionRef: ...

    # http

    def get(self, path: str, **options: Unpack[RouteOptions]) -> Callable[[F], F]:
        """Decorate a function that answers `GET` requests for `path`; as `route`.

        @worker.get("/orders/{order_id}")
        def order(order_id: int) -> Order: ...
        """
        return self.route(path, methods=("GET",), **options)

    def post(self, path: str, **options: Unpack[RouteOptions]) -> Callable[[F], F]:
        """Decorate a function that answers `POST` requests for `path`; as `route`."""
        return self.route(path, methods=("POST",), **options)

    def put(self, path: str, **options: Unpack[RouteOptions]) -> Callable[[F], F]:
        """Decorate a function that answers `PUT` requests for `path`; as `route`."""
        return self.route(path, methods=("PUT",), **options)

    def patch(self, path: str, **options: Unpack[RouteOptions]) -> Callable[[F], F]:
        """Decorate a function that answers `PATCH` requests for `path`; as `route`."""
        return self.route(path, methods=("PATCH",), **options)

    def delete(self, path: str, **options: Unpack[RouteOptions]) -> Callable[[F], F]:
        """Decorate a function that answers `DELETE` requests for `path`; as `route`."""
        return self.route(path, methods=("DELETE",), **options)

    def route(
        self, path: str, *, methods: Sequence[str] = ("GET",), **options: Unpack[RouteOptions]
    ) -> Callable[[F], F]:
        """Decorate a function that answers requests of any of these methods for `path`, as its parameters say.

        A parameter named in the path comes from there; one of a model type (dataclass, TypedDict, Struct, pydantic) is
        the JSON body, several are its keys; others come from the query. `Header`, `Cookie`, `Form`, `File` and
        `Request` in an annotation say otherwise. A result is JSON with `status` (200 unless given), None is 204.
        TypeError with file and line for a parameter whose source cannot be decided.
        """

        def decorate(function: F) -> F:
            for method in methods:
                self._bind(function, "http", {"api_path": path, "http_method": method.upper()}, options)
            return function

        return decorate

    def websocket(self, path: str, **options: Unpack[BindingOptions]) -> Callable[[F], F]:
        """Decorate a function that gets the events of WebSockets at `path`: connect, message and close (docs/http.md).

        The parameters `event`, `connection_id`, `data`, `response` and those named in the path are the event's.

            @worker.websocket("/echo")
            def echo(event: str, data: str = "") -> str | None:
                return data if event == "message" else None
        """
        return self._binder("websocket", {"api_path": path}, options)

    # Other events

    def cron(self, expression: str, **options: Unpack[CronOptions]) -> Callable[[F], F]:
        """Decorate a function that runs at the times of a cron expression, docs/cron.md.

        @worker.cron("0 2 * * *", timezone="Europe/Berlin")
        def nightly() -> None: ...
        """
        return self._binder("cron", {"expression": expression}, options)

    def subscribe(self, topic: str, **options: Unpack[BindingOptions]) -> Callable[[F], F]:
        """Decorate a function that gets what is published to a topic (`*` is one word, `>` the rest).

        One parameter of a model type is the whole message, others are keys of it.

            @worker.subscribe("orders.*")
            def changed(order: Order) -> None: ...
        """
        return self._binder("subscribe", {"topic": topic}, options)

    def on_state(self, scope: str, key: str | None = None, **options: Unpack[BindingOptions]) -> Callable[[F], F]:
        """Decorate a function that gets the writes of a scope's keys, or of one key.

        The parameters `event_type`, `scope`, `key`, `old_value` and `new_value` are the event's; one of a model type is
        the new value (null when the key was deleted), others are keys of that.
        """
        return self._binder("state", {"scope": scope, "key": key}, options)

    def on_stream(
        self,
        stream_name: str,
        group_id: str | None = None,
        item_id: str | None = None,
        **options: Unpack[BindingOptions],
    ) -> Callable[[F], F]:
        """Decorate a function that gets the events of a stream, or of one group or item.

        The parameters `stream_name`, `group_id`, `item_id`, `event` and `timestamp` are the event's; one of a model
        type is the item's data, others are keys of that.
        """
        config = {"stream_name": stream_name, "group_id": group_id, "item_id": item_id}
        return self._binder("stream", config, options)

    def on(self, trigger_type: str, **config: Any) -> Callable[[F], F]:
        """Decorate a function that gets the events of any trigger type, with that type's own config.

        One parameter of a model type is the whole event, others are keys of it. `function_id`, `arguments` and
        `metadata` are not the config's but every decorator's.

            @worker.on("doorbell", door="front")
            def rang(visitor: str) -> None: ...
        """
        return self._binder(trigger_type, config, config)

    def queue(self, queue: str, **options: Unpack[QueueOptions]) -> Callable[[Callable[P, R]], QueuedFunction[P, R]]:
        """Decorate a function whose calls can be put into a queue, which this declares with its config, docs/queue.md.

        `retries` are all attempts of a job; `backoff` and `timeout` are seconds, or texts like `"30s"`. ValueError for
        a duration that is none.

            @worker.queue("mail", retries=5, concurrency=4)
            def mail(to: str, text: str) -> None: ...

            mail.enqueue(to="ada@example.com", text="Hello", delay="10s")
        """
        from iii.worker.handlers.queues import config_from, declare  # few workers have queues

        config = config_from(queue, options)

        def decorate(function: Callable[P, R]) -> QueuedFunction[P, R]:
            return declare(self, function, config, options.get("function_id"))

        return decorate

    def flow(self, function_id: str, **options: Unpack[FlowOptions]) -> Callable[[F], F]:
        """Decorate a function whose steps are recorded: it goes on where a process has died, docs/flows.md.

        Its first parameter is the `Flow` of the run (of a coroutine function an `AsyncFlow`), the others are its input.
        A plain call starts a run and waits for its result. TypeError with file and line for a function without that
        parameter, ValueError for a duration that is none.

            @worker.flow("orders::fulfil", id_field="order_id", timeout="30d")
            def fulfil(flow: Flow, order_id: str, amount: float) -> dict:
                paid = flow.call("pay::charge", {"amount": amount}, undo="pay::refund")
                flow.sleep("1h")
                return flow.call("ship::all", {"paid": paid})
        """
        from iii.worker.flows.declaration import declare  # few workers have flows

        def decorate(function: F) -> F:
            declare(self, function, function_id, options)
            return function

        return decorate

    def _binder(self, trigger_type: str, config: dict[str, Any], options: Mapping[str, Any]) -> Callable[[F], F]:
        def decorate(function: F) -> F:
            self._bind(function, trigger_type, config, options)
            return function

        return decorate

    def _bind(
        self, function: Callable[..., Any], trigger_type: str, config: dict[str, Any], options: Mapping[str, Any]
    ) -> None:
        from iii.worker.handlers.bindings import bind  # few workers' first lines need it

        bind(self, function, trigger_type, config, options)

    # Handles

    if TYPE_CHECKING:

        @overload
        def state(self, scope: str) -> State[Any]: ...
        @overload
        def state(self, scope: str, type: type[T]) -> State[T]: ...

    def state(self, scope: str, type: Any = None) -> State[Any]:
        """Return the handle of a scope of the worker `state`: `worker.state("links")["x"]`.

        With a `type` (a dataclass, TypedDict, model or any other hint) values are read as that.

            links = worker.state("links", Link)
            links["x"] = Link("https://example.com")
            await links.set_async("x", Link("https://example.org"), if_version=1)
        """
        from iii.worker.handlers.state import State  # few workers need it

        return State(self, scope, type)

    if TYPE_CHECKING:

        @overload
        def stream_group(self, stream_name: str, group_id: str) -> StreamGroup[Any]: ...
        @overload
        def stream_group(self, stream_name: str, group_id: str, type: type[T]) -> StreamGroup[T]: ...

    def stream_group(self, stream_name: str, group_id: str, type: Any = None) -> StreamGroup[Any]:
        """Return the handle of a group of items of the worker `stream`: `worker.stream_group("chat", "room-1")["m1"]`.

        With a `type` items are read as that. Sockets that have joined the group see every change.
        """
        from iii.worker.handlers.streams import StreamGroup  # few workers need it

        return StreamGroup(self, stream_name, group_id, type)

    def publish(self, topic: str, data: Any = None) -> None:
        """Publish a message: every function that subscribes to the topic is called with it, and none is waited for.

        InvocationError `topic_not_set` for an empty topic, `function_not_found` without the worker `pubsub`.
        """
        self.trigger("publish", {"topic": topic, "data": data})

    async def publish_async(self, topic: str, data: Any = None) -> None:
        """As `publish`, without blocking the event loop."""
        await self.trigger_async("publish", {"topic": topic, "data": data})

    def _function_prefix(self) -> str:
        """The part of a function's id before `::` unless the function names its own."""
        script = getattr(sys.modules["__main__"], "__file__", None) or "worker"
        name = self._options.worker_name or os.environ.get("III_WORKER_NAME")
        return name or os.path.basename(script).partition(".")[0]
