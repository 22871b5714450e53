"""A router, the engine's own functions and a gateway, without supervisor: what clients of every kind connect to."""

from __future__ import annotations

import asyncio
import json
import queue
import threading
import time
import uuid
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import uvloop
from websockets.sync.client import ClientConnection, connect

from iii.engine.builtins.client import EngineClient
from iii.engine.builtins.functions import Builtins
from iii.engine.builtins.observers import ObserverLists
from iii.engine.channels.channel import Channels
from iii.engine.gateway.authentication import AuthPolicy
from iii.engine.gateway.server import ConnectionLimits, Ends, Gateway, ListenerOptions
from iii.engine.observing.observing import Observing
from iii.engine.routing.events import Event, FunctionsChanged, PeerExpelled, WorkersChanged
from iii.engine.routing.payload_schemas import compile_schema
from iii.engine.routing.peer import Peer
from iii.engine.routing.router import Router
from iii.engine.security import peer_uid
from iii.engine.security.admission import AuthThrottle
from iii.engine.security.rbac import Rules
from iii.engine.transport.message_pump import MessagePump
from iii.engine.transport.poller import make_poller
from iii.engine.transport.tcp_address import Address

# Every wait has a bound, far beyond what a loaded machine needs.
BOUND = 20.0


class Control:
    """No worker is supervised here."""

    def rows(self) -> list[dict[str, Any]]:
        return []

    async def start_worker(self, name: str) -> list[dict[str, Any]]:
        raise KeyError(name)

    stop_worker = restart_worker = start_worker

    def counters(self) -> dict[str, int]:
        return {}

    def health(self) -> dict[str, Any]:
        return {"status": "ready", "workers": []}

    def adopt(self, peer: Peer, pid: int) -> bool:
        return False

    on_identified: Callable[[Peer], None] = staticmethod(lambda peer: None)

    def identified(self, peer: Peer) -> None:
        self.on_identified(peer)


def make_observing(
    router: Router,
    builtins: Builtins,
    control: Control,
    call_later: Callable[[float, Callable[[], None]], Any],
) -> Observing:
    """Return observers of a router's functions, with the engine's functions that list them."""
    observing = Observing(
        router, clock=time.monotonic, wall_clock=time.time, call_later=call_later, compile_schema=compile_schema
    )
    control.on_identified = observing.identified
    lists = ObserverLists(observing)
    builtins.serve("engine::observers::list", lists.list, "")
    builtins.serve("engine::observers::get", lists.get, "")
    return observing


