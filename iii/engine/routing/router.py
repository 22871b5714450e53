"""The router: what every message does. Pure: no I/O, no clock.

Theory of operation. A message of a peer goes in through `receive`; lines for others come out in their outboxes
(`calls.dirty`), and rare occurrences that the engine must act on in `events`. The tables are the registry
(functions, actions), the bindings (trigger types, triggers), the calls (in flight) and the roster (peers); this
module joins them and knows the forms a call may have.
"""

from __future__ import annotations

from collections.abc import Callable
from types import MethodType
from typing import Any

from iii.engine.routing import error_bodies
from iii.engine.routing.bindings import Bindings
from iii.engine.routing.calls import Calls
from iii.engine.routing.events import Event, Notice, PeerReady
from iii.engine.routing.invocation import Invocation, Limits
from iii.engine.routing.local_peer import refuse
from iii.engine.routing.message_forms import handed_on
from iii.engine.routing.peer import Peer
from iii.engine.routing.peers import PeerTable
from iii.engine.routing.registrations import CompileSchema, Registrations
from iii.engine.routing.registry import Function, Registry, Validator
from iii.engine.routing.span_recorder import VOID, Tracer, error_from
from iii.engine.routing.traced_calls import trace
from iii.engine.tracing.trace_context import baggage_for
from iii.errors import ProtocolError
from iii.ids import mint_id
from iii.protocol import messages as m
from iii.protocol.codec import decode, decode_value, decode_vouched, encode, encode_error
from iii.protocol.messages import ABSENT, DEFAULT_NAMESPACE, InvocationResult, InvokeFunction


def _accept_any(_: m.RegisterFunction) -> Validator | None:
    return None


