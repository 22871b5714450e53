"""Routers of several engines, joined in memory: what a network does is done by hand. No I/O, a clock set by hand."""

from __future__ import annotations

from iii.engine.cluster.announcements import Announcements
from iii.engine.cluster.engines import Beat
from iii.engine.cluster.frames import decode_frame
from iii.engine.cluster.link import Link
from iii.engine.cluster.remote import RemoteEngine, RemotePeer, engine_namespace
from iii.engine.routing.peer import Owner, Peer
from tests.support.routing import Net

DEAD = {"reason": "worker_exited", "engine": "b", "words": "engine b has ended"}


class Engine(Net):
    """One engine: a router with its workers, and the other engines as it sees them, by name."""

    def __init__(self, name: str) -> None:
        super().__init__()
        self.name = name
        self.owner = Owner("cluster", "default", is_supervised=False, is_remote=True, is_validated=False)
        self.others: dict[str, RemoteEngine] = {}
        self._announcements = Announcements(self.router, engine_namespace(name))

    def meet(self, name: str, generation: int = 1) -> RemoteEngine:
        other = self.others[name] = RemoteEngine(
            Beat(name, name), self.name, self.router, self.owner, link=Link(generation), clock=lambda: self.now
        )
        return other

    def offer(self) -> None:
        for other in self.others.values():
            other.offer(self._announcements.current())
            for name in self.others:
                self.others[name].retry_conflicts()

    def flush(self) -> None:
        """Let the peers of other engines take what the router has for them."""
        for peer in list(self.router.calls.dirty):
            if isinstance(peer, RemotePeer):
                self.router.calls.dirty.remove(peer)
                peer.flush()


class World:
    """Engines that hear each other. `run` lets them tell of their functions and carries; `cut` engines hear nothing."""

    def __init__(self, *names: str) -> None:
        self.engines = {name: Engine(name) for name in names}
        self.cut: set[str] = set()
        for name, engine in self.engines.items():
            for other in names:
                if other != name:
                    engine.meet(other)

    def __getitem__(self, name: str) -> Engine:
        return self.engines[name]

    def serve(self, engine: str, worker: str, *functions: str, **fields: object) -> Peer:
        """Connect a worker with these functions, and let the other engines know."""
        peer = self[engine].peer(worker)
        self[engine].register(peer, *functions, **fields)
        self.run()
        return peer

    def run(self) -> None:
        for engine in self.engines.values():
            engine.offer()
        self.carry()

    def carry(self) -> None:
        """Carry frames until nothing moves, while no engine tells of its functions."""
        is_moving = True
        while is_moving:
            is_moving = False
            for name, engine in self.engines.items():
                if name in self.cut:
                    continue
                engine.flush()
                for other_name, other in engine.others.items():
                    for _, data in other.link.frames():
                        there = self[other_name].others.get(name)
                        if other_name in self.cut or there is None:
                            continue
                        is_moving = True
                        there.receive(there.link.receive(decode_frame(data)))
