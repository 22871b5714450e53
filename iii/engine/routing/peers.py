"""The peer table: which peers are connected, and what happens when a peer comes, changes or leaves. Pure.

A supervised worker is one `Owner` through all its generations. A new generation registers into `Peer.staged` while
the old one serves; `promote` applies it in one step, `retire` takes the old one out of the routes and lets it
finish. `detach` settles what a dead peer leaves behind: calls that had not started go to another provider or wait;
calls that had started end with `invocation_stopped`, unless the function says `idempotent`.
"""

from __future__ import annotations

import hmac
from collections.abc import Mapping
from typing import Any

from iii.engine.routing import error_bodies
from iii.engine.routing.bindings import Bindings
from iii.engine.routing.calls import Calls
from iii.engine.routing.events import FunctionsChanged, Notice, PeerDrained, PeerExpelled, WorkersChanged
from iii.engine.routing.invocation import Invocation
from iii.engine.routing.peer import Owner, Peer
from iii.engine.routing.registrations import Registrations
from iii.protocol.codec import encode
from iii.protocol.messages import DEFAULT_NAMESPACE, FEATURES, Reattach, WorkerRegistered


class PeerTable:
    """The connected peers by id, and the owners of the supervised workers by name."""

    def __init__(self, bindings: Bindings, calls: Calls, registrations: Registrations) -> None:
        self.peers: dict[str, Peer] = {}
        self.owners: dict[str, Owner] = {}
        self._held_back: list[Peer] = []  # sessions whose registrations wait until no worker starts
        self._bindings = bindings
        self._calls = calls
        self._registrations = registrations

    def owner_of(self, worker: str, namespace: str = DEFAULT_NAMESPACE) -> Owner:
        """Return the owner of a supervised worker's functions; the first call makes it."""
        return self.owners.setdefault(worker, Owner(worker, namespace, is_supervised=True))

    def attach(self, peer: Peer) -> None:
        """A peer connected. A supervised one serves only once it is promoted."""
        self.peers[peer.id] = peer
        self._calls.budget.peers += 1
        if peer.is_serving:
            peer.owner.peers.append(peer)
        if peer.kind == "worker":
            self._calls.events.append(WorkersChanged("worker_connected", peer.id))
        if peer.kind != "engine":
            hello = WorkerRegistered(peer.id, peer.reattach_token, peer.generation, peer.instance, FEATURES)
            self._calls.send(peer, encode(hello))

    def introduce(self, peer: Peer, name: str, namespace: str | None) -> Peer | None:
        """Give the peer the name and namespace that it asks for; its registrations take effect.

        The namespace of a peer that has functions stays. Where another live worker has the name in that namespace,
        return that worker and change nothing; a session that has the name of a peer of the project loses it.
        """
        namespace = peer.namespace if peer.functions else namespace or DEFAULT_NAMESPACE
        if name:
            for holder in list(self.peers.values()):
                is_same = holder.name == name and holder.namespace == namespace
                if is_same and holder is not peer and holder.kind == "worker":
                    if holder.rights is None or peer.rights is not None:
                        return holder
                    self._calls.events.append(PeerExpelled(holder))
                    self._calls.events.append(Notice(name, "took over this name from a session", "taken_over"))
        peer.name = peer.owner.name = name
        self.settle_namespace(peer, namespace)
        return None

    def settle_namespace(self, peer: Peer, namespace: str = DEFAULT_NAMESPACE) -> None:
        """Fix the namespace of an unsupervised peer, and apply what it registered before, in order.

        While workers of the project start, they may register any name: until then, a session gets none.
        """
        peer.namespace = peer.owner.namespace = namespace
        if peer.rights is not None and self._calls.starting:
            if peer not in self._held_back:
                self._held_back.append(peer)
        elif not peer.is_serving and not peer.is_gone and not peer.is_retired:
            peer.is_serving = True
            peer.owner.peers.append(peer)
            self._registrations.apply_staged(peer)

    def adopt(self, peer: Peer, process_peer: Peer) -> None:
        """`peer` is another connection of the process behind `process_peer`: it belongs to that worker from now on."""
        peer.owner = process_peer.owner
        peer.name = process_peer.name
        peer.namespace = process_peer.namespace
        peer.generation = process_peer.generation
        peer.instance = process_peer.instance
        peer.concurrency = process_peer.concurrency

    def reattach(self, peer: Peer, message: Reattach) -> None:
        """`peer` is the new connection of a worker whose previous connection may still be open: end that one."""
        previous = self.peers.get(message.previous_worker_id)
        token = previous.reattach_token if previous else None
        if previous is None or previous is peer or not token:
            return
        if hmac.compare_digest(token.encode(), (message.reattach_token or "").encode()):
            self.detach(previous)
            self._calls.events.append(PeerExpelled(previous))

    def promote(self, peer: Peer) -> None:
        """Let the peer's generation serve: apply what it registered, in order, in one step."""
        owner = peer.owner
        peer.is_serving = True
        owner.peers.append(peer)
        owner.is_expected = False
        owner.has_served = True
        owner.why_unavailable = None
        self._registrations.apply_staged(peer)
        self._end_first_start(owner.name)
        self._calls.dispatch_waiting(owner)
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
            self._calls.events.append(PeerDrained(peer))

    def detach(self, peer: Peer, reason: Mapping[str, Any] | None = None) -> None:
        """The peer is gone. `reason` goes into the errors of its calls (see `error_bodies.invocation_stopped`)."""
        if self.peers.pop(peer.id, None) is None:
            return
        if peer in self._held_back:
            self._held_back.remove(peer)
        self._calls.budget.peers -= 1
        self._registrations.quota.forget(peer)
        was_serving = peer.is_serving
        peer.is_gone = True
        peer.is_serving = False
        peer.outbox.clear()
        if was_serving:
            owner = peer.owner
            if self.owners.get(owner.name) is owner and len(owner.peers) == 1 and owner.why_unavailable is None:
                owner.is_expected = True  # its worker is declared, and not given up: another process follows
            self._registrations.vacate(peer, "its worker left")
        self._settle_calls_of(peer, reason or {})
        if peer.kind == "worker":
            self._calls.events.append(WorkersChanged("worker_disconnected", peer.id))

    def expect(self, worker: str) -> None:
        """The worker starts or restarts: calls to its functions wait."""
        owner = self.owner_of(worker)
        owner.why_unavailable = None
        owner.is_expected = True
        if not owner.has_served:
            self._calls.starting.add(worker)

    def refuse_calls(self, worker: str, details: Mapping[str, Any]) -> None:
        """The worker is down for good: calls to its functions fail with `worker_unavailable` and these details."""
        owner = self.owner_of(worker)
        owner.is_expected = False
        owner.why_unavailable = details
        self._end_first_start(worker)
        if not owner.peers:
            self._registrations.send_all(self._bindings.forget_gone(owner))
            self._registrations.drop_vacancies(owner, f"worker {worker} is not available")
        self._calls.dispatch_waiting(owner)

    def _end_first_start(self, worker: str) -> None:
        """The worker's first start is over: calls to unknown functions wait for it no longer."""
        self._calls.starting.discard(worker)
        self._calls.place_unresolved()
        if not self._calls.starting:
            held_back, self._held_back = self._held_back, []
            for session in held_back:
                self.settle_namespace(session, session.namespace)

    def forget(self, worker: str) -> None:
        """The worker is no longer declared: its functions do not exist any more."""
        owner = self.owners.pop(worker, None)
        if owner is not None:
            owner.is_expected = False
            owner.why_unavailable = None
            self._registrations.drop_vacancies(owner, f"worker {worker} was removed")
            self._registrations.send_all(self._bindings.forget_gone(owner))
            self._calls.dispatch_waiting(owner)  # its last process may have left calls that had not started
            self._end_first_start(worker)

    def _settle_calls_of(self, peer: Peer, reason: Mapping[str, Any]) -> None:
        """End the calls that the peer made, and those it ran, unless they may run again elsewhere."""
        calls = self._calls
        to_requeue: list[Invocation] = []
        for invocation in list(calls.in_flight.values()):
            if invocation.caller is peer:
                invocation.caller = None
                calls.abandon(invocation)
            if invocation.callee is not peer or invocation.is_done:
                continue
            invocation.attempt += invocation.is_started
            may_repeat = invocation.function.is_idempotent and invocation.attempt <= calls.limits.attempts
            if invocation.is_abandoned:
                calls.forget(invocation)
            elif invocation.is_overdue and not invocation.is_started:
                calls.fail(invocation, error_bodies.timeout(invocation))
            elif invocation.line and not invocation.is_overdue and (may_repeat or not invocation.is_started):
                to_requeue.append(invocation)
            else:
                calls.fail(invocation, error_bodies.invocation_stopped(invocation, reason))
        peer.busy = peer.abandoned = 0
        calls.requeue(to_requeue)
