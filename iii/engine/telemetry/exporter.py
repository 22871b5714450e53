"""The telemetry exporter: the trigger type `telemetry`, and the batches that its function gets (docs/observability.md).

The exporter is a peer of its own. It records spans (from a tracer), log records (from the engine's reports) and frames
(from the SDKs' connections), but only while a worker has bound a function to its trigger type; the latest binding
counts. It delivers one batch at a time, and recording never waits for the function: what exceeds a bound is dropped,
and counted in the next batch.
"""

from __future__ import annotations

import asyncio
import contextlib
import random
import time
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any

from msgspec import Meta, Raw, Struct, ValidationError, convert
from msgspec.structs import replace

from iii.arguments import CONFIG_PROPERTIES, arguments_from, check_config
from iii.declarations import load_declarations
from iii.engine.routing.bindings import Binding
from iii.engine.routing.peer import Owner, Peer
from iii.engine.routing.router import Router
from iii.engine.routing.tracer import FOREVER, Span, Tracer
from iii.engine.supervision.critical_tasks import start_critical
from iii.engine.supervision.reports import LogLine, Report, Reporter
from iii.engine.telemetry.log_records import log_record
from iii.engine.telemetry.metrics import CallCounts, WorkerMetrics
from iii.engine.telemetry.span_records import span_record, trigger_finder
from iii.engine.tracing.bounded_queue import BoundedQueue
from iii.engine.tracing.sampling import Sampler, Sampling
from iii.errors import ErrorCode
from iii.protocol import messages as m
from iii.protocol.codec import decode, decode_value, encode_error, encode_value
from iii.redaction import Redactor

# Records that are encoded before the loop routes calls again.
CHUNK = 64
# Spans of workers that are read for one batch; most of them may belong to traces that are not recorded.
MAX_WORKER_SPANS = 5_000
# Bytes of one part of a batch: all parts together stay under the limit of a line.
MAX_PART = 3 * 1024 * 1024
# Log records and frames that wait for a batch: count and bytes.
MAX_LOGS, MAX_LOG_BYTES = 10_000, 8 * 1024 * 1024
MAX_FRAMES, MAX_FRAME_BYTES = 1_000, 16 * 1024 * 1024
# Bytes of one frame: it has to fit on a line.
MAX_FRAME = 8 * 1024 * 1024
# Shortest time without new traces: a high rate limit must not start and stop them all the time. Its tokens add up
# meanwhile, so that no fewer traces begin.
MIN_RESUME_TIMEOUT = 0.05
# How often the counts of calls are delivered when nothing else is.
COUNTS_INTERVAL = 5.0

# Begins to pass the engine's reports to a reporter; returns the function that ends it.
Follow = Callable[[Reporter], Callable[[], None]]


class ExporterConfig(Struct, frozen=True, forbid_unknown_fields=True):
    """The config of a binding."""

    spans: bool = True
    logs: bool = True
    live: bool = False
    payloads: Annotated[int, Meta(ge=0, le=64 * 1024)] = 0
    sampling: Sampling = Sampling()
    max_batch: Annotated[int, Meta(ge=1, le=2000)] = 500
    window_ms: Annotated[int, Meta(ge=5, le=10_000)] = 100


