"""The in-flight table: the journey of a call from its arrival to its one outcome. Pure: no I/O, no clock.

Every peer has an outbox. `send` appends a line to it and notes the peer in `dirty`; the message pump writes the
outboxes once per turn. A call is one `Invocation`, keyed by the id that its caller minted. The callee gets the caller's
own line, byte for byte, and its result goes back the same way. Only the callee that the table names can end a call. A
call that no peer can take now (worker starting, reloading, backing off, or at its concurrency) waits in its owner's
queue, in order, within its deadline.

`admit` and `settle` are the hot path and know no tracer: `admit_traced` and `settle_traced` replace them while calls
are recorded. Which peers are connected, and which functions they have, is decided elsewhere.
"""

from __future__ import annotations

from collections import Counter, deque
from collections.abc import Callable, Iterator
from functools import lru_cache
from operator import attrgetter
from typing import Any

from msgspec import Raw

from iii.engine.routing import error_bodies
from iii.engine.routing.budget import CALL_OVERHEAD, SHORT_LINE, Budget
from iii.engine.routing.call_causes import CallCauses
from iii.engine.routing.causes import Causes
from iii.engine.routing.events import CallFailed, Event, Notice, PeerDrained
from iii.engine.routing.invocation import Deadlines, Invocation, Limits
from iii.engine.routing.message_forms import checked_result, is_cancelled, job_in, parent_id, result_for_caller
from iii.engine.routing.peer import Owner, Peer
from iii.engine.routing.registry import NO_OWNER, Function, Registry
from iii.engine.routing.tracer import Tracer, error_from, error_in
from iii.engine.tracing.trace_context import baggage_for
from iii.errors import ErrorCode, ProtocolError, RemoteProtocolError
from iii.protocol.codec import decode, encode, encode_error
from iii.protocol.messages import ABSENT, DEFAULT_NAMESPACE, Cancel, ErrorBody, InvocationResult, InvokeFunction

# Seconds between two looks for lines that no callee needs again, for each call under way: a tenth of the time at most.
SWEEP_INTERVAL = 1e-6
# Bytes that may lie unread in a worker's pipe: they come back if its process dies (`Connection.take_back_unread`).
MAX_UNREAD = 1024 * 1024
# Cached: a traced call mostly comes without baggage, and to one of the same few functions.
_own_baggage = lru_cache(4096)(lambda function_id: baggage_for(function_id, None))