class Router:
    """The journey of every message through the tables."""

    def __init__(
        self,
        *,
        timeout: float = 30.0,
        limits: Limits | None = None,
        mint_id: Callable[[], str] = mint_id,
        compile_schema: CompileSchema = _accept_any,
    ) -> None:
        self.registry = Registry()
        self._default = self.registry.default
        self.bindings = Bindings()
        self.calls = Calls(self.registry, timeout=timeout, limits=limits or Limits(), mint_id=mint_id)
        self.tracer: Tracer | None = None
        self.void_calls = self.enqueue_calls = 0  # that ever came
        self._admit = self.calls.admit
        self._settle = self.calls.settle
        self.registrations = Registrations(self.registry, self.bindings, self.calls, compile_schema)
        self.peer_table = PeerTable(self.bindings, self.calls, self.registrations)
        self.events: list[Event] = self.calls.events
        self._handlers: dict[type, Callable[[Peer, Any], None]] = {
            **dict.fromkeys(self.registrations.handlers, self.registrations.receive),
            m.TriggerRegistrationResult: self._trigger_answered,
            m.Ready: self._ready,
            m.Cancel: self.calls.cancel,
            m.InvocationItem: self._pass_item,
            m.ItemsTaken: self._pass_taken,
            m.Ping: self._ping,
            m.Telemetry: self._take_spans,
            m.Reattach: self.peer_table.reattach,
        }

    def __repr__(self) -> str:
        peers, functions = len(self.peer_table.peers), sum(1 for _ in self.registry)
        return f"<Router {peers} peers, {functions} functions, {len(self.calls.in_flight)} in flight>"

    def trace(self, tracer: Tracer | None) -> None:
        """Record calls with a tracer from now on, or none."""
        self.tracer = tracer
        trace(self.calls, tracer)
        self.choose_path()

    def choose_path(self) -> None:
        """Give calls to the plain table as long as none of them can concern the tracer."""
        calls, tracer = self.calls, self.tracer
        is_open = tracer is not None and not tracer.shut_until
        is_recording = is_open or (tracer is not None and bool(tracer.spans))
        self._admit = calls.admit if is_open else MethodType(Calls.admit, calls)
        self._settle = calls.settle if is_recording else MethodType(Calls.settle, calls)

    def receive(self, peer: Peer, message: Any, line: bytes, now: float) -> None:
        """Act on one message of `peer`. `line` is what it was decoded from, `now` monotonic seconds."""
        kind = message.__class__
        if kind is InvocationResult:
            self._settle(peer, message, line)
        elif kind is InvokeFunction:
            if (
                message.namespace is None
                and message.action is ABSENT
                and message.invocation_id is not None
                and message.traceparent is None
                and message.baggage is None
            ):
                self._admit(peer, message, self._default.get(message.function_id), line, now)
            else:
                self._invoke_in_full(peer, message, now)
        else:
            handler = self._handlers.get(kind)
            if handler is not None:
                handler(peer, message)

    def refuse(self, peer: Peer, error: ProtocolError) -> None:
        """A line of `peer` could not be decoded: answer it where its id shows, note it otherwise."""
        refuse(self.calls, peer, error)

    def _invoke_in_full(self, peer: Peer, message: m.InvokeFunction, now: float) -> None:
        """The rarer forms of a call: a namespace, an action, no id. The callee's line is written anew."""
        is_void = message.invocation_id is None
        if message.invocation_id is None:
            message.invocation_id = self.calls.mint_id()
        action = None if m.is_empty(message.action) else _action_of(message)
        if message.namespace is not None and not message.namespace.strip():
            self._answer(peer, message, error_bodies.blank_namespace("namespace"), is_void)
        elif isinstance(action, m.ErrorBody):
            self._answer(peer, message, action, is_void)
        else:
            function = self.registry.find(message.namespace or DEFAULT_NAMESPACE, message.function_id)
            self._count(action, is_void=is_void)
            if self.tracer is not None:
                self._trace(self.tracer, peer, message, function, action or (VOID if is_void else None), now)
            if action is not None and action.type != "void":
                self._invoke_action(peer, message, action, is_void=is_void, now=now)
            else:
                self._hand_over(peer, message, function, is_void=is_void or action is not None, now=now)

    def _count(self, action: m.ActionField | None, *, is_void: bool) -> None:
        if is_void or (action is not None and action.type == "void"):
            self.void_calls += 1
        elif action is not None and action.type == "enqueue":
            self.enqueue_calls += 1

    def _trace(
        self,
        tracer: Tracer,
        peer: Peer,
        message: m.InvokeFunction,
        function: Function | None,
        action: m.ActionField | None,
        now: float,
    ) -> None:
        if peer.kind != "engine" and message.invocation_id not in self.calls.in_flight:
            tracer.begin(peer, message, function, now, action)

    def _hand_over(
        self, peer: Peer, message: m.InvokeFunction, function: Function | None, *, is_void: bool, now: float
    ) -> Invocation | None:
        line = encode(_callee_form(message))
        if not is_void:
            return self.calls.admit_in_full(peer, message, function, line, now)
        return self.calls.start(self.calls.open(peer, message, function, line, now), message)

    def _invoke_action(
        self, peer: Peer, message: m.InvokeFunction, action: m.ActionField, *, is_void: bool, now: float
    ) -> None:
        """Hand the call to the function that carries out its action."""
        provided = self.registry.actions.get(action.type)
        receipt = self.calls.mint_id()
        if provided is not None:
            payload = _action_payload(message, receipt) | {
                "action": message.action,
                "metadata": m.or_null(message.metadata),
            }
            target, namespace = provided.declaration.function_id, provided.peer.namespace
        elif action.type == "enqueue":
            # What the caller wants of the queue goes along; a plain enqueue stays what every provider knows.
            payload = _action_payload(message, receipt) | _options_of(message)
            target, namespace = "engine::queue::enqueue", DEFAULT_NAMESPACE
            if self.registry.find(namespace, target) is None and not m.is_empty(message.metadata):
                # It waits for a queue worker that starts: ours, which would have had the metadata from its action.
                payload["metadata"] = message.metadata
        else:
            self._answer(peer, message, error_bodies.unknown_action(action.type, self.registry.actions), is_void)
            return
        function = self.registry.find(namespace, target)
        if function is None and provided is None and not self.calls.starting:
            self._answer(peer, message, error_bodies.no_queue(), is_void)
            return
        invocation = self._hand_over(peer, handed_on(message, target, payload), function, is_void=is_void, now=now)
        if invocation is not None and not _knows_receipt(provided, payload):
            invocation.receipt = receipt

    def _answer(self, peer: Peer, message: m.InvokeFunction, error: m.ErrorBody, is_void: bool) -> None:
        if self.tracer is not None and message.invocation_id not in self.calls.in_flight:
            self.tracer.end(message.invocation_id or "", None, error_from(error))
        if is_void:
            text = f"call to {message.function_id} that nobody waits for was dropped: {error.message}"
            self.calls.counters["void_dropped"] += 1
            self.events.append(Notice(peer.name, text, "void_dropped"))
            return
        result = m.InvocationResult(message.invocation_id or "", message.function_id, error=encode_error(error))
        self.calls.send(peer, encode(result))

    def _pass_item(self, peer: Peer, message: m.InvocationItem) -> None:
        """Give an item to the caller; one that does not read them loses the call, not our memory."""
        invocation = self.calls.in_flight.get(message.invocation_id)
        if invocation is None or invocation.callee is not peer or invocation.caller is None:
            self.calls.counters["unawaited_item"] += 1
        elif invocation.caller.backlog > self.calls.limits.backlog:
            self.calls.tell(invocation, error_bodies.overloaded(f"{invocation.caller.name} does not read the items"))
            self.calls.abandon(invocation)
        else:
            self.calls.send(invocation.caller, encode(message))

    def _pass_taken(self, peer: Peer, message: m.ItemsTaken) -> None:
        """Tell the callee how many of its items the caller has taken."""
        invocation = self.calls.in_flight.get(message.invocation_id)
        if invocation is not None and invocation.caller is peer and invocation.callee is not None:
            self.calls.send(invocation.callee, encode(message))

    def _take_spans(self, peer: Peer, message: m.Telemetry) -> None:
        if self.tracer is not None:
            self.tracer.take_foreign(peer, message.spans)

    def _ping(self, peer: Peer, _: m.Ping) -> None:
        self.calls.send(peer, encode(m.Pong()))

    def _trigger_answered(self, peer: Peer, message: m.TriggerRegistrationResult) -> None:
        self.registrations.send_all(self.bindings.answered(peer, message))

    def _ready(self, peer: Peer, message: m.Ready) -> None:
        peer.lingers = message.lingers
        peer.decode = decode_vouched if message.vouches and peer.may_vouch else decode
        self.events.append(PeerReady(peer, message.files))


