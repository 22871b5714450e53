"""Another engine, as a peer of this engine's router: its functions, the calls to it, and the calls that it makes. Pure.

An engine stands in the router as one peer for each namespace in which it has functions. What the router puts into the
outboxes of these peers goes into the link; what comes out of the link is given to the router as theirs. So a call keeps
its id, its deadline, its parent and its error on both engines, and whatever ends it here ends it there.

The first byte of each message in a link says what it is. A call carries the time that it has left, and its namespace: a
line to a callee has none.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Collection, Iterable, Mapping
from typing import Any

import msgspec

from iii.engine.cluster.announcements import Announced, OfferedFunction, Offers, decode_changes, encode_changes
from iii.engine.cluster.engines import Beat
from iii.engine.cluster.link import Link
from iii.engine.routing import error_bodies
from iii.engine.routing.budget import Account
from iii.engine.routing.events import Notice
from iii.engine.routing.invocation import Invocation
from iii.engine.routing.message_forms import parent_id
from iii.engine.routing.peer import Owner, Peer
from iii.engine.routing.router import Router
from iii.errors import ErrorCode, RemoteProtocolError
from iii.protocol import messages as m
from iii.protocol.codec import decode
from iii.protocol.messages import DEFAULT_NAMESPACE

CALL, MESSAGE, NOT_HERE, CHANGES, LEAVES = (bytes([number]) for number in range(1, 6))
_CALL_HEAD = struct.Struct(">dH")
# A function of each standard worker that keeps data, or acts by itself: on several engines, each has its own.
KEEPERS = {"state::set": "state", "stream::set": "stream", "engine::queue::enqueue": "queue", "cron::list": "cron"}
# The namespace in which an engine is asked for itself: its workers, its functions, its bindings.
ENGINE_NAMESPACE = "engine:"


def engine_namespace(name: str) -> str:
    """Return the namespace of the functions `engine::*` of the engine of this name."""
    return f"{ENGINE_NAMESPACE}{name}"


class RemotePeer(Peer):
    """The functions of another engine in one namespace. `workers` are the names of their workers by function id."""

    def __init__(self, beat: Beat, namespace: str, owner: Owner, send_outbox: Callable[[RemotePeer], None]) -> None:
        super().__init__(
            f"{beat.id} {namespace}",
            kind="client",
            name=f"engine {beat.name}",
            namespace=namespace,
            owner=owner,
            engine=beat.name,
            connected_at_ms=beat.started_at_ms,
            ip_address=beat.host,
            flush=lambda: send_outbox(self),
        )
        self.workers: dict[str, str] = {}

    def worker_of(self, function_id: str) -> str:
        return self.workers.get(function_id, "")


class RemoteEngine:
    """One engine that can be reached. `clock` returns monotonic seconds, `durable` workers share their data."""

    def __init__(
        self,
        beat: Beat,
        own_name: str,
        router: Router,
        owner: Owner,
        *,
        link: Link,
        clock: Callable[[], float],
        durable: Collection[str] = (),
    ) -> None:
        self.beat = beat
        self._durable = durable
        self.link = link
        self.undelivered: int | None = None  # the first frame of which a server said that nobody received it
        self.offers = Offers()
        self.on_outbox: Callable[[], None] = lambda: None  # something waits in the link
        self.has_left = False  # it has said that it stops, and that it has finished its calls
        self.conflicts: dict[tuple[str, str], str] = {}  # functions of it that are not used, with the reasons
        self.separate: dict[str, str] = {}  # standard workers that run here too, with what was told of them
        self._own_namespace = engine_namespace(own_name)
        self._router = router
        self._owner = owner
        self._clock = clock
        self._peers: dict[str, RemotePeer] = {}
        self._offered: dict[tuple[str, str], OfferedFunction] = {}
        self._held = Account()  # of what the link holds
        self._home = self._peer_in(DEFAULT_NAMESPACE)
        self._acts: dict[bytes, Callable[[bytes], None]] = {
            CALL: self._take_call,
            MESSAGE: self._take_message,
            NOT_HERE: self._take_refusal,
            CHANGES: self._take_changes,
            LEAVES: self._leave,
        }

    def __repr__(self) -> str:
        return f"<RemoteEngine {self.beat.name} {len(self._offered)} functions, {self.busy} busy>"

    @property
    def busy(self) -> int:
        """How many calls it runs for this engine."""
        return sum(peer.busy for peer in self._peers.values())

    @property
    def functions(self) -> Iterable[OfferedFunction]:
        return self._offered.values()

    @property
    def reads_nothing(self) -> bool:
        """Whether half of all that this engine may hold waits for the other one. New calls are refused long before."""
        return self._held.held > self._router.calls.budget.total // 2

    def _peer_in(self, namespace: str) -> RemotePeer:
        peer = self._peers.get(namespace)
        if peer is None:
            peer = self._peers[namespace] = RemotePeer(self.beat, namespace, self._owner, self._send_outbox)
            self._router.peer_table.attach(peer)
        return peer

    # To the other engine

    def offer(self, announced: Announced) -> None:
        """Tell the engine what it does not know yet of the functions that it may call here."""
        for changes in self.offers.changes(announced):
            self.link.put("changes", CHANGES + encode_changes(changes))

    def say_leaving(self) -> None:
        """This engine has finished its calls, and ends."""
        self.link.put("changes", LEAVES)

    def _send_outbox(self, peer: RemotePeer) -> None:
        calls = self._router.calls
        for line in peer.take_outbox():
            try:
                message = decode(line)
            except RemoteProtocolError as error:
                calls.refuse(peer, error)
                continue
            kind = type(message)
            if kind is m.InvokeFunction:
                self._send_call(peer, message, line)
            elif kind is m.InvocationResult or kind is m.InvocationItem:
                self.link.put(message.invocation_id, MESSAGE + line)
            elif kind is m.Cancel or kind is m.ItemsTaken:
                invocation = calls.in_flight.get(message.invocation_id)
                self.link.put(message.invocation_id if invocation is None else invocation.origin.id, MESSAGE + line)
        self._note_credit()
        self.on_outbox()

    def _send_call(self, peer: RemotePeer, message: m.InvokeFunction, line: bytes) -> None:
        invocation = self._router.calls.in_flight.get(message.invocation_id or "")
        if invocation is None or invocation.callee is not peer:
            return
        namespace = invocation.function.namespace
        if namespace.startswith(ENGINE_NAMESPACE) and invocation.origin.rights is not None:
            self._hand_back(peer, invocation)
            error = m.ErrorBody(ErrorCode.FORBIDDEN, "a session cannot ask another engine for itself")
            self._router.calls.fail(invocation, error)
            return
        name = namespace.encode()
        head = _CALL_HEAD.pack(invocation.deadline - self._clock(), len(name))
        self.link.put(invocation.origin.id, b"".join((CALL, head, name, line)))

    def _note_credit(self) -> None:
        """Refuse new calls while too much waits: what waits in the link is what the peers have not written."""
        if not self._peers:
            return  # given up: what the link holds goes with it
        unsent = self.link.unsent_bytes
        self._router.calls.budget.set(self._held, self.link.held_bytes)
        for peer in self._peers.values():
            peer.written = peer.enqueued - unsent

    # From the other engine

    def receive(self, messages: list[bytes]) -> None:
        """Act on messages of the link."""
        for message in messages:
            act = self._acts.get(message[:1])
            if act is None:
                self._router.calls.counters["unknown_type"] += 1
            else:
                act(message[1:])
        self._note_credit()

    def _take_call(self, data: bytes) -> None:
        try:
            seconds, size = _CALL_HEAD.unpack_from(data)
            namespace = data[_CALL_HEAD.size : _CALL_HEAD.size + size].decode()
        except (struct.error, UnicodeDecodeError):
            self._router.calls.counters["unknown_type"] += 1
            return
        line = data[_CALL_HEAD.size + size :]
        message = self._decoded(line)
        if not isinstance(message, m.InvokeFunction) or message.invocation_id is None:
            return
        is_own = namespace == self._own_namespace
        namespace = DEFAULT_NAMESPACE if is_own else namespace
        calls, id = self._router.calls, message.invocation_id
        function = self._router.registry.find(namespace, message.function_id)
        origin = self._origin_of(message)
        is_refused = calls.is_stopping and origin is None
        if function is None or function.owner.is_remote or is_refused:
            # It went while the call was on its way; told of it anew, the other engine may call it again.
            self.offers.forget(namespace, message.function_id)
            self.link.put(id, NOT_HERE + id.encode())
            return
        message.deadline_ms = max(seconds, 0.001) * 1000
        message.namespace = None if namespace == DEFAULT_NAMESPACE else namespace
        self._router.receive(origin or self._home, message, line, self._clock())

    def _origin_of(self, message: m.InvokeFunction) -> Peer | None:
        """Return the callee of the call that made this one, if that runs on the other engine for this one."""
        parent = (
            None if message.caller is m.ABSENT else self._router.calls.in_flight.get(parent_id(message.caller) or "")
        )
        callee = None if parent is None else parent.callee
        return callee if callee is not None and self._is_ours(callee) else None

    def _is_ours(self, peer: Peer) -> bool:
        return self._peers.get(peer.namespace) is peer

    def _take_message(self, line: bytes) -> None:
        message = self._decoded(line)
        invocation = self._router.calls.in_flight.get(getattr(message, "invocation_id", None) or "")
        if isinstance(message, m.InvocationResult | m.InvocationItem):
            end = None if invocation is None else invocation.callee
        elif isinstance(message, m.Cancel | m.ItemsTaken):
            end = None if invocation is None else invocation.caller
        else:
            return
        peer = end if end is not None and self._is_ours(end) else self._home
        self._router.receive(peer, message, line, self._clock())

    def _decoded(self, line: bytes) -> Any:
        try:
            return decode(line)
        except RemoteProtocolError as error:
            self._router.calls.refuse(self._home, error)
            return None

    def _take_refusal(self, data: bytes) -> None:
        """The engine has not got the function of this call any more: another one may have."""
        calls = self._router.calls
        invocation = calls.in_flight.get(data.decode(errors="replace"))
        peer = None if invocation is None else invocation.callee
        if invocation is None or not isinstance(peer, RemotePeer) or not self._is_ours(peer):
            return
        if invocation.is_abandoned:
            calls.settle(peer, m.InvocationResult(invocation.id), b"")
            return
        function = invocation.function
        self._offered.pop((function.namespace, function.id), None)
        self._hand_back(peer, invocation)
        self._router.registrations.withdraw(peer, function.id, f"engine {self.beat.name} has it no more")
        calls.place(invocation)

    def _hand_back(self, peer: RemotePeer, invocation: Invocation) -> None:
        """The call is with no callee any more, and has not begun."""
        peer.busy -= 1
        invocation.callee = None

    # What the other engine has

    def _take_changes(self, data: bytes) -> None:
        try:
            changes = decode_changes(data)
        except msgspec.DecodeError as error:
            text = f"engine {self.beat.name} announces what this engine cannot read: {error}"
            self._router.events.append(Notice("", text, ErrorCode.INVALID_MESSAGE))
            return
        for namespace, id in changes.removed:
            self._offered.pop((namespace, id), None)
            self.conflicts.pop((namespace, id), None)
            if (peer := self._peers.get(namespace)) is not None:
                peer.workers.pop(id, None)
                self._router.registrations.receive(peer, m.UnregisterFunction(id))
        for offered in changes.functions:
            self._offered[offered.key] = offered
            self.register(offered)
        self.tell_separate()

    def register(self, offered: OfferedFunction) -> None:
        """Let this engine's callers call a function there, unless another schema of it is in use here."""
        namespace, id = offered.key
        conflict = self._conflict_of(offered)
        if conflict is not None:
            if self.conflicts.get(offered.key) != conflict:
                self._router.events.append(Notice("", conflict, "function_conflict"))
            self.conflicts[offered.key] = conflict
            return
        self.conflicts.pop(offered.key, None)
        peer = self._peer_in(namespace)
        peer.workers[id] = offered.worker
        self._router.registrations.receive(peer, offered.declaration())

    def tell_separate(self) -> None:
        """Tell once of each standard worker that runs here and there, and shares nothing: users expect one of it."""
        for id, worker in KEEPERS.items():
            known = self._router.registry.find(DEFAULT_NAMESPACE, id)
            is_here = known is not None and not known.owner.is_remote
            if worker in self._durable or not is_here or (DEFAULT_NAMESPACE, id) not in self._offered:
                self.separate.pop(worker, None)
            elif worker not in self.separate:
                text = f"{worker} runs on this engine and on {self.beat.name}, each by itself: choose one with `only`"
                self.separate[worker] = text
                self._router.events.append(Notice("", text, "separate_worker"))

    def retry_conflicts(self) -> None:
        """Functions have gone: what was refused because of them may be used now."""
        for key in list(self.conflicts):
            self.register(self._offered[key])

    def _conflict_of(self, offered: OfferedFunction) -> str | None:
        known = self._router.registry.find(*offered.key)
        if known is None or not any(provider.engine != self.beat.name for provider in known.providers):
            return None
        declaration = known.declaration
        mine = (bytes(m.or_null(declaration.request_format)), bytes(m.or_null(declaration.response_format)))
        if mine == (bytes(m.or_null(offered.request_format)), bytes(m.or_null(offered.response_format))):
            return None
        where = next((provider.engine for provider in known.providers if provider.engine), "this engine")
        return (
            f"function_conflict: {known.id} of engine {self.beat.name} has another schema than that of {where}, and is "
            "not called from here; run the same code on both"
        )

    def _leave(self, _: bytes) -> None:
        self.has_left = True

    # The end

    def give_up(self, reason: Mapping[str, Any]) -> None:
        """The engine cannot be reached: settle the calls between the two. `reason` goes into the errors of calls there.

        What was certainly not delivered, and what may be run twice, goes to another engine that has the function.
        """
        calls = self._router.calls
        lost = self.link.messages_from(self.link.sent + 1 if self.undelivered is None else self.undelivered)
        lost_ids = {_id_of_call(message) for message in lost if message[:1] == CALL}
        for invocation in list(calls.in_flight.values()):
            peer = invocation.callee
            if not isinstance(peer, RemotePeer) or not self._is_ours(peer):
                continue
            is_lost = invocation.id in lost_ids
            # In the place of a byte that was written, or was not: whether the callee may have begun is known by now.
            invocation.line_end = peer.enqueued + 1 if is_lost else 0
            peer.written = peer.enqueued
            if invocation.is_abandoned or any(not self._is_ours(other) for other in invocation.function.providers):
                continue
            if is_lost:
                self._hand_back(peer, invocation)
                calls.fail(invocation, not_started(invocation, self.beat.name, reason))
            else:
                peer.busy -= 1
                calls.fail(invocation, error_bodies.invocation_stopped(invocation, reason))
        for peer in list(self._peers.values()):
            self._router.peer_table.detach(peer, reason)
        self._peers.clear()
        calls.budget.set(self._held, 0)


def not_started(invocation: Invocation, engine: str, reason: Mapping[str, Any]) -> m.ErrorBody:
    """The only engine that has the function went before the call got there."""
    message = f"{invocation.function.id} was not started: {reason.get('words', f'engine {engine} is gone')}"
    details = {**reason, "started": False}
    return m.ErrorBody(ErrorCode.WORKER_UNAVAILABLE, message, details=details, retryable=True)


def _id_of_call(data: bytes) -> str | None:
    size = _CALL_HEAD.unpack_from(data, 1)[1]
    message = decode(data[1 + _CALL_HEAD.size + size :])
    return message.invocation_id if isinstance(message, m.InvokeFunction) else None
