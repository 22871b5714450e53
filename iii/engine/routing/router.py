"""The router: what every message does. Pure: no I/O, no clock.

Theory of operation. A message of a peer goes in through `receive`; lines for other peers come out in their outboxes
(`calls.dirty`), and rare occurrences that the engine must act on in `events`. The tables are the registry (functions,
actions), the bindings (trigger types, triggers), the calls (in flight) and the peer table; the router joins them.

A plain call goes straight to `Calls.admit`, and its result to `Calls.settle`. The router holds these two as attributes:
while calls are traced they are `admit_traced` and `settle_traced`, so that untraced calls never ask whether they are
recorded.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Protocol

from msgspec import Raw

from iii.engine.routing import error_bodies
from iii.engine.routing.bindings import Bindings
from iii.engine.routing.budget import Budget
from iii.engine.routing.calls import Calls
from iii.engine.routing.causes import ACTION
from iii.engine.routing.events import Event, PeerReady
from iii.engine.routing.invocation import Limits
from iii.engine.routing.message_forms import CALL_FIELDS, action_payload, callee_line, redirected
from iii.engine.routing.peer import Owner, Peer
from iii.engine.routing.peers import PeerTable
from iii.engine.routing.registrations import CompileSchema, Registrations
from iii.engine.routing.registry import NO_OWNER, Function, Registry, Validator
from iii.engine.routing.tracer import VOID, Tracer, error_from
from iii.engine.tracing.trace_context import is_unsampled
from iii.ids import mint_id
from iii.protocol import messages as m
from iii.protocol.codec import decode, decode_trusted, decode_value, encode, encode_error
from iii.protocol.messages import ABSENT, DEFAULT_NAMESPACE, InvocationResult, InvokeFunction

# How a line with spans of a worker begins, as our SDK writes it.
SPANS = b'{"type":"telemetry"'

Admit = Callable[[Peer, InvokeFunction, "Function | None", bytes, float], None]
Settle = Callable[[Peer, InvocationResult, bytes], None]


class CallObserver(Protocol):
    """Who shows calls to observers, and puts what only it knows into the calls of workers that observe."""

    sees_calls: bool

    def paths(self, admit: Admit, settle: Settle) -> tuple[Admit, Settle]:
        """Return the ways that calls and results take while there is anything to see: through these two at last."""

    def takes(self, peer: Peer, message: InvokeFunction, function: Function | None, now: float) -> bool:
        """Whether it takes this call itself. Otherwise it may have changed the message."""

    def owner_of(self, observer_id: str) -> Owner | None:
        """Return whose observer that is; None if there is none, or its worker is away."""

    @property
    def tracing_changed(self) -> Callable[[], None]: ...


class Router:
    """Takes every message to the table that acts on it."""

    def __init__(
        self,
        *,
        timeout: float = 30.0,
        limits: Limits | None = None,
        budget: Budget | None = None,
        mint_id: Callable[[], str] = mint_id,
        compile_schema: CompileSchema = lambda _: None,
        compile_result_schema: CompileSchema = lambda _: None,
    ) -> None:
        self.registry = Registry()
        self._default_functions = self.registry.default
        self.bindings = Bindings()
        self.calls = Calls(
            self.registry, timeout=timeout, limits=limits or Limits(), mint_id=mint_id, budget=budget or Budget()
        )
        self._compile_result_schema = compile_result_schema
        self._checks_results = False  # until a function says what it returns
        self.engine_name: str | None = None  # in a cluster
        self.void_calls = self.enqueue_calls = 0  # received since the start
        self.registrations = Registrations(
            self.registry, self.bindings, self.calls, compile_schema, self._compile_response_format
        )
        self.peer_table = PeerTable(self.bindings, self.calls, self.registrations)
        self.observing: CallObserver | None = None
        self.choose_path()
        self.events: list[Event] = self.calls.events
        self._handlers: dict[type, Callable[[Peer, Any], None]] = {
            **dict.fromkeys(self.registrations.handlers, self.registrations.receive),
            m.TriggerRegistrationResult: lambda peer, message: self.registrations.send_all(
                self.bindings.answered(peer, message)
            ),
            m.Ready: self._ready,
            m.Cancel: self.calls.cancel,
            m.InvocationItem: self._forward_item,
            m.ItemsTaken: self._forward_items_taken,
            m.Ping: lambda peer, _: self.calls.send(peer, encode(m.Pong())),
            m.Telemetry: self._take_spans,
            m.Reattach: self.peer_table.reattach,
        }

    def __repr__(self) -> str:
        peers, functions = len(self.peer_table.peers), sum(1 for _ in self.registry)
        return f"<Router {peers} peers, {functions} functions, {len(self.calls.in_flight)} in flight>"

    def trace(self, tracer: Tracer | None) -> None:
        """Record calls with this tracer from now on; None: record none."""
        self.calls.tracer = tracer
        self.choose_path()
        if self.observing is not None:
            self.observing.tracing_changed()

    def observe(self, observing: CallObserver, handlers: Mapping[type, Callable[[Peer, Any], None]]) -> None:
        """Show calls to this observer from now on, and give it the messages that are its own."""
        self.observing = observing
        self._handlers.update(handlers)
        self.choose_path()

    def choose_path(self) -> None:
        """Show calls and results to the tracer, and to observers, while any of them can concern it."""
        calls, tracer = self.calls, self.calls.tracer
        may_begin = tracer is not None and not tracer.paused_until
        may_end = may_begin or (tracer is not None and bool(tracer.spans))
        self._admit: Admit = calls.admit_traced if may_begin else calls.admit
        if self._checks_results:
            self._settle: Settle = calls.settle_checked
        else:
            self._settle = calls.settle_traced if may_end else calls.settle
        self._takes: Callable[[Peer, InvokeFunction, Function | None, float], bool] = lambda *_: False
        if self.observing is not None and self.observing.sees_calls:
            self._takes = self.observing.takes
            self._admit, self._settle = self.observing.paths(self._admit, self._settle)

    def _compile_response_format(self, declaration: m.RegisterFunction) -> Validator | None:
        validator = self._compile_result_schema(declaration)
        if validator is not None and not self._checks_results:
            self._checks_results = True
            self.choose_path()
        return validator

    def receive(self, peer: Peer, message: Any, line: bytes, now: float) -> None:
        """Act on one message of `peer`, decoded from `line`. `now` is monotonic seconds."""
        message_type = message.__class__
        if message_type is InvocationResult:
            self._settle(peer, message, line)
        elif message_type is InvokeFunction:
            if (
                message.namespace is None
                and message.action is ABSENT
                and message.invocation_id is not None
                and message.traceparent is None
                and message.baggage is None
            ):
                self._admit(peer, message, self._default_functions.get(message.function_id), line, now)
            else:
                self._invoke_in_full(peer, message, now)
        else:
            handler = self._handlers.get(message_type)
            if handler is not None:
                handler(peer, message)

    def _invoke_in_full(self, peer: Peer, message: m.InvokeFunction, now: float) -> None:
        """Take the rarer forms of a call: with a namespace, an action or a trace, or without an id.

        The line for the callee is written anew.
        """
        is_void = message.invocation_id is None
        if message.invocation_id is None:
            message.invocation_id = self.calls.mint_id()
        if message.namespace is not None and not message.namespace.strip():
            self._answer(peer, message, error_bodies.invalid_namespace("namespace"), is_void=is_void)
            return
        try:
            action = None if m.is_empty(message.action) else decode_value(message.action, type=m.ActionField)
        except ValueError as error:
            self._answer(peer, message, error_bodies.invalid_message(f"action: {error}"), is_void=is_void)
            return
        function = self.registry.find(message.namespace or DEFAULT_NAMESPACE, message.function_id)
        action_type = None if action is None else action.type
        self._count(peer, message, action_type, is_void=is_void)
        tracer = self.calls.tracer
        if tracer is not None and peer.kind != "engine" and message.invocation_id not in self.calls.in_flight:
            tracer.begin(peer, message, function, now, action or (VOID if is_void else None))
        if action is None or action_type == "void":
            if self._takes(peer, message, function, now):
                return
            is_void = is_void or action is not None
            self.calls.admit_in_full(peer, message, function, callee_line(message), now, is_void=is_void)
        elif (mismatch := _mismatch_of_action(function, message)) is not None:
            self._answer(peer, message, mismatch, is_void=is_void)
        else:
            self._invoke_action(peer, message, action, is_void=is_void, now=now)

    def _count(self, peer: Peer, message: m.InvokeFunction, action_type: str | None, *, is_void: bool) -> None:
        """Count a call without an answer, unless its peer only shows what it gets."""
        is_lone = peer.is_local and not peer.functions and message.caller is ABSENT
        if is_lone and is_unsampled(message.traceparent):
            # How the command line asks what is shown to a person: that is no work of the project.
            peer.owner.is_observer = True
        if peer.owner.is_observer:
            pass
        elif is_void or action_type == "void":
            self.void_calls += 1
        elif action_type == "enqueue":
            self.enqueue_calls += 1

    def _invoke_action(
        self, peer: Peer, message: m.InvokeFunction, action: m.ActionField, *, is_void: bool, now: float
    ) -> None:
        """Call the function that carries out the action of this call."""
        provided = self.registry.actions.get(action.type)
        receipt = self.calls.mint_id()
        causes = self.calls.causes_before(peer, message)
        if causes is not None:
            causes = causes.then(self.calls.causes.engine, 0, f"{ACTION}{action.type}", receipt)
        payload = action_payload(message, receipt, causes)
        if provided is not None:
            payload |= {"action": message.action, "metadata": m.or_null(message.metadata)}
            target, namespace = provided.declaration.function_id, provided.peer.namespace
        elif action.type == "enqueue":
            # The caller's options for the queue go along; without any, the payload is what every provider knows.
            # They have no say about what is called, nor where and with what.
            options: dict[str, Any] = {"queue": None, **decode_value(message.action)}
            options = {name: value for name, value in options.items() if name not in CALL_FIELDS}
            payload |= options
            target, namespace = "engine::queue::enqueue", DEFAULT_NAMESPACE
            if self.registry.find(namespace, target) is None and not m.is_empty(message.metadata):
                # The call waits for a queue worker that starts: ours, whose action would have had the metadata.
                payload["metadata"] = message.metadata
        else:
            error = error_bodies.action_not_found(action.type, self.registry.actions)
            self._answer(peer, message, error, is_void=is_void)
            return
        function = self.registry.find(namespace, target)
        if function is None and provided is None and not self.calls.starting:
            self._answer(peer, message, error_bodies.no_queue(), is_void=is_void)
            return
        call = redirected(message, target, payload)
        invocation = self.calls.admit_in_full(peer, call, function, callee_line(call), now, is_void=is_void)
        # An action's provider answers for itself, and so does our queue where jobs have keys: only the queue knows
        # the job of a repeated key. Every other enqueued call is answered with this receipt.
        if invocation is not None and provided is None and "key" not in payload:
            invocation.receipt = receipt

    def _answer(self, peer: Peer, message: m.InvokeFunction, error: m.ErrorBody, *, is_void: bool) -> None:
        """Answer a call that does not come into the table."""
        if self.calls.tracer is not None and message.invocation_id not in self.calls.in_flight:
            self.calls.tracer.end(message.invocation_id or "", None, error_from(error))
        if is_void:
            function = Function(message.function_id, message.namespace or DEFAULT_NAMESPACE, NO_OWNER)
            self.calls.counters["void_dropped"] += 1
            self.calls.note_failed(peer, function, encode(message), error)
        else:
            result = m.InvocationResult(message.invocation_id or "", message.function_id, error=encode_error(error))
            self.calls.send(peer, encode(result))

    def _forward_item(self, peer: Peer, message: m.InvocationItem) -> None:
        """Give the caller an item of a streamed result. The call of a caller that does not read its items ends."""
        invocation = self.calls.in_flight.get(message.invocation_id)
        if invocation is None or invocation.callee is not peer or invocation.caller is None:
            self.calls.counters["unawaited_item"] += 1
        elif invocation.caller.unsent_bytes > self.calls.limits.unsent_bytes:
            self.calls.tell(invocation, error_bodies.overloaded(f"{invocation.caller.name} does not read the items"))
            self.calls.abandon(invocation, is_told=True)
        else:
            self.calls.send(invocation.caller, encode(message))

    def _forward_items_taken(self, peer: Peer, message: m.ItemsTaken) -> None:
        """Tell the callee how many of its items the caller has taken."""
        invocation = self.calls.in_flight.get(message.invocation_id)
        if invocation is not None and invocation.caller is peer and invocation.callee is not None:
            self.calls.send(invocation.callee, encode(message))

    def drops_unread(self, line: bytes) -> bool:
        """Whether a line holds spans of a worker for which there is no room: they are counted, it is not read."""
        if not line.startswith(SPANS):
            return False
        tracer = self.calls.tracer
        if tracer is None:
            return True
        if tracer.worker_spans.has_room(len(line)):
            return False
        tracer.drop_worker_spans(line)
        return True

    def _take_spans(self, peer: Peer, message: m.Telemetry) -> None:
        if self.calls.tracer is not None:
            self.calls.tracer.worker_spans.dropped += max(0, message.dropped)
            self.calls.tracer.take_worker_spans(peer, message.spans)

    def _ready(self, peer: Peer, message: m.Ready) -> None:
        if not message.failed:
            peer.drains_clients = message.lingers
            peer.decode = decode_trusted if message.vouches and peer.may_be_trusted else decode
        files = (*message.files, *message.missing)
        digests = {**dict.fromkeys(message.missing), **message.digests}
        self.events.append(PeerReady(peer, files, digests, message.failed))


def _mismatch_of_action(function: Function | None, message: m.InvokeFunction) -> m.ErrorBody | None:
    """Return why the function of a call with an action would refuse the payload later: nobody waits for it then.

    A queue may put the payloads of several jobs into one list, so a function of lists takes each of its items.
    """
    validator = None if function is None else function.validator
    mismatch = None if validator is None else validator(message.data)
    if function is None or validator is None or mismatch is None:
        return None
    items = Raw(b"[%s]" % (b"null" if message.data is ABSENT else bytes(message.data)))
    return None if validator(items) is None else error_bodies.invalid_payload(function, mismatch)
