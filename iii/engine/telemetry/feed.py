"""The feed: the trigger type `telemetry`, and the batches that its function gets (docs/observability.md).

Itself a peer, whose bindings say whether anything is recorded at all. Collects spans from a tracer, and records and
frames from whoever the composition root lets tell it; hands them over one batch at a time. Nothing here waits for the
function: what it does not take is dropped, and counted.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from typing import Annotated, Any

from msgspec import Meta, Raw, Struct, ValidationError, convert

from iii.engine.routing.local_peer import take_messages
from iii.engine.routing.peer import Owner, Peer
from iii.engine.routing.router import Router
from iii.engine.routing.span_recorder import FOREVER, Outside, Span, Tracer
from iii.engine.supervision.critical_tasks import start_critical
from iii.engine.supervision.reports import LogLine, Report, Reporter
from iii.engine.telemetry.log_records import log_form
from iii.engine.telemetry.metrics import CallCounts, Gauges
from iii.engine.telemetry.span_records import TriggerOf, span_form, trigger_finder
from iii.engine.tracing.bounded_queue import Backlog
from iii.engine.tracing.sampling import Sampler, Sampling
from iii.engine.tracing.worker_spans import WorkerSpan
from iii.errors import ErrorCode
from iii.protocol import messages as m
from iii.protocol.codec import decode_value, encode_error, encode_value
from iii.redaction import Redactor

TYPE = "telemetry"
DESCRIPTION = "Hands the spans of calls, log records and telemetry frames over, in batches"
# Spans that are made into JSON before the loop routes calls again.
CHUNK = 64
# Bytes of one part of a batch: all of them together stay under the limit of a line.
MAX_PART = 3 * 1024 * 1024
# Log records and frames that wait: count and bytes.
MAX_LOGS, MAX_LOG_BYTES = 10_000, 8 * 1024 * 1024
MAX_FRAMES, MAX_FRAME_BYTES = 1_000, 16 * 1024 * 1024
MAX_FRAME = 8 * 1024 * 1024  # bytes of one frame: it has to fit on a line


# New traces pause at least so long, so that a high limit does not turn the gate into a swing.
SHORTEST_PAUSE = 0.01

# Without spans, records and frames the counts of calls are still told, every so many seconds.
PULSE = 5.0

# Begins to tell a reporter what the engine reports; returns what ends that.
Follow = Callable[[Reporter], Callable[[], None]]


class FeedConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """The config of a binding."""

    spans: bool = True
    logs: bool = True
    live: bool = False
    payloads: Annotated[int, Meta(ge=0, le=64 * 1024)] = 0
    sampling: Sampling = Sampling()
    max_batch: Annotated[int, Meta(ge=1, le=2000)] = 500
    window_ms: Annotated[int, Meta(ge=5, le=10_000)] = 100


class _Binding(Struct, frozen=True):
    id: str
    function_id: str
    namespace: str
    metadata: Raw
    config: FeedConfig


class Feed:
    """What is recorded, and for whom. `turn` is called after it put something into the router by itself.

    `gauges` gets the frames as well, whether anybody is fed or not.
    """

    def __init__(
        self, router: Router, turn: Callable[[], None], *, follow: Follow, gauges: Gauges | None = None
    ) -> None:
        self._router = router
        self._turn = turn
        self._follow = follow
        self._gauges = gauges or Gauges()
        self._unfollow: Callable[[], None] | None = None
        self._taker: Owner | None = None  # whose function it is
        self._call_counts = CallCounts(router)
        self._told: dict[str, Any] = {}  # the counts of the batch before
        self._reopening: asyncio.TimerHandle | None = None
        self.redact = Redactor()
        self._loop = asyncio.get_running_loop()
        self._bindings: dict[str, _Binding] = {}
        self._tracer: Tracer | None = None
        self._pump: asyncio.Task[None] | None = None
        self._something = asyncio.Event()
        self._answer: asyncio.Future[m.InvocationResult] | None = None
        self._awaited = ""  # the id of the batch under way
        self._lost = {"spans": 0, "logs": 0, "otlp": 0}  # of batches that their function did not take
        self.logs: Backlog[tuple[Report, float]] = Backlog(MAX_LOGS, MAX_LOG_BYTES)
        self.frames: Backlog[bytes] = Backlog(MAX_FRAMES, MAX_FRAME_BYTES)
        self.peer = Peer("telemetry", kind="engine", name="telemetry")
        self.peer.flush = self._read_outbox
        router.peer_table.attach(self.peer)
        router.receive(self.peer, m.RegisterTriggerType(TYPE, DESCRIPTION), b"", 0.0)

    def __repr__(self) -> str:
        return f"<Feed {len(self._bindings)} bindings, {self._tracer!r}>"

    @property
    def _active(self) -> _Binding | None:
        return next(reversed(self._bindings.values()), None)

    def close(self) -> None:
        """Record nothing any more."""
        self._bindings.clear()
        self._apply()

    # Bindings

    def _read_outbox(self) -> None:
        for message in take_messages(self.peer, self._router.calls):
            if isinstance(message, m.InvocationResult):
                self._answered(message)
            elif isinstance(message, m.RegisterTrigger):
                self._bind(message)
            elif isinstance(message, m.UnregisterTrigger):
                self._unbind(message.id)

    def _answered(self, message: m.InvocationResult) -> None:
        # A binding that is gone may still have a batch on its way: its answer is nobody's.
        if message.invocation_id == self._awaited and self._answer is not None and not self._answer.done():
            self._answer.set_result(message)

    def _bind(self, message: m.RegisterTrigger) -> None:
        answer = m.TriggerRegistrationResult(message.id, message.trigger_type, message.function_id)
        binding = self._router.bindings.find(message.id)
        try:
            if binding is None or binding.owner is None or not binding.owner.is_supervised:
                raise ValidationError("only a worker of this project may take what everybody does")
            config = convert({} if m.is_empty(message.config) else decode_value(message.config), FeedConfig)
        except ValidationError as error:
            answer.error = encode_error(m.ErrorBody(ErrorCode.TRIGGER_REGISTRATION_FAILED, f"telemetry: {error}"))
        else:
            self._bindings.pop(message.id, None)
            namespace = message.namespace or "default"
            self._bindings[message.id] = _Binding(message.id, message.function_id, namespace, message.metadata, config)
            self._apply()
        self._router.receive(self.peer, answer, b"", 0.0)

    def _unbind(self, id: str) -> None:
        if self._bindings.pop(id, None) is not None:
            self._apply()

    def _apply(self) -> None:
        """Record what the latest binding wants, from the beginning."""
        if self._pump is not None:
            self._pump.cancel()
            self._pump = None
        if self._reopening is not None:
            self._reopening.cancel()
            self._reopening = None
        if self._unfollow is not None:
            self._unfollow()
            self._unfollow = None
        self.logs.clear()
        self.frames.clear()
        active = self._active
        self._tracer = self._make_tracer(active.config) if active is not None and active.config.spans else None
        self._router.trace(self._tracer)
        if active is not None:
            self._find_taker(active)
            self._call_counts = CallCounts(self._router)
            self._unfollow = self._follow(self._take_report) if active.config.logs else None
            self._pump = start_critical(self._run(active), "the telemetry feed")

    def _make_tracer(self, config: FeedConfig) -> Tracer:
        outside = Outside(random.getrandbits, time.monotonic, self._something.set, self._on_gate)
        tracer = Tracer(Sampler(config.sampling), self._router.calls.in_flight, outside)
        tracer.begun = [] if config.live else None
        tracer.payloads = config.payloads
        return tracer

    def _on_gate(self) -> None:
        """New traces begin or begin no more: calls take the path for that."""
        tracer = self._tracer
        if tracer is None:
            return
        self._router.choose_path()
        if self._reopening is not None:
            self._reopening.cancel()
            self._reopening = None
        if 0.0 < tracer.shut_until < FOREVER:
            wait = max(tracer.shut_until - self._loop.time(), SHORTEST_PAUSE)
            self._reopening = self._loop.call_later(wait, tracer.reopen)

    def _find_taker(self, active: _Binding) -> None:
        function = self._router.registry.find(active.namespace, active.function_id)
        self._taker = None if function is None else function.owner
        if self._tracer is not None:
            self._tracer.taker = self._taker

    # What comes in

    def _take_report(self, report: Report) -> None:
        """Take what the engine reports; not what the taker of the feed writes, which would be told to itself."""
        if not isinstance(report, LogLine):
            self.logs.add((report, time.time()), 0)
        elif self._taker is None or report.run.worker != self._taker.name:
            self.logs.add((report, report.time), len(report.text))
        else:
            return
        self._something.set()

    def take_frame(self, kind: str, data: bytes) -> None:
        """Take a telemetry frame of an SDK: `OTLP`, `MTRC` or `LOGS`, and its text."""
        self._gauges.take(kind, data, time.time())
        if self._pump is None:
            return
        try:
            entry = encode_value([kind, data.decode()])
        except UnicodeDecodeError:
            entry = b""
        if 0 < len(entry) <= MAX_FRAME:
            self.frames.add(entry, len(entry))
        else:
            self.frames.dropped += 1
        self._something.set()

    # Batches

    async def _run(self, active: _Binding) -> None:
        """Hand over whatever there is, one batch after the other."""
        window = active.config.window_ms / 1000
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._something.wait(), PULSE)
            await asyncio.sleep(window)
            self._something.clear()
            self._find_taker(active)
            batch, sizes = await self._make_batch(active.config.max_batch)
            if batch and not await self._deliver(active, batch):
                for part, size in sizes.items():
                    self._lost[part] += size
            if self._has_more():
                self._something.set()

    def _has_more(self) -> bool:
        tracer = self._tracer
        return bool(self.logs or self.frames or (tracer and (tracer.finished or tracer.begun or tracer.foreign)))

    async def _make_batch(self, count: int) -> tuple[bytes, dict[str, int]]:
        """Return a batch as JSON, and how many of what are in it; no batch when there is no news."""
        spans, logs = await self._encode_spans(count), await self._encode_logs(count)
        frames = self.frames.take(count, MAX_PART)
        parts = {"spans": spans, "logs": logs, "otlp": frames}
        fields = [b'"%b":[%b]' % (name.encode(), b",".join(items)) for name, items in parts.items()]
        counts, dropped = self._call_counts.report(self._taker), self._take_dropped()
        if counts == self._told and not (spans or logs or frames or any(dropped.values())):
            return b"", {}
        self._told = counts
        fields += [b'"dropped":' + encode_value(dropped), b'"calls":' + encode_value(counts)]
        fields.append(b'"time_unix_nano":%d' % time.time_ns())
        return b"{" + b",".join(fields) + b"}", {name: len(items) for name, items in parts.items()}

    async def _encode_spans(self, count: int) -> list[bytes]:
        """Make spans into JSON, a few at a time: calls are routed on the same loop."""
        tracer = self._tracer
        if tracer is None:
            return []
        trigger_of, epoch = trigger_finder(self._router.bindings), time.time() - time.monotonic()
        # Half of a batch for the engine's finished ones at least: the rest can wait, or be told later.
        some = max(1, count // 4)
        encoded = [self._encode_foreign(span) for span in tracer.foreign.take(some, MAX_PART // 4)]
        encoded += [self._encode(span, epoch, trigger_of) for span in tracer.take_pending(some)]
        size = sum(map(len, encoded))
        while size < MAX_PART and (chunk := tracer.take(max(0, min(CHUNK, count - len(encoded))))):
            texts = [self._encode(span, epoch, trigger_of) for span in chunk]
            encoded += texts
            size += sum(map(len, texts))
            await asyncio.sleep(0)
        return encoded

    def _encode(self, span: Span, epoch: float, trigger_of: TriggerOf) -> bytes:
        if span.error is not None:
            span.error = (span.error[0], self.redact(span.error[1]))
        if span.payload is not None:
            span.payload = Raw(self.redact.cut_out(bytes(span.payload).decode()).encode())
        return encode_value(span_form(span, epoch, trigger_of))

    def _encode_foreign(self, span: WorkerSpan) -> bytes:
        span.status_description = self.redact(span.status_description)
        return self.redact.cut_out(encode_value(span).decode()).encode()

    async def _encode_logs(self, count: int) -> list[bytes]:
        """Make reports into JSON records, a few at a time."""
        encoded: list[bytes] = []
        for number, (report, now) in enumerate(self.logs.take(count, MAX_PART // 2)):
            form = log_form(report, now)
            if form is not None:
                encoded.append(encode_value(form))
            if number % CHUNK == CHUNK - 1:
                await asyncio.sleep(0)
        return encoded

    def _take_dropped(self) -> dict[str, int]:
        dropped = dict(self._lost)
        self._lost = dict.fromkeys(dropped, 0)
        dropped["logs"] += self.logs.take_dropped()
        dropped["otlp"] += self.frames.take_dropped()
        if self._tracer is not None:
            dropped["spans"] += self._tracer.take_dropped()
        return dropped

    async def _deliver(self, active: _Binding, batch: bytes) -> bool:
        """Call the function with a batch and wait for its answer; False when it failed."""
        self._answer, self._awaited = self._loop.create_future(), self._router.calls.mint_id()
        call = m.InvokeFunction(
            active.function_id,
            invocation_id=self._awaited,
            data=Raw(batch),
            metadata=active.metadata,
            namespace=active.namespace,
        )
        self._router.receive(self.peer, call, b"", self._loop.time())
        self._turn()
        answer = await self._answer
        return m.is_empty(answer.error)
