"""A project, and sessions of a listener with rules: the real router, builtins and gateway in memory, no processes.

The project's peers are stand-ins that do what workers do: `shop` has functions, `private` has one in a namespace of its
own, `queue` runs jobs, `cron` and `state` fire their bindings. `stopped` is down, `ghost` never registered anything.
Everything that sessions send goes through `RbacSession`, as from a socket.
"""

from __future__ import annotations

import asyncio
import itertools
import json
from collections import Counter
from collections.abc import Callable
from typing import Any

from iii.engine.builtins.client import EngineClient
from iii.engine.builtins.functions import Builtins
from iii.engine.channels.channel import Channels
from iii.engine.gateway.authentication import AuthPolicy
from iii.engine.gateway.middleware_proxy import MiddlewareProxies
from iii.engine.gateway.rbac_session import RbacSession
from iii.engine.routing.events import Event, FunctionsChanged, Notice, PeerExpelled, WorkersChanged
from iii.engine.routing.peer import Peer
from iii.engine.routing.router import Router
from iii.engine.security.rbac import AuthResult, Filter, Permissions, Rules
from iii.engine.transport.message_pump import MessagePump
from iii.protocol.frames import TEXT
from tests.support.harness import Control, make_observing

RULES = Rules(
    auth_function_id="gate::auth",
    expose_functions=(
        Filter(match="api::*"),
        Filter(metadata={"public": True}),
        *(Filter(match=f"engine::{name}") for name in ("register_trigger", "unregister_trigger", "queue::enqueue")),
        *(Filter(match=f"engine::{name}::*") for name in ("functions", "triggers", "registered-triggers", "workers")),
    ),
)
# What the project has. `vault::key` is never named by a session.
SHOP = ("api::open", "db::secret", "vault::key", "gate::middleware")
FUNCTIONS = {*SHOP, "engine::queue::enqueue", "stopped::f"}
TYPES = {"cron", "state", "beep", "old-beep"}
SECRET = "SECRET-7391"


class Socket:
    """A WebSocket connection of which nothing but its lines is real."""

    client, server = ("127.0.0.1", 40_000), ("127.0.0.1", 40_001)

    def __init__(self) -> None:
        self.lines: list[bytes] = []
        self.closed_with: int | None = None
        self.is_open = True

    def send_lines(self, lines: list[bytes]) -> None:
        self.lines += lines

    def close(self, code: int = 1000) -> None:
        self.closed_with = code
        self.is_open = False

    def pause(self) -> None:
        pass

    resume = drain = pause


