"""A router with named peers, for tests: send as one peer, read what the others get. No I/O, a clock set by hand."""

from __future__ import annotations

import itertools
import json
from typing import Any

from iii.engine.routing.events import CallFailed, Notice, PeerDrained
from iii.engine.routing.invocation import Limits
from iii.engine.routing.peer import Peer
from iii.engine.routing.router import Router
from iii.protocol.codec import decode


class Net:
    """A router and its peers; `now` is the clock. `got` returns a peer's messages, and counts them as written."""

    def __init__(self, **options: Any) -> None:
        numbers = itertools.count(1)
        self.router = Router(mint_id=lambda: f"minted{next(numbers)}", **options)
        self.now = 100.0

    # Peers

    def peer(self, name: str, **fields: Any) -> Peer:
        """Attach a worker that serves at once, as one that connected by itself does."""
        return self._attach(Peer(name, kind=fields.pop("kind", "worker"), name=name, **fields))

    def worker(self, name: str, generation: int = 1, instance: int = 1, **fields: Any) -> Peer:
        """Attach a process of a supervised worker; it serves once it is promoted."""
        owner = self.router.peer_table.owner_of(name, fields.get("namespace", "default"))
        id = f"{name}.{instance}.{generation}"
        return self._attach(
            Peer(id, kind="worker", name=name, owner=owner, generation=generation, instance=instance, **fields)
        )

    def serving(self, name: str, *functions: str, **fields: Any) -> Peer:
        """Attach a process of a supervised worker with these functions, and promote it."""
        peer = self.worker(name, **fields)
        self.register(peer, *functions)
        self.router.peer_table.promote(peer)
        return peer

    def _attach(self, peer: Peer) -> Peer:
        self.router.peer_table.attach(peer)
        self.got(peer)
        return peer

    # What peers send

    def send(self, peer: Peer, type: str, **fields: Any) -> None:
        line = json.dumps({"type": type, **fields}, separators=(",", ":")).encode()
        self.router.receive(peer, decode(line), line, self.now)

    def register(self, peer: Peer, *functions: str, **fields: Any) -> None:
        for function in functions:
            self.send(peer, "registerfunction", id=function, **fields)

    def call(self, peer: Peer, function: str, id: str = "c1", **fields: Any) -> None:
        self.send(peer, "invokefunction", invocation_id=id, function_id=function, **{"data": None, **fields})

    def void(self, peer: Peer, function: str, **fields: Any) -> None:
        self.send(peer, "invokefunction", function_id=function, **{"data": None, **fields})

    def answer(self, peer: Peer, id: str = "c1", **fields: Any) -> None:
        fields = fields or {"result": "ok"}
        self.send(peer, "invocationresult", invocation_id=id, function_id="f", **fields)

    def bind(self, peer: Peer, id: str = "t1", type: str = "cron", function: str = "f", **fields: Any) -> None:
        self.send(peer, "registertrigger", id=id, trigger_type=type, function_id=function, **{"config": {}, **fields})

    def later(self, seconds: float) -> None:
        """Let time pass."""
        self.now += seconds
        self.router.calls.expire(self.now)

    # What peers got

    def write(self, peer: Peer, count: int | None = None) -> None:
        """The peer's transport takes `count` bytes more, all by default."""
        peer.written = peer.enqueued if count is None else min(peer.enqueued, peer.written + count)

    def got(self, peer: Peer, *, write: bool = True) -> list[dict[str, Any]]:
        """Return the messages in the peer's outbox, and empty it."""
        lines, peer.outbox = peer.outbox, []
        if write:
            self.write(peer)
        return [json.loads(line) for line in lines]

    def one(self, peer: Peer) -> dict[str, Any]:
        """Return the only message the peer got."""
        messages = self.got(peer)
        assert len(messages) == 1, messages
        return messages[0]

    def calls_of(self, peer: Peer, *, write: bool = True) -> list[str]:
        """Return the ids of the calls that the peer was given since the last look."""
        return [message["invocation_id"] for message in self.got(peer, write=write) if "data" in message]

    def error(self, peer: Peer) -> dict[str, Any]:
        """Return the error of the only answer that the peer got."""
        error = self.one(peer)["error"]
        assert isinstance(error, dict)
        return error

    # Events

    def notices(self) -> list[str]:
        return [event.counter for event in self.router.events if isinstance(event, Notice)]

    def failures(self) -> list[tuple[str, bool]]:
        """Return the calls that failed without anybody waiting: the function, and whether the call was void."""
        return [(event.function_id, event.is_void) for event in self.router.events if isinstance(event, CallFailed)]

    def drained(self) -> list[Peer]:
        return [event.peer for event in self.router.events if isinstance(event, PeerDrained)]


def limits(**fields: int) -> Limits:
    return Limits(**fields)