class Engine:
    """The parts of an engine that a gateway needs, on a loop in a thread of its own."""

    def __init__(
        self,
        port: int = 0,
        origins: tuple[str, ...] = (),
        rules: Rules | None = None,
        middleware: str | None = None,
        *,
        throttle: AuthThrottle | None = None,
        engine_client: Callable[[MessagePump], EngineClient] = EngineClient,
        are_same_user: Callable[[Sequence[Ends]], list[bool]] = peer_uid.are_same_user,
        **limits: Any,
    ) -> None:
        self._options = ListenerOptions(
            Address(f"127.0.0.1:{port}", line=port),
            "secret",
            origins,
            throttle=throttle or AuthThrottle(),
            are_same_user=are_same_user,
        )
        self._rules, self._middleware, self._engine_client = rules, middleware, engine_client
        self._limits = ConnectionLimits(**limits)
        self.events: list[Event] = []
        self.longest_wait = 3600.0  # seconds that a timer of observers runs at most
        self.now = 0.0  # as channels see it
        self._started: queue.Queue[None] = queue.Queue()
        self._thread = threading.Thread(target=self._main)

    def __enter__(self) -> Engine:
        self._thread.start()
        self._started.get(timeout=BOUND)
        return self

    def __exit__(self, *_: object) -> None:
        self._loop.call_soon_threadsafe(self._stop.set)
        self._thread.join(BOUND)

    def _main(self) -> None:
        with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
            runner.run(self._run())

    async def _run(self) -> None:
        self._loop = asyncio.get_running_loop()
        self._stop = asyncio.Event()
        self.router = Router()
        self.pump = MessagePump(self.router, on_event=self._on_event, on_output=lambda peer, line: None)
        self._poller = make_poller(self.pump.turn)
        self.control = Control()
        self.builtins = Builtins(self.router, self.control, self.pump.turn)
        self.observing = make_observing(self.router, self.builtins, self.control, self._call_later)
        self.channels = Channels(lambda: str(uuid.uuid4()), lambda: self.now, self.router.calls.budget)
        self.builtins.serve("engine::channels::create", self.channels.answer, "")
        self.gateway = self._make_gateway(self._options, self._limits)
        self.guarded = self.gateway
        if self._rules or self._middleware:
            policy = AuthPolicy(self._engine_client(self.pump), self._rules, self._middleware)
            self.guarded = self._make_gateway(ListenerOptions(Address("127.0.0.1:0"), None, auth_policy=policy))
        self._started.put(None)
        await self._stop.wait()
        self.gateway.close()
        self.guarded.close()
        self.builtins.close()
        self.pump.close()
        self._poller.close()

    def _call_later(self, seconds: float, act: Callable[[], None]) -> asyncio.TimerHandle:
        # Reclaiming waits for half a minute; tests of it hand in a shorter time.
        return self._loop.call_later(min(seconds, self.longest_wait), lambda: (act(), self.pump.turn()))

    def _on_event(self, event: Event) -> None:
        self.events.append(event)
        if isinstance(event, FunctionsChanged | WorkersChanged):
            self.builtins.on_event(event)
        elif isinstance(event, PeerExpelled):
            self._loop.call_soon(event.peer.close)

    def _make_gateway(self, options: ListenerOptions, limits: ConnectionLimits | None = None) -> Gateway:
        return Gateway(
            self.pump,
            self.channels,
            options,
            limits,
            poller=self._poller,
            on_telemetry=lambda prefix, data: None,
            on_routed=lambda peer: None,
            on_left=self._on_left,
        )

    def _on_left(self, peer: Peer) -> None:
        self.router.peer_table.detach(peer)
        self.pump.turn()

    @property
    def url(self) -> str:
        return f"ws://{self.gateway.address}"

    @property
    def guarded_url(self) -> str:
        return f"ws://{self.guarded.address}"

    @property
    def port(self) -> int:
        return self.gateway.address.port

    def ask(self, question: Callable[[], Any]) -> Any:
        """Return what `question()` returns on the engine's own thread."""
        answer: queue.Queue[Any] = queue.Queue()
        self._loop.call_soon_threadsafe(lambda: answer.put(question()))
        return answer.get(timeout=BOUND)

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait until a condition holds on the engine's thread: looked at again after each of its turns."""
        met = threading.Event()

        def look() -> None:
            if condition():
                met.set()
            elif not self._stop.is_set():
                self._loop.call_later(0.005, look)

        self._loop.call_soon_threadsafe(look)
        assert met.wait(BOUND), f"never became true: {self.router!r}"

    @contextmanager
    def guarded_client(self, path: str = "/", **options: Any) -> Iterator[Client]:
        """A client of the listener with rules."""
        with self.client(path, self.guarded_url, **options) as client:
            yield client

    @contextmanager
    def client(self, path: str = "/", url: str = "", **options: Any) -> Iterator[Client]:
        with connect(
            (url or self.url) + path, max_size=None, open_timeout=BOUND, close_timeout=1, **options
        ) as connection:
            yield Client(connection)


class Client:
    """A WebSocket client that speaks the wire itself."""

    def __init__(self, connection: ClientConnection) -> None:
        self.connection = connection
        self.seen: list[dict[str, Any]] = []

    def send(self, *messages: dict[str, Any]) -> None:
        for message in messages:
            self.connection.send(json.dumps(message))

    def receive(self) -> dict[str, Any]:
        message: dict[str, Any] = json.loads(self.connection.recv(timeout=BOUND))
        return message

    def expect(self, kind: str, **fields: Any) -> dict[str, Any]:
        """Return, and remove, the first message of this type with these fields; read until it is there."""
        wanted = {"type": kind, **fields}
        while True:
            for message in self.seen:
                if wanted.items() <= message.items():
                    self.seen.remove(message)
                    return message
            self.seen.append(self.receive())

    def invoke(self, function_id: str, data: Any = None, **more: Any) -> dict[str, Any]:
        """Call a function and return the whole `invocationresult`."""
        id = str(uuid.uuid4())
        self.send({"type": "invokefunction", "invocation_id": id, "function_id": function_id, "data": data, **more})
        return self.expect("invocationresult", invocation_id=id)

    def say_who(self, name: str = "", **more: Any) -> None:
        """Do what every SDK does last when it connects."""
        self.send(
            {
                "type": "invokefunction",
                "function_id": "engine::workers::register",
                "action": {"type": "void"},
                "data": {"runtime": "test", "name": name, **more},
            }
        )

    def register(self, *function_ids: str) -> None:
        self.send(*({"type": "registerfunction", "id": id} for id in function_ids))

    def sync(self) -> None:
        """Return when everything sent before has been acted on."""
        self.send({"type": "ping"})
        self.expect("pong")
