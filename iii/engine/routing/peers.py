"""Peers come, change and leave. Pure.

A supervised worker is one `Owner` through all its generations. A new generation registers into `Peer.staged` while
the old one serves; `promote` applies it in one step, `retire` takes the old one out of the routes and lets it
finish, `detach` settles what a dead peer leaves behind: unstarted calls go to another provider or wait, started ones
end with `invocation_stopped` unless the function says `idempotent`.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Any

from iii.engine.routing import error_bodies
from iii.engine.routing.bindings import Bindings
from iii.engine.routing.calls import Calls
from iii.engine.routing.events import FunctionsChanged, PeerDrained, PeerExpelled, WorkersChanged
from iii.engine.routing.invocation import Invocation
from iii.engine.routing.peer import Owner, Peer
from iii.engine.routing.registrations import Registrations
from iii.protocol.codec import encode
from iii.protocol.messages import DEFAULT_NAMESPACE, Reattach, WorkerRegistered


class PeerTable:
    """Who is connected, and the transitions of each."""

    def __init__(self, bindings: Bindings, calls: Calls, registrations: Registrations) -> None:
        self.peers: dict[str, Peer] = {}
        self.owners: dict[str, Owner] = {}  # supervised workers by name
        self._bindings = bindings
        self._calls = calls
        self._registrations = registrations
        calls.on_drained = self._on_drained

    def __repr__(self) -> str:
        return f"<Roster {len(self.peers)} peers, {len(self.owners)} supervised workers>"

    def owner_of(self, worker: str, namespace: str = DEFAULT_NAMESPACE) -> Owner:
        """Return the owner that stands for a supervised worker, made on first use."""
        owner = self.owners.get(worker)
        if owner is None:
            owner = self.owners[worker] = Owner(worker, namespace, supervised=True)
        return owner

    def attach(self, peer: Peer) -> None:
        """A peer connected. A supervised one serves only once it is promoted."""
        self.peers[peer.id] = peer
        if peer.is_serving:
            peer.owner.peers.append(peer)
        if peer.kind == "worker":
            self._calls.events.append(WorkersChanged("worker_connected", peer.id))
        hello = WorkerRegistered(peer.id, peer.reattach_token, peer.generation, peer.instance)
        if peer.kind != "engine":
            self._calls.send(peer, encode(hello))

    def introduce(self, peer: Peer, name: str, namespace: str | None) -> Peer | None:
        """The peer said who it is: it gets its name and its namespace, and its registrations take effect.

        A namespace is fixed by the first function in it. Return the live worker that has the name there already;
        nothing has happened then.
        """
        place = peer.namespace if peer.functions else namespace or DEFAULT_NAMESPACE
        for other in self.peers.values():
            if name and other is not peer and other.kind == "worker" and (other.name, other.namespace) == (name, place):
                return other
        peer.name = peer.owner.name = name
        self.settle(peer, place)
        return None

    def settle(self, peer: Peer, namespace: str = DEFAULT_NAMESPACE) -> None:
        """Fix the namespace of an unsupervised peer, and apply what it registered before, in order."""
        peer.namespace = peer.owner.namespace = namespace
        if not peer.is_serving:
            peer.is_serving = True
            peer.owner.peers.append(peer)
            self._registrations.apply_staged(peer)

    def adopt(self, peer: Peer, seat: Peer) -> None:
        """`peer` is another connection of the process behind `seat`: it is an instance of that worker from now on."""
        peer.owner = seat.owner
        peer.name = seat.name
        peer.namespace = seat.namespace
        peer.generation = seat.generation
        peer.instance = seat.instance
        peer.concurrency = seat.concurrency

    def reattach(self, peer: Peer, message: Reattach) -> None:
        """`peer` is the new connection of one that may not have noticed its end yet: that one leaves, at once."""
        previous = self.peers.get(message.previous_worker_id)
        token = previous.reattach_token if previous else None
        if previous is None or previous is peer or not token:
            return
        if hmac.compare_digest(token.encode(), (message.reattach_token or "").encode()):
            self.detach(previous)
            self._calls.events.append(PeerExpelled(previous))

    def promote(self, peer: Peer) -> None:
        """The peer's generation serves from now on: apply what it registered, in order, in one step."""
        owner = peer.owner
        peer.is_serving = True
        owner.peers.append(peer)
        owner.is_expected = False
        owner.has_served = True
        owner.refusal = None
        self._registrations.apply_staged(peer)
        self.settled(owner.name)
        self._calls.pump(owner)
        self._calls.events.append(FunctionsChanged())

    def retire(self, peer: Peer) -> None:
        """Route nothing new to the peer; `PeerDrained` follows when it has finished what it runs."""
        if peer.is_retired:
            return
        was_serving = peer.is_serving
        peer.is_retired = True
        peer.is_serving = False
        if was_serving:
            self._registrations.vacate(peer, "removed by reload")
        if not peer.owed:
            self._on_drained(peer)

    def detach(self, peer: Peer, reason: Mapping[str, Any] | None = None) -> None:
        """The peer is gone. `reason` tells how, for the errors of the calls it ran (see `refusals.stopped`)."""
        if self.peers.pop(peer.id, None) is None:
            return
        was_serving = peer.is_serving
        peer.is_gone = True
        peer.is_serving = False
        peer.outbox.clear()
        if was_serving:
            if self._will_return(peer.owner):
                peer.owner.is_expected = True
            self._registrations.vacate(peer, "its worker left")
        self._settle_calls_of(peer, reason or {})
        if peer.kind == "worker":
            self._calls.events.append(WorkersChanged("worker_disconnected", peer.id))

    def _will_return(self, owner: Owner) -> bool:
        """Whether an owner whose last serving peer leaves gets another one: it is declared, and not given up."""
        return self.owners.get(owner.name) is owner and len(owner.peers) == 1 and owner.refusal is None

    def expect(self, worker: str) -> None:
        """The worker is (re)starting: calls to its functions wait."""
        owner = self.owner_of(worker)
        owner.refusal = None
        owner.is_expected = True
        if not owner.has_served:
            self._calls.starting.add(worker)

    def refuse_calls(self, worker: str, refusal: Mapping[str, Any]) -> None:
        """The worker is down for good: calls to its functions fail with `worker_unavailable` and these details."""
        owner = self.owner_of(worker)
        owner.is_expected = False
        owner.refusal = refusal
        self.settled(worker)
        if not owner.peers:
            self._registrations.send_all(self._bindings.forget_gone(owner))
        self._calls.pump(owner)

    def settled(self, worker: str) -> None:
        """The worker is not starting for the first time any more: nobody waits for what it might register."""
        if worker in self._calls.starting:
            self._calls.starting.discard(worker)
        self._calls.claim()

    def forget(self, worker: str) -> None:
        """The worker is no longer declared: its functions do not exist any more."""
        owner = self.owners.pop(worker, None)
        if owner is not None:
            owner.is_expected = False
            owner.refusal = None
            self._registrations.drop_vacancies(owner, f"worker {worker} was removed")
            self._registrations.send_all(self._bindings.forget_gone(owner))
            self._calls.pump(owner)  # calls that came back from its last process
            self.settled(worker)

    def _settle_calls_of(self, peer: Peer, reason: Mapping[str, Any]) -> None:
        again: list[Invocation] = []
        for invocation in list(self._calls.in_flight.values()):
            if invocation.caller is peer:
                invocation.caller = None
                self._calls.abandon(invocation)
            if invocation.callee is peer and not invocation.is_done:
                if self._may_run_again(invocation):
                    again.append(invocation)
                else:
                    self._end_stopped(invocation, reason)
        peer.busy = peer.abandoned = 0
        self._calls.requeue(again)

    def _may_run_again(self, invocation: Invocation) -> bool:
        """Started is never silently repeated, unless the function allows it; unstarted goes elsewhere."""
        if invocation.is_abandoned:
            return False
        if not invocation.is_started:
            return True
        invocation.attempt += 1
        return invocation.function.is_idempotent and invocation.attempt <= self._calls.limits.attempts

    def _end_stopped(self, invocation: Invocation, reason: Mapping[str, Any]) -> None:
        if invocation.is_abandoned:
            self._calls.in_flight.pop(invocation.id, None)
            invocation.is_done = True
        else:
            self._calls.fail(invocation, error_bodies.stopped(invocation, reason))

    def _on_drained(self, peer: Peer) -> None:
        self._calls.events.append(PeerDrained(peer))