def _action_of(message: m.InvokeFunction) -> m.ActionField | m.ErrorBody:
    try:
        return decode_value(message.action, type=m.ActionField)
    except ValueError as error:
        return error_bodies.invalid_message(f"action: {error}")


def _baggage_of(message: m.InvokeFunction) -> str | None:
    """The function that is called, for a call that has a trace at all (public contract)."""
    has_trace = message.traceparent is not None or message.baggage is not None
    return baggage_for(message.function_id, message.baggage) if has_trace else None


def _callee_form(message: m.InvokeFunction) -> m.InvokeFunction:
    """What the callee gets: always an id and data, never a namespace or an action."""
    return m.InvokeFunction(
        function_id=message.function_id,
        invocation_id=message.invocation_id,
        data=m.or_null(message.data),
        metadata=message.metadata,
        traceparent=message.traceparent,
        baggage=_baggage_of(message),
        caller=message.caller,
        deadline_ms=message.deadline_ms,
        stream=message.stream,
        window=message.window,
    )


def _knows_receipt(provided: object, payload: dict[str, Any]) -> bool:
    """Whether the provider's answer counts: our queue's always does, and only it knows the job of a repeated key."""
    return provided is not None or "key" in payload


def _options_of(message: m.InvokeFunction) -> dict[str, Any]:
    options: dict[str, Any] = {"queue": None, **decode_value(message.action)}
    del options["type"]
    return options


def _action_payload(message: m.InvokeFunction, receipt: str) -> dict[str, Any]:
    payload: dict[str, Any] = {
        "function_id": message.function_id,
        "data": m.or_null(message.data),
        "messageReceiptId": receipt,
        "traceparent": message.traceparent,
        "baggage": _baggage_of(message),
    }
    if message.namespace not in (None, DEFAULT_NAMESPACE):
        payload["namespace"] = message.namespace
    return payload