class Calls:
    """All calls under way, and the outboxes they pass through."""

    def __init__(
        self, registry: Registry, *, timeout: float, limits: Limits, mint_id: Callable[[], str], budget: Budget
    ) -> None:
        self.registry = registry
        self.budget = budget
        self.timeout = timeout
        self.limits = limits
        self.mint_id = mint_id
        self.in_flight: dict[str, Invocation] = {}
        self.budget.calls = self.in_flight
        self.deadlines = Deadlines()
        self._watch = self.deadlines.add
        self._max_unsent_bytes = limits.unsent_bytes
        self.dirty: list[Peer] = []
        self.events: list[Event] = []
        self.counters: Counter[str] = Counter()
        self.starting: set[str] = set()  # supervised workers that may still register anything
        self.unresolved: deque[Invocation] = deque()  # calls to unknown functions while workers start
        self.is_stopping = False
        self._swept_at = 0.0
        self.causes = CallCauses()
        self.tracer: Tracer | None = None  # while calls are recorded
        self.on_ended: Callable[[Invocation, ErrorBody], None] = lambda *_: None  # of an observed one, without a result
        self.follow_budget()

    def stop_admitting(self) -> None:
        """Refuse new calls from now on, except those that running ones make."""
        self.is_stopping = True
        self.follow_budget()

    def follow_budget(self) -> None:
        """Send every call through `admit_in_full` while it may have to be refused."""
        budget = self.budget
        self._share = budget.share
        is_open = not self.is_stopping and budget.used <= budget.total
        # The calls of one peer that are admitted without a closer look.
        self._calls_per_peer = min(self.limits.calls_per_peer, budget.share // CALL_OVERHEAD) if is_open else 0

    # A call arrives

    def admit(self, origin: Peer, message: InvokeFunction, function: Function | None, line: bytes, now: float) -> None:
        """Take a call whose caller waits for the outcome, and place it. The hot path: everything inline.

        `line` is what the callee gets. `now` is monotonic seconds. Only a first-level call with the default deadline,
        to a function that one peer runs without limits, is placed here; `admit_in_full` takes all others.
        """
        invocation_id: str = message.invocation_id  # type: ignore[assignment]  # calls without an id do not come here
        if (
            function is None
            or (callee := function.direct_callee) is None
            or message.caller is not ABSENT
            or message.deadline_ms is not None
            or invocation_id in self.in_flight
            or origin.outgoing >= self._calls_per_peer
            or callee.enqueued - callee.written > self._max_unsent_bytes
            or origin.held > self._share
        ):
            self.admit_in_full(origin, message, function, line, now)
            return
        timeout = self.timeout
        size = len(line)
        held = 0 if size <= SHORT_LINE else size
        invocation = Invocation(invocation_id, function, line, origin, now + timeout, timeout, origin, callee, held)
        self.in_flight[invocation_id] = invocation
        self._watch(invocation)
        origin.outgoing += 1
        callee.busy += 1
        outbox = callee.outbox
        if not outbox:
            self.dirty.append(callee)
        outbox.append(line)
        callee.enqueued = invocation.line_end = callee.enqueued + size + 1
        if held:
            self.budget.hold(origin, held)

    def admit_in_full(
        self,
        origin: Peer,
        message: InvokeFunction,
        function: Function | None,
        line: bytes,
        now: float,
        *,
        is_void: bool = False,
    ) -> Invocation | None:
        """Take any call, and place it; None when it was refused. No caller waits for the outcome of a void call."""
        timeout = self.timeout if message.deadline_ms is None else message.deadline_ms / 1000
        is_nested = message.caller is not ABSENT
        if (
            is_nested
            and not is_void
            and message.traceparent is None
            and self.tracer is not None
            and self.tracer.spans
            and message.invocation_id not in self.in_flight
            and self.tracer.begin(origin, message, function, now)
        ):
            line = encode(message)  # the call of a recorded call has a span, though its message brought no trace
        if function is None:
            function = Function(message.function_id, message.namespace or DEFAULT_NAMESPACE, NO_OWNER)
        id: str = message.invocation_id  # type: ignore[assignment]  # void calls were given one
        invocation = Invocation(id, function, line, origin, now + timeout, timeout)
        invocation.awaits_end = bool(message.awaits_end)
        parent = self._parent_of(origin, message)
        if parent is not None:
            # A call made by a running one is deeper by one, and never has a later deadline.
            invocation.parent = parent
            invocation.depth = parent.depth + 1
            invocation.deadline = min(invocation.deadline, parent.deadline)
        before = self.causes.before(parent, message)
        if before is not None:
            self.causes.go_on(invocation, before, message)
        if not is_void:
            invocation.caller = origin
            origin.outgoing += 1
        error = self._reason_to_refuse(invocation, message, now)
        if error is not None:
            self.tell(invocation, error)
            return None
        if before is not None and parent is None and self._is_loop(invocation, before, now):
            return None
        self.in_flight[invocation.id] = invocation
        self._hold(invocation)
        self.causes.remember(invocation)
        self._watch(invocation)
        self.place(invocation)
        return invocation

    def _reason_to_refuse(self, invocation: Invocation, message: InvokeFunction, now: float) -> ErrorBody | None:
        origin, limits = invocation.origin, self.limits
        if invocation.id in self.in_flight:
            return error_bodies.invalid_message(f"invocation_id {invocation.id!r} is in flight already")
        if self.is_stopping and invocation.parent is None:
            return error_bodies.engine_stopping()
        if (overload := self._overload_by(origin, now) or self._overload_by_job(invocation)) is not None:
            return overload
        if invocation.depth > limits.depth:
            return error_bodies.loop_detected(invocation, limits.depth)
        if message.deadline_ms is not None and not 0 < invocation.timeout < float("inf"):
            return error_bodies.invalid_message("deadline_ms must be a positive number of milliseconds")
        function = invocation.function
        mismatch = None if function.validator is None else function.validator(message.data)
        return None if mismatch is None else error_bodies.invalid_payload(function, mismatch)

    def _parent_of(self, origin: Peer, message: InvokeFunction) -> Invocation | None:
        """Return the running call that made this one; a peer can only speak for calls that run on it."""
        if message.caller is ABSENT:
            return None
        parent = self.in_flight.get(parent_id(message.caller) or "")
        return parent if parent is not None and parent.callee is origin else None

    def causes_before(self, origin: Peer, message: InvokeFunction) -> Causes | None:
        """Return what led to a call, None for nothing."""
        return self.causes.before(self._parent_of(origin, message), message)

    def _is_loop(self, invocation: Invocation, before: Causes, now: float) -> bool:
        """Stop a call whose chain of causes repeats too fast. Its caller hears of it, the user of the first one."""
        is_stopped, is_first = self.causes.loops.is_stopped(invocation.function.id, before, now)
        if is_stopped:
            error = error_bodies.event_loop(invocation.function.id, before)
            self.counters[error.code] += 1
            if is_first:
                self.events.append(Notice(invocation.origin.name, error.message, ErrorCode.LOOP_DETECTED))
            if self.tracer is not None:
                self.tracer.end(invocation.id, invocation, error_from(error))
            if (caller := invocation.caller) is not None:
                caller.outgoing -= 1
                result = InvocationResult(invocation.id, invocation.function.id, error=encode_error(error))
                self.send(caller, encode(result))
        return is_stopped

    def _overload_by(self, origin: Peer, now: float) -> ErrorBody | None:
        """Return why the peer cannot have one more call under way, None if it can."""
        if origin.outgoing > self.limits.calls_per_peer:
            return error_bodies.overloaded(f"{origin.name} has {self.limits.calls_per_peer} calls under way")
        budget = self.budget
        if origin.kind == "engine" or not (budget.refuses(origin.held_for_calls) or budget.used > budget.total):
            return None
        if now - self._swept_at >= SWEEP_INTERVAL * len(self.in_flight):
            self._swept_at = now
            for invocation in self.in_flight.values():
                callee, function = invocation.callee, invocation.function
                needs_line = function.is_idempotent or function.result_validator is not None or function.observers
                # What the callee has read runs there or fails with it: the line is not sent a second time.
                if callee is not None and not needs_line and callee.written - MAX_UNREAD >= invocation.line_end:
                    self.replace_line(invocation, b"")
        return error_bodies.memory_used_up(origin, budget) if budget.refuses(origin.held_for_calls) else None

    def replace_line(self, invocation: Invocation, line: bytes) -> None:
        """Hold another line for a call under way."""
        invocation.line = line
        self._hold(invocation)

    def _hold(self, invocation: Invocation) -> None:
        """Hold a long line; and by its origin all of a call that no caller waits for, which no peer's number counts."""
        size = len(invocation.line)
        overhead = CALL_OVERHEAD if invocation.caller is None else 0
        held = overhead + (0 if size <= SHORT_LINE else size)
        self.budget.hold(invocation.origin, held - invocation.held)
        invocation.held = held

    def forget(self, invocation: Invocation) -> None:
        """The call has ended: release what the engine held for it."""
        self.in_flight.pop(invocation.id, None)
        self.budget.release(invocation.origin, invocation.held)
        invocation.held = 0
        invocation.is_done = True
        invocation.line = b""  # the deadlines keep the invocation for a while: its line need not stay with it

    def _overload_by_job(self, invocation: Invocation) -> ErrorBody | None:
        """Refuse a job whose handler still runs although its caller is gone: say for a queue worker that died."""
        if not invocation.awaits_end or not any(peer.abandoned for peer in invocation.function.providers):
            return None
        running = {call.job for call in self.in_flight.values() if call.job is not None}
        if not running or job_in(invocation.line) not in running:
            return None
        return error_bodies.overloaded(f"an earlier attempt of this job of {invocation.function.id} runs")

    # A call finds its callee

    def place(self, invocation: Invocation) -> None:
        """Dispatch the call, or let it wait, or refuse it."""
        function = invocation.function
        providers = function.providers
        if not providers:
            self._place_without_provider(invocation)
            return
        callee = providers[0] if len(providers) == 1 else min(providers, key=_load)
        if callee.concurrency is not None and (callee.busy >= callee.concurrency or function.waiting):
            self._wait(invocation)
        elif callee.enqueued - callee.written > self.limits.unsent_bytes:
            self.fail(invocation, error_bodies.overloaded(f"{callee.name} does not read its input"))
        else:
            self._dispatch(invocation, callee)

    def _dispatch(self, invocation: Invocation, callee: Peer) -> None:
        invocation.callee = callee
        callee.busy += 1
        self.send(callee, invocation.line)
        invocation.line_end = callee.enqueued
        if self.tracer is not None:
            self.tracer.dispatched(invocation)

    def _place_without_provider(self, invocation: Invocation) -> None:
        function = invocation.function
        registered = self.registry.find(function.namespace, function.id)
        if registered is None:
            if not self.starting:
                rights = invocation.origin.rights
                self.fail(invocation, error_bodies.function_not_found(function, self.registry, rights=rights))
            elif len(self.unresolved) >= self.limits.waiting_per_function:
                self.fail(invocation, error_bodies.overloaded("too many calls wait for workers to start"))
            else:
                self.unresolved.append(invocation)
        elif registered is not function:
            invocation.function = registered
            self.place(invocation)
        elif function.owner.is_expected:
            self._wait(invocation)
        else:
            self.fail(invocation, error_bodies.worker_unavailable(function.owner))

    def _wait(self, invocation: Invocation) -> None:
        function = invocation.function
        if self._waits_for_itself(invocation):
            self.fail(invocation, error_bodies.deadlock_detected(invocation))
        elif function.waiting >= self.limits.waiting_per_function:
            self.fail(invocation, error_bodies.overloaded(f"{function.waiting} calls wait for {function.id}"))
        else:
            self._enqueue(invocation)

    def _enqueue(self, invocation: Invocation, *, first: bool = False) -> None:
        invocation.is_waiting = True
        invocation.callee = None
        invocation.function.waiting += 1
        waiting = invocation.function.owner.waiting
        if first:
            waiting.appendleft(invocation)
        else:
            waiting.append(invocation)

    def _waits_for_itself(self, invocation: Invocation) -> bool:
        """Whether the calls that wait for this one already fill the concurrency of every provider."""
        providers = invocation.function.providers
        concurrency = sum(peer.concurrency or 0 for peer in providers)
        running_parents = 0
        parent = invocation.parent
        while parent is not None:
            running_parents += parent.callee in providers
            parent = parent.parent
        return bool(providers) and running_parents >= concurrency

    def dispatch_waiting(self, owner: Owner) -> None:
        """Dispatch the owner's waiting calls, in order, as far as there is room."""
        waiting = owner.waiting
        without_room: list[Invocation] = []
        while waiting and (owner.has_room or not (owner.peers or owner.is_expected)):
            invocation = self._unwait(waiting.popleft())
            free = [peer for peer in invocation.function.providers if peer.has_room]
            if free:
                self._dispatch(invocation, min(free, key=_load))
            elif invocation.function.providers:
                without_room.append(invocation)
            else:
                self.place(invocation)
        for invocation in reversed(without_room):
            self._enqueue(invocation, first=True)

    def _unwait(self, invocation: Invocation) -> Invocation:
        invocation.is_waiting = False
        invocation.function.waiting -= 1
        return invocation

    def unqueue(self, function: Function) -> list[Invocation]:
        """Take the calls that wait for this function out of its owner's queue; return them in order."""
        taken = [invocation for invocation in function.owner.waiting if invocation.function is function]
        for invocation in taken:
            function.owner.waiting.remove(self._unwait(invocation))
        return taken

    def place_unresolved(self) -> None:
        """Place the calls to unknown functions again: a worker registered a function, or has finished starting."""
        for _ in range(len(self.unresolved)):
            self.place(self.unresolved.popleft())

    def requeue(self, invocations: list[Invocation]) -> None:
        """Put calls whose callee is gone before those that wait already, in order."""
        for invocation in reversed(invocations):
            self._enqueue(invocation, first=True)
        for owner in {invocation.function.owner for invocation in invocations}:
            self.dispatch_waiting(owner)

    # A call ends

    def settle(self, callee: Peer, message: InvocationResult, line: bytes) -> None:
        """Take a result; only the callee of the call may end it. The hot path: everything inline."""
        invocation = self.in_flight.get(message.invocation_id)
        if invocation is None or invocation.callee is not callee:
            self.counters["unknown_result" if invocation is None else "foreign_result"] += 1
            return
        del self.in_flight[message.invocation_id]
        invocation.is_done = True
        if invocation.held:
            self.budget.release(invocation.origin, invocation.held)
        if message.error is not ABSENT:
            self._note_failure(invocation, message.error)
        caller = invocation.caller
        if caller is None:
            self.counters["unawaited_result"] += 1
            callee.abandoned -= invocation.is_abandoned
        else:
            caller.outgoing -= 1
            if not caller.owner.is_observer:
                invocation.function.answered += 1
            if invocation.receipt is not None or message.traceparent is not None or message.baggage is not None:
                line = result_for_caller(invocation, message)
            outbox = caller.outbox
            if not outbox:
                self.dirty.append(caller)
            outbox.append(line)
            caller.enqueued += len(line) + 1
        invocation.line = b""  # as in `forget`
        callee.busy -= 1
        callee.answered += 1
        if callee.owner.waiting:
            self.dispatch_waiting(callee.owner)
        if callee.is_retired and not (callee.owed or invocation.is_abandoned):
            self.events.append(PeerDrained(callee))

    def fail(self, invocation: Invocation, error: ErrorBody) -> None:
        """End a call that no callee holds."""
        self.in_flight.pop(invocation.id, None)
        invocation.is_done = True
        self.tell(invocation, error)
        self.forget(invocation)  # with its line, which tells why the call was made

    def tell(self, invocation: Invocation, error: ErrorBody) -> None:
        """Answer the caller with an error; from here on no peer waits for the call."""
        # A call that is refused because its id is in flight has no span: that id's span is the other call's.
        if self.tracer is not None and self.in_flight.get(invocation.id) in (None, invocation):
            self.tracer.end(invocation.id, invocation, error_from(error))
        self._note_failure(invocation, error)
        if invocation.function.observers:
            self.on_ended(invocation, error)
        caller, invocation.caller = invocation.caller, None
        if caller is None:
            self.counters["void_dropped"] += 1
            return
        caller.outgoing -= 1
        if not caller.owner.is_observer:
            invocation.function.answered += 1
            if invocation.function.owner is NO_OWNER:
                self.counters["unknown_function"] += 1
        if caller.rights is not None:
            error = error_bodies.without_secrets(error)
        result = InvocationResult(invocation.id, invocation.function.id, error=encode_error(error))
        self.send(caller, encode(result))

    def _note_failure(self, invocation: Invocation, error: ErrorBody | Raw) -> None:
        """Count a call that failed, and report it unless its caller waits for the outcome on its own account."""
        caller = invocation.caller
        if caller is not None and not caller.owner.is_observer:
            invocation.function.failed += 1
        if invocation.is_overdue and not isinstance(error, ErrorBody) and is_cancelled(error):
            error = error_bodies.timeout(invocation)  # that is why it was cancelled
        if caller is None:
            if not invocation.is_abandoned:
                self.note_failed(invocation.origin, invocation.function, invocation.line, error, invocation.callee)
        elif caller.owner.fires_triggers or caller.kind == "engine":
            self.note_failed(caller, invocation.function, invocation.line, error, invocation.callee, is_void=False)

    def note_failed(
        self,
        origin: Peer,
        function: Function,
        line: bytes,
        error: ErrorBody | Raw,
        callee: Peer | None = None,
        *,
        is_void: bool = True,
    ) -> None:
        """Report a call that failed."""
        self.events.append(CallFailed(function.id, function.namespace, origin, callee, line, error, is_void))

    def cancel(self, caller: Peer, message: Cancel) -> None:
        invocation = self.in_flight.get(message.invocation_id)
        if invocation is None or invocation.caller is not caller:
            self.counters["unknown_cancel"] += 1
            return
        invocation.caller = None
        caller.outgoing -= 1
        self.abandon(invocation)

    def abandon(self, invocation: Invocation, *, is_told: bool = False) -> None:
        """The caller gave up, or `is_told` an error: take the call out of the queue, or tell its callee to stop."""
        if invocation.function.observers and not is_told:
            self.on_ended(invocation, error_bodies.given_up())
        if self.tracer is not None:
            self.tracer.end(invocation.id, invocation, ("cancelled", "the caller gave up", ""))
        if (callee := invocation.callee) is not None:
            # The call stays in the table until the callee answers or dies: the callee still runs it.
            invocation.is_abandoned = True
            if invocation.awaits_end:
                invocation.job = job_in(invocation.line)
            self.replace_line(invocation, b"")  # it goes to no other callee
            callee.abandoned += 1
            self.send(callee, encode(Cancel(invocation.id)))
            if callee.is_retired and not callee.owed:
                self.events.append(PeerDrained(callee))
            return
        if invocation.is_waiting:
            self._unwait(invocation)
            invocation.function.owner.waiting.remove(invocation)
        elif invocation in self.unresolved:
            self.unresolved.remove(invocation)
        self.forget(invocation)

    def expire(self, now: float) -> None:
        """End every call whose deadline has passed. Runs often while calls come: so it looks at the memory too."""
        self.follow_budget()
        for invocation in self.deadlines.expired(now):
            if invocation.is_abandoned:
                continue
            if invocation.awaits_end and invocation.callee is not None:
                invocation.is_overdue = True
                self.send(invocation.callee, encode(Cancel(invocation.id)))
                continue
            self.tell(invocation, error_bodies.timeout(invocation))
            self.abandon(invocation, is_told=True)

    # While calls are recorded

    def admit_traced(
        self, origin: Peer, message: InvokeFunction, function: Function | None, line: bytes, now: float
    ) -> None:
        """As `admit`; a call that belongs to no trace yet may begin one. Its line is then written anew."""
        if (
            message.caller is ABSENT
            and message.invocation_id not in self.in_flight
            and self.tracer is not None
            and self.tracer.begin_root(origin, message, function, now)
        ):
            message.baggage = _own_baggage(message.function_id)
            line = encode(message)
        self.admit(origin, message, function, line, now)

    def settle_checked(self, callee: Peer, message: InvocationResult, line: bytes) -> None:
        """As `settle_traced`; a result that its function's response format does not admit becomes an error."""
        invocation = self.in_flight.get(message.invocation_id)
        if invocation is not None and invocation.callee is callee:
            message, line = checked_result(invocation, message, line)
        self.settle_traced(callee, message, line)

    def settle_traced(self, callee: Peer, message: InvocationResult, line: bytes) -> None:
        """As `settle`, after the span of the call has ended."""
        if self.tracer is not None and message.invocation_id in self.tracer.spans:
            invocation = self.in_flight.get(message.invocation_id)
            if invocation is not None and invocation.callee is callee:
                error = None if message.error is ABSENT else error_in(message.error)
                self.tracer.end(message.invocation_id, invocation, error)
        self.settle(callee, message, line)

    # Outboxes, and lines that cannot be decoded

    def send(self, peer: Peer, line: bytes) -> None:
        """Put a line into the peer's outbox."""
        if peer.is_gone:
            return
        outbox = peer.outbox
        if not outbox:
            self.dirty.append(peer)
        outbox.append(line)
        peer.enqueued += len(line) + 1

    def take_messages(self, peer: Peer) -> Iterator[Any]:
        """Yield the messages in the outbox of a peer that lives in the engine; its lines count as written.

        A line of a trusted worker is decoded here for the first time. If it cannot be, a call is answered with the
        error, and a result becomes one.
        """
        for line in peer.take_outbox():
            try:
                message = decode(line)
            except RemoteProtocolError as error:
                self.refuse(peer, error)
            else:
                yield message

    def refuse(self, peer: Peer, error: ProtocolError) -> None:
        """A line from or for `peer` could not be decoded: answer where its id shows, report the error otherwise."""
        self.counters[error.code] += 1
        invocation = self.in_flight.get(error.invocation_id or "")
        details: dict[str, object] = {"offset": error.offset}
        if error.code == ErrorCode.PAYLOAD_TOO_LARGE:
            details["returned"] = True  # an answer of that size is a result: only its way back has failed
        body = ErrorBody(error.code, error.message, details=details)
        if invocation is not None and invocation.callee is peer:
            result = InvocationResult(invocation.id, invocation.function.id, error=encode_error(body))
            self.settle_traced(peer, result, encode(result))
        elif error.invocation_id is not None and invocation is None:
            self.send(peer, encode(InvocationResult(error.invocation_id, error=encode_error(body))))
        else:
            self.events.append(Notice(peer.name, f"refused a message: {error.message}", error.code))


_load = attrgetter("busy")