class TelemetryExporter:
    """Records what the latest binding asks for, and delivers it to the function of that binding.

    `turn` is called after the exporter has put a message into the router by itself. `worker_metrics` gets the frames
    of SDKs as well, whether a function is bound or not.
    """

    def __init__(
        self, router: Router, turn: Callable[[], None], *, follow: Follow, worker_metrics: WorkerMetrics
    ) -> None:
        self._router = router
        self._turn = turn
        self._follow = follow
        self._worker_metrics = worker_metrics
        self._recording = contextlib.ExitStack()  # closed to end what the latest binding began
        self._subscriber: Owner | None = None  # the worker of the bound function
        self._call_counts = CallCounts(router)
        self._last_counts: dict[str, Any] = {}  # in the previous batch
        self._resume_timer: asyncio.TimerHandle | None = None
        self.redact = Redactor()
        self._loop = asyncio.get_running_loop()
        self._bindings: dict[str, tuple[Binding, ExporterConfig]] = {}
        self._tracer: Tracer | None = None
        # At the last look: calls that had ended without a span, whether new ones got none for want of room, the time.
        self._left_out_before = 0, False, 0.0
        self._has_news = asyncio.Event()
        self._answer: asyncio.Future[m.InvocationResult] | None = None
        self._batch_id = ""  # of the call that delivers a batch
        self._lost = {"spans": 0, "logs": 0, "otlp": 0}  # in batches whose delivery failed
        self.logs: BoundedQueue[tuple[Report, float]] = BoundedQueue(MAX_LOGS, MAX_LOG_BYTES)
        self.frames: BoundedQueue[bytes] = BoundedQueue(MAX_FRAMES, MAX_FRAME_BYTES)
        self.peer = Peer("telemetry", kind="engine", name="telemetry", flush=self._read_outbox)
        router.peer_table.attach(self.peer)
        for declaration in load_declarations(Path(__file__).parent).trigger_types.values():
            router.receive(self.peer, decode(encode_value({"type": "registertriggertype", **declaration})), b"", 0.0)

    def close(self) -> None:
        self._bindings.clear()
        self._apply_latest_binding()

    def _read_outbox(self) -> None:
        for message in self._router.calls.take_messages(self.peer):
            if isinstance(message, m.InvocationResult):
                # The batch of a removed binding may still be answered: that answer is ignored.
                is_current = message.invocation_id == self._batch_id
                if is_current and self._answer is not None and not self._answer.done():
                    self._answer.set_result(message)
            elif isinstance(message, m.RegisterTrigger):
                self._bind(message)
            elif isinstance(message, m.UnregisterTrigger) and self._bindings.pop(message.id, None) is not None:
                self._apply_latest_binding()

    def _bind(self, message: m.RegisterTrigger) -> None:
        answer = m.TriggerRegistrationResult(message.id, message.trigger_type, message.function_id)
        binding = self._router.bindings.find(message.id)
        try:
            if binding is None or binding.owner is None or not binding.owner.is_supervised:
                raise ValidationError("only a worker of this project may take what everybody does")
            fields = {} if m.is_empty(message.config) else decode_value(message.config)
            check_config(fields, message.trigger_type)
            if isinstance(fields, dict):
                fields = {key: value for key, value in fields.items() if key not in CONFIG_PROPERTIES}
            config = convert(fields, ExporterConfig)
        except (ValidationError, ValueError) as error:
            answer.error = encode_error(m.ErrorBody(ErrorCode.TRIGGER_REGISTRATION_FAILED, f"telemetry: {error}"))
        else:
            self._bindings.pop(message.id, None)
            self._bindings[message.id] = binding, config
            self._apply_latest_binding()
        self._router.receive(self.peer, answer, b"", 0.0)

    def _apply_latest_binding(self) -> None:
        """Stop recording, drop what waits, and record anew what the latest binding asks for."""
        self._recording.close()
        if self._resume_timer is not None:
            self._resume_timer.cancel()
            self._resume_timer = None
        self.logs.clear()
        self.frames.clear()
        binding, config = next(reversed(self._bindings.values()), (None, ExporterConfig()))
        self._tracer = self._make_tracer(config) if binding is not None and config.spans else None
        self._router.trace(self._tracer)
        self._find_subscriber(binding)
        self._left_out_before = 0, False, 0.0
        if binding is not None:
            self._call_counts = CallCounts(self._router)
            if config.logs:
                self._recording.callback(self._follow(self._take_report))
            delivery = start_critical(self._deliver_batches(binding, config), "the telemetry feed")
            self._recording.callback(delivery.cancel)

    def _make_tracer(self, config: ExporterConfig) -> Tracer:
        tracer = Tracer(
            Sampler(config.sampling),
            self._router.calls.in_flight,
            mint=random.getrandbits,
            clock=time.monotonic,
            on_finished=self._has_news.set,
            on_state_changed=self._on_traces_paused_or_resumed,
        )
        tracer.newly_begun = [] if config.live else None
        tracer.max_payload = config.payloads
        return tracer

    def _on_traces_paused_or_resumed(self) -> None:
        """Let the router choose the path of calls again, and resume new traces when the tracer's pause is over."""
        tracer = self._tracer
        if tracer is None:
            return
        self._router.choose_path()
        if tracer.is_full is not self._left_out_before[1]:
            self._count_left_out(tracer)
        if self._resume_timer is not None:
            self._resume_timer.cancel()
            self._resume_timer = None
        if 0.0 < tracer.paused_until < FOREVER:
            timeout = max(tracer.paused_until - self._loop.time(), MIN_RESUME_TIMEOUT)
            self._resume_timer = self._loop.call_later(timeout, tracer.resume)

    def _count_left_out(self, tracer: Tracer) -> None:
        """Count as dropped the calls since the last look that would have got a span, had there been room."""
        before, was_full, since = self._left_out_before
        now, unrecorded = self._loop.time(), self._call_counts.total - tracer.ended
        if was_full:
            tracer.dropped += tracer.sampler.share_of(max(0, unrecorded - before), now - since)
        self._left_out_before = unrecorded, tracer.is_full, now

    def _find_subscriber(self, binding: Binding | None) -> None:
        """Find the worker of the bound function, and let it observe without being observed."""
        function = None if binding is None else self._router.registry.find(binding.namespace, binding.function_id)
        owner = None if function is None else function.owner
        if owner is not self._subscriber:
            for observer, is_observer in ((self._subscriber, False), (owner, True)):
                if observer is not None:
                    observer.is_observer = is_observer
            self._subscriber = owner

    def _take_report(self, report: Report) -> None:
        """Record a report of the engine, but no log line of the subscriber: its own lines would come back to it."""
        if not isinstance(report, LogLine):
            self.logs.add((report, time.time()), 0)
        elif self._subscriber is None or report.run.worker != self._subscriber.name:
            run = report.run
            causes = self._router.calls.causes.of_output(run.worker, run.instance, run.generation, self._loop.time())
            if causes is not None:
                report = replace(report, causes=str(causes))
            self.logs.add((report, report.time), len(report.text) + len(report.causes))
        else:
            return
        self._has_news.set()

    def take_frame(self, prefix: str, data: bytes) -> None:
        """Record a telemetry frame of an SDK: its prefix (`OTLP`, `MTRC` or `LOGS`) and its text."""
        self._worker_metrics.take(prefix, data, time.time())
        if not self._bindings:
            return
        try:
            entry = encode_value([prefix, data.decode()])
        except UnicodeDecodeError:
            entry = b""
        if 0 < len(entry) <= MAX_FRAME:
            self.frames.add(entry, len(entry))
        else:
            self.frames.dropped += 1
        self._has_news.set()

    async def _deliver_batches(self, binding: Binding, config: ExporterConfig) -> None:
        arguments = arguments_from(decode_value(binding.config))
        while True:
            with contextlib.suppress(TimeoutError):
                await asyncio.wait_for(self._has_news.wait(), COUNTS_INTERVAL)
            await asyncio.sleep(config.window_ms / 1000)
            self._has_news.clear()
            self._find_subscriber(binding)
            batch, sizes = await self._make_batch(config.max_batch)
            if batch and arguments is not None:
                batch = encode_value(arguments.read(decode_value(Raw(batch)))[0])
            if batch:
                self._answer, self._batch_id = self._loop.create_future(), self._router.calls.mint_id()
                call = m.InvokeFunction(
                    binding.function_id,
                    invocation_id=self._batch_id,
                    data=Raw(batch),
                    metadata=binding.metadata,
                    namespace=binding.namespace,
                )
                self._router.receive(self.peer, call, b"", self._loop.time())
                self._turn()
                if not m.is_empty((await self._answer).error):
                    for part, size in sizes.items():
                        self._lost[part] += size
            tracer = self._tracer
            has_spans = tracer and (tracer.finished or tracer.newly_begun or tracer.has_worker_spans)
            if self.logs or self.frames or has_spans:
                self._has_news.set()

    async def _make_batch(self, count: int) -> tuple[bytes, dict[str, int]]:
        """Return a batch as JSON and the sizes of its parts; an empty one if there is nothing new."""
        parts = {"spans": await self._encode_spans(count), "logs": await self._encode_logs(count)}
        parts["otlp"] = self.frames.take(count, MAX_PART)
        fields = [b'"%b":[%b]' % (name.encode(), b",".join(items)) for name, items in parts.items()]
        counts = self._call_counts.report()
        dropped, self._lost = self._lost, dict.fromkeys(parts, 0)  # since the previous batch
        dropped["logs"] += self.logs.take_dropped()
        dropped["otlp"] += self.frames.take_dropped()
        if self._tracer is not None:
            self._count_left_out(self._tracer)
            dropped["spans"] += self._tracer.take_dropped()
        if counts == self._last_counts and not any([*parts.values(), *dropped.values()]):
            return b"", {}
        self._last_counts = counts
        fields += [b'"dropped":' + encode_value(dropped), b'"calls":' + encode_value(counts)]
        fields.append(b'"time_unix_nano":%d' % time.time_ns())
        return b"{" + b",".join(fields) + b"}", {name: len(items) for name, items in parts.items()}

    async def _encode_spans(self, count: int) -> list[bytes]:
        """Encode spans, a few at a time: calls are routed on the same loop."""
        tracer = self._tracer
        if tracer is None:
            return []
        trigger_of, epoch = trigger_finder(self._router.bindings), time.time() - time.monotonic()

        def encode(span: Span) -> bytes:
            if span.error is not None:
                code, message, stack = span.error
                span.error = (code, self.redact(message), self.redact(stack) if stack else "")
            if span.payload is not None:
                span.payload = Raw(self.redact.cut_out(bytes(span.payload).decode()).encode())
            return encode_value(span_record(span, epoch, trigger_of))

        encoded: list[bytes] = []
        # At least half of a batch is for the engine's finished spans; the others can wait.
        quarter = max(1, count // 4)
        encoded += await self._encode_worker_spans(tracer, quarter)
        encoded += [encode(span) for span in tracer.take_pending(quarter)]
        size = sum(map(len, encoded))
        while size < MAX_PART and (chunk := tracer.take(max(0, min(CHUNK, count - len(encoded))))):
            texts = [encode(span) for span in chunk]
            encoded += texts
            size += sum(map(len, texts))
            await asyncio.sleep(0)
        return encoded

    async def _encode_worker_spans(self, tracer: Tracer, count: int) -> list[bytes]:
        encoded: list[bytes] = []
        size = 0
        for number, span in enumerate(tracer.read_worker_spans(), start=1):
            if span is not None:
                span.status_description = self.redact(span.status_description)
                encoded.append(self.redact.cut_out(encode_value(span).decode()).encode())
                size += len(encoded[-1])
            if len(encoded) == count or size > MAX_PART // 4 or number == MAX_WORKER_SPANS:
                break
            if number % CHUNK == 0:
                await asyncio.sleep(0)
        return encoded

    async def _encode_logs(self, count: int) -> list[bytes]:
        encoded: list[bytes] = []
        for number, (report, now) in enumerate(self.logs.take(count, MAX_PART // 2)):
            if (record := log_record(report, now)) is not None:
                encoded.append(encode_value(record))
            if number % CHUNK == CHUNK - 1:
                await asyncio.sleep(0)
        return encoded