class SessionWorld:
    """Make it inside a running loop, and `close` it there. `settle` lets everything that is under way happen."""

    def __init__(self, *, middleware: bool = False, auth: AuthResult | None = None, rules: Rules = RULES) -> None:
        self.router = Router(timeout=10.0)
        self.counters: Counter[str] = Counter()
        self.notices: list[str] = []
        self.pump = MessagePump(self.router, on_event=self._on_event, on_output=lambda peer, line: None)
        control = Control()
        self.builtins = Builtins(self.router, control, self.pump.turn)
        self.observing = make_observing(self.router, self.builtins, control, asyncio.get_running_loop().call_later)
        self.channels = Channels(mint=map("channel{}".format, itertools.count()).__next__, clock=lambda: 0.0)
        self.builtins.serve("engine::channels::create", self.channels.answer, "")
        middleware_id = "gate::middleware" if middleware else None
        self.policy = AuthPolicy(EngineClient(self.pump), rules, middleware_id)
        self.auth = auth or AuthResult(allow_trigger_type_registration=True, allowed_trigger_types=None)
        self.proxies = MiddlewareProxies(self.router)
        self.sessions: list[RbacSession] = []
        self.got: dict[str, list[dict[str, Any]]] = {}  # by name: what a peer of the project was sent
        self.bound: dict[str, dict[str, dict[str, Any]]] = {"cron": {}, "state": {}}  # by provider, then binding id
        self.handlers: dict[str, Callable[[Peer, dict[str, Any]], None]] = {}  # by function, for tests that answer
        self._numbers = itertools.count(1)
        self.shop = self.start("shop", *SHOP, types=("beep",))
        self.register(self.shop, "public::f", metadata={"public": True})
        self.private = self.start("private", "api::open", namespace="private")
        self.queue = self.start("queue", "engine::queue::enqueue")
        self.cron = self.start("cron", types=("cron",))
        self.state = self.start("state", "state::set", types=("state",))
        stopped = self.start("stopped", "stopped::f", types=("old-beep",))
        self.router.peer_table.refuse_calls("stopped", {"state": "stopped"})
        self.router.peer_table.detach(stopped)
        self.router.peer_table.refuse_calls("stopped", {"state": "stopped"})
        self.router.peer_table.expect("ghost")
        self.router.peer_table.refuse_calls("ghost", {"state": "failed"})
        metadata = {"token": SECRET}
        for id, trigger_type, function in (("nightly", "cron", "db::secret"), ("waits", "nobody-has-it", "vault::key")):
            self.send(
                self.shop,
                "registertrigger",
                id=id,
                trigger_type=trigger_type,
                function_id=function,
                config={"key": SECRET},
                metadata=metadata,
            )
        self.pump.turn()

    # `SessionHost`
    namespace_timeout = 5.0

    def on_routed(self, peer: Peer) -> None:
        pass

    def on_left(self, peer: Peer) -> None:
        self.router.peer_table.detach(peer)
        self.pump.turn()

    def take_telemetry(self, data: bytes) -> bool:
        return False

    def abort_if_slow(self, connection: Any) -> None:
        pass

    def _on_event(self, event: Event) -> None:
        if isinstance(event, FunctionsChanged | WorkersChanged):
            self.builtins.on_event(event)
        elif isinstance(event, Notice):
            self.notices.append(event.text)
        elif isinstance(event, PeerExpelled):
            event.peer.close()

    # The project

    def start(self, name: str, *functions: str, types: tuple[str, ...] = (), namespace: str = "default") -> Peer:
        """Start a process of a supervised worker that registers this, and let it serve."""
        owner = self.router.peer_table.owner_of(name, namespace)
        peer = Peer(f"{name}.{next(self._numbers)}", kind="worker", name=name, owner=owner, namespace=namespace)
        peer.generation, peer.instance, peer.flush = next(self._numbers), 1, lambda: self._on_flush(peer)
        self.router.peer_table.attach(peer)
        self.register(peer, *functions)
        for trigger_type in types:
            self.send(peer, "registertriggertype", id=trigger_type)
        self.router.peer_table.promote(peer)
        self.pump.turn()
        return peer

    def register(self, peer: Peer, *functions: str, **fields: Any) -> None:
        for function in functions:
            self.send(peer, "registerfunction", id=function, **fields)

    def send(self, peer: Peer, type: str, **fields: Any) -> None:
        self.pump.take(peer, [json.dumps({"type": type, **fields}).encode()])
        self.pump.turn()

    def _on_flush(self, peer: Peer) -> None:
        for line in peer.take_outbox():
            message = json.loads(line)
            self.got.setdefault(peer.name, []).append(message)
            if message["type"] == "registertrigger" and peer.name in self.bound:
                self.bound[peer.name][message["id"]] = message
            elif message["type"] == "unregistertrigger" and peer.name in self.bound:
                self.bound[peer.name].pop(message["id"], None)
            elif message["type"] == "invokefunction":
                self._answer(peer, message)

    def _answer(self, peer: Peer, call: dict[str, Any]) -> None:
        """Run a call: the queue runs a job at once, the middleware says no, others answer with a secret of theirs."""
        function, data = call["function_id"], call.get("data")
        if function in self.handlers:
            self.handlers[function](peer, call)
            return
        answer: dict[str, Any] = {"result": SECRET if function in ("db::secret", "vault::key") else "fine"}
        if function == "engine::queue::enqueue" and isinstance(data, dict) and isinstance(data.get("function_id"), str):
            given = data.get("metadata")
            metadata = given if isinstance(given, dict) else {}
            job = {"function_id": data["function_id"], "data": data.get("data"), "namespace": data.get("namespace")}
            self.send(peer, "invokefunction", **job, metadata={**metadata, "iii.job": {"id": "real"}})
        elif function == "gate::middleware":
            answer = {"error": {"code": "no", "message": "the middleware says no"}}
        self.send(peer, "invocationresult", invocation_id=call["invocation_id"], **answer)

    def tick(self, provider: Peer) -> None:
        """Let a provider fire all its bindings."""
        for binding in list(self.bound[provider.name].values()):
            self.send(
                provider,
                "invokefunction",
                function_id=binding["function_id"],
                data={"event": provider.name},
                metadata=binding.get("metadata"),
                namespace=binding.get("namespace"),
            )

    # Sessions

    def session(self, name: str = "", auth: AuthResult | None = None) -> RbacSession:
        """Connect a session; with a name, it says who it is, and what it registers takes effect."""
        permissions = Permissions(self.policy.rules, auth or self.auth)
        session = RbacSession(Socket(), self, self.policy, permissions, self.proxies)  # type: ignore[arg-type]
        session.open()
        self.sessions.append(session)
        if name:
            call = {"type": "invokefunction", "function_id": "engine::workers::register", "data": {"name": name}}
            session.on_messages([(TEXT, json.dumps(call).encode())])
        return session

    async def say(self, session: RbacSession, *messages: dict[str, Any]) -> list[dict[str, Any]]:
        """Let a session send messages; return what it was sent by the time that nothing happens any more."""
        socket = session._connection
        assert isinstance(socket, Socket)
        socket.lines.clear()
        session.on_messages([(TEXT, json.dumps(message).encode()) for message in messages])
        await self.settle()
        return [json.loads(line) for line in socket.lines]

    async def call(self, session: RbacSession, function_id: str, data: Any = None, **fields: Any) -> dict[str, Any]:
        id = f"call{next(self._numbers)}"
        message = {"type": "invokefunction", "function_id": function_id, "invocation_id": id, "data": data, **fields}
        answers = await self.say(session, message)
        return next((answer for answer in answers if answer.get("invocation_id") == id), {})

    def are_sessions_apart(self) -> bool:
        """Whether no session has become a process of a worker."""
        return not any(session.peer.owner.is_supervised for session in self.sessions)

    async def settle(self) -> None:
        """Let everything happen that waits for nothing but its turn."""
        for _ in range(6):
            await asyncio.sleep(0)

    def close(self) -> None:
        for session in self.sessions:
            if not session.peer.is_gone:
                session.on_closed()
        self.builtins.close()
        self.pump.close()
