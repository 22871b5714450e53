"""The engine in memory: the parts of the real one, on a loop of their own whose clock only a test moves.

Router, message pump and `engine::*` are those of `iii dev`. Everything that the engine and the standard workers do
happens on this one loop, in order; only the project's own code runs on other threads.
"""

from __future__ import annotations

import asyncio
import random
import socket
import sys
import time
import uuid
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from pathlib import Path
from threading import Event, Thread, get_ident
from typing import Any, TypeVar

from iii.engine.builtins.functions import Builtins
from iii.engine.builtins.observers import start_observing
from iii.engine.channels.channel import Channels
from iii.engine.channels.unix_endpoint import UnixChannelEnd, request_in
from iii.engine.config.spec import WorkerSpec
from iii.engine.failed_calls import FailedCalls
from iii.engine.routing import events
from iii.engine.routing.payload_schemas import compile_result_schema, compile_schema
from iii.engine.routing.peer import Peer
from iii.engine.routing.router import Router
from iii.engine.routing.tracer import Span, Tracer
from iii.engine.supervision.reports import CallFailed
from iii.engine.tracing.sampling import Sampler, Sampling
from iii.engine.transport.message_pump import MessagePump
from iii.errors import ErrorCode, InvocationError
from iii.protocol.codec import encode
from iii.protocol.messages import Stop
from iii.testing.connection import MemoryTransport, MemoryWorker, SharedLoop
from iii.testing.loops import Activity, ClockLoop, WatchedLoop
from iii.worker.api.options import InitOptions
from iii.worker.runtime.threads import LoopThread, ThreadPool
from iii.worker.worker import Worker
from stdlib_workers.storage import Schema, Store

T = TypeVar("T")

# Real seconds after which a call without an answer, or an engine that never rests, fails its test.
CALL_TIMEOUT = 20.0
# Real seconds: a handler that still runs when nothing else has happened for so long waits for the clock, or for ever.
HANDLER_PATIENCE = 1.0
# Real seconds for a standard worker's orderly end.
STOP_TIMEOUT = 2.0
# Spans and failed calls that are kept for the report of a failing test.
MAX_KEPT = 10_000
_LINE = 4096  # bytes: what opens an end of a channel is short
_LOOK_INTERVAL = 0.002  # a part may come to rest between two looks without a word


class Core:
    """One engine. `start` is what its clock shows at first, in seconds since the epoch. Methods are for any thread."""

    def __init__(self, start: float) -> None:
        self.start = start
        self.root = Path.cwd()
        self.failures: deque[CallFailed] = deque(maxlen=MAX_KEPT)
        self.spans: deque[Span] = deque(maxlen=MAX_KEPT)
        self.asgi: Any = None  # the http worker's application
        self.flow_runs: Any = None  # the flow worker's
        self._stores: list[Store] = []
        self.standard: dict[str, str] = {}  # the standard worker that a worker is, by name
        self.activity = Activity()
        self.loop = ClockLoop(self.activity)
        self._pool = ThreadPool()
        self.workers: list[MemoryWorker] = []
        self._serving: set[asyncio.Task[None]] = set()
        self._hanging: set[str] = set()
        self._ends: set[UnixChannelEnd] = set()
        started = Event()
        self.loop.call_soon(started.set)
        self._thread = Thread(target=self.loop.run_forever, name="iii-engine-in-memory", daemon=True)
        self._thread.start()
        started.wait()
        self.do(self._make)

    def _make(self) -> None:
        self.router = router = Router(compile_schema=compile_schema, compile_result_schema=compile_result_schema)
        self._failed_calls = FailedCalls(
            router.bindings, standard_of=self.standard.get, redact=lambda text: text, clock=time.monotonic
        )
        self._pump = MessagePump(router, on_event=self._on_event, on_output=lambda *_: None)
        self._builtins = Builtins(router, self, self._pump.turn, announce_debounce=0.0)
        self._channels = Channels(mint=lambda: str(uuid.uuid4()), clock=self.loop.time, budget=router.calls.budget)
        self._builtins.serve("engine::channels::create", self._channels.answer, "Make a channel for a stream of data")
        self._observing = start_observing(
            router, self._builtins, self._pump.turn, compile_schema=compile_schema, wall_clock=self.time
        )
        tracer = Tracer(
            Sampler(Sampling()),
            router.calls.in_flight,
            mint=random.Random().getrandbits,
            clock=time.monotonic,
            on_finished=self._keep_spans_soon,
            on_state_changed=router.choose_path,
        )
        self._tracer = tracer
        router.trace(tracer)

    def __repr__(self) -> str:
        return repr(self.router)

    # The loop

    def is_current(self) -> bool:
        """Whether the calling code runs on the engine's loop."""
        return get_ident() == self._thread.ident

    def do(self, work: Callable[[], T]) -> T:
        """Return the result of `work()` on the loop."""

        async def run() -> T:
            return work()

        return self.wait(run())

    def wait(self, work: Coroutine[Any, Any, T], timeout: float | None = None) -> T:
        """Run a coroutine on the loop and return its result."""
        return asyncio.run_coroutine_threadsafe(work, self.loop).result(timeout)

    def wait_moving(self, work: Coroutine[Any, Any, T]) -> T:
        """As `wait`; while nothing else happens at all, the clock moves to the next timer, which alone can go on.

        TimeoutError after 20 real seconds.
        """
        result = asyncio.run_coroutine_threadsafe(work, self.loop)
        give_up = time.monotonic() + CALL_TIMEOUT
        while not result.done():
            self.activity.wait(_LOOK_INTERVAL)
            if self._is_at_rest() and not self.router.calls.in_flight and not result.done():
                due = self.do(self.loop.next_timer)
                if due is not None:
                    self._move(due)
            if time.monotonic() > give_up:
                result.cancel()
                raise TimeoutError
        return result.result()

    def serve(self, work: Coroutine[Any, Any, None]) -> None:
        """Let a standard worker run on the loop until the engine closes; `settle` raises what ends it earlier."""
        self.do(lambda: self._serving.add(self.loop.create_task(work)))

    # Workers

    def store(self, schema: Schema) -> Store:
        """Return a new store in memory, which ends with this engine."""
        store = Store(None, schema)
        self._stores.append(store)
        return store

    def join(self, options: InitOptions, spec: WorkerSpec | None = None, *, is_standard: bool = False) -> Worker:
        """Return a new worker that is joined to this engine."""
        name = options.worker_name or "worker"
        peer = Peer(
            str(uuid.uuid4()),
            kind="worker",
            name=name,
            namespace=options.namespace or "default",
            concurrency=None if spec is None else spec.concurrency,
        )
        if spec is not None:
            peer.owner.is_validated = spec.validate
        transport = MemoryTransport(peer, self.loop, self._route, self._leave, self.activity)
        self.do(lambda: self._attach(peer))
        own_loop = LoopThread(lambda *_: None, lambda: WatchedLoop(self.activity))
        loop = SharedLoop(self.loop, self.is_current) if is_standard else own_loop
        config: Mapping[str, Any] = {} if spec is None else spec.config
        worker = MemoryWorker(transport, options, config, self.connect, thread_pool=self._pool, loop=loop)
        if name != TEST:
            # The answers of the test's own calls are read by its thread, which waits for nothing else.
            self.activity.watch(transport.seen)
        if is_standard:
            self.standard.setdefault(name, spec.standard or name if spec else name)
        self.workers.append(worker)
        worker._dispatcher.watch()
        return worker

    def _attach(self, peer: Peer) -> None:
        self.router.peer_table.attach(peer)
        self._pump.turn()

    def _route(self, peer: Peer, data: bytes) -> None:
        if not peer.is_gone:
            self._pump.take(peer, list(filter(None, data.split(b"\n"))))
            self._pump.turn()

    def _leave(self, peer: Peer) -> None:
        if not peer.is_gone:
            self.router.peer_table.detach(peer)
            self._pump.turn()

    # Channels

    def connect(self) -> socket.socket:
        """Return a connection to the engine, for an end of a channel."""
        ours, theirs = socket.socketpair()
        ours.setblocking(False)
        asyncio.run_coroutine_threadsafe(self._open_end(ours), self.loop)
        return theirs

    async def open_connection(self, *, limit: int) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        """As `connect`, for code on the loop; `limit` as of `asyncio.open_connection`."""
        return await asyncio.open_connection(sock=self.connect(), limit=limit)

    async def _open_end(self, connected: socket.socket) -> None:
        line = b""
        while not line.endswith(b"\n"):
            line += (part := await self.loop.sock_recv(connected, _LINE))
            if not part:
                connected.close()
                return
        end = UnixChannelEnd(connected.detach(), self._ends.discard, self.loop)
        self._ends.add(end)
        request = request_in([line[:-1]])
        channel = None if request is None else self._channels.find(request.channel_id, request.access_key)
        if request is None or channel is None:
            end.reject(ErrorCode.NOT_FOUND, "Channel not found")
        else:
            end.open(channel, "read" if request.direction == "read" else "write")

    # What the engine tells

    def _on_event(self, event: events.Event) -> None:
        if isinstance(event, events.FunctionsChanged | events.WorkersChanged):
            self._builtins.on_event(event)
        elif isinstance(event, events.CallFailed):
            report = self._failed_calls.report_of(event, self.root)
            if report is not None:
                self.failures.append(report)
        elif isinstance(event, events.PeerExpelled):
            self._leave(event.peer)
        elif isinstance(event, events.Notice):
            sys.stderr.write(f"iii: {event.peer_name}: {event.text}\n")

    def _keep_spans_soon(self) -> None:
        self.loop.call_soon(self._keep_spans)

    def _keep_spans(self) -> None:
        self.spans.extend(self._tracer.take(MAX_KEPT))

    # `Control` for the engine's own functions: there are no processes

    def rows(self) -> list[dict[str, Any]]:
        """Return no rows: nothing is supervised."""
        return []

    async def start_worker(self, name: str) -> list[dict[str, Any]]:
        """Refuse."""
        text = f"{name} is no process under iii.testing; load its script into an engine of its own instead"
        raise InvocationError("not_supported", text)

    stop_worker = restart_worker = start_worker

    def counters(self) -> dict[str, int]:
        """Return how many messages were dropped or refused, by cause."""
        return dict(self.router.calls.counters)

    def health(self) -> dict[str, Any]:
        """Return that everything is there: what a test has loaded is."""
        return {"status": "ready", "workers": []}

    def adopt(self, *_: object) -> bool:
        """Every worker is this process's, under the name that it has got here."""
        return True

    def identified(self, peer: Peer) -> None:
        """Take note of what the worker knows."""
        self._observing.identified(peer)

    # Time and rest

    def settle(self) -> None:
        """Wait until everything that was caused so far has ended: calls, events, jobs that are due.

        What waits for the clock has not ended, and is not waited for. TimeoutError when there is no end.
        """
        give_up = time.monotonic() + CALL_TIMEOUT
        last, since = None, 0.0
        while True:
            seen = self._is_at_rest()
            if seen is not None:
                running = [id for id in list(self.router.calls.in_flight) if id not in self._hanging]
                if not running:
                    break
                if seen != last:
                    last, since = seen, time.monotonic()
                elif time.monotonic() - since > HANDLER_PATIENCE:
                    self._hanging.update(running)
                    break
            if time.monotonic() > give_up:
                running = [call.function.id for call in list(self.router.calls.in_flight.values())]
                raise TimeoutError(f"the engine did not come to rest in {CALL_TIMEOUT:g} s; there run: {running}")
            self.activity.wait(_LOOK_INTERVAL)
        for task in tuple(self._serving):
            if task.done() and not task.cancelled():
                task.result()

    def _is_at_rest(self) -> list[int] | None:
        """Return what all parts have seen if none of them works, None if one does. Waits for the stores' commands."""
        seen = self.activity.seen()
        if seen is None:
            return None
        for store in self._stores:
            try:
                store.run(lambda _: None).result(CALL_TIMEOUT)
            except InvocationError:
                continue  # it is closed
        return seen if self.activity.seen() == seen else None

    def advance(self, seconds: float) -> None:
        """Move the clock; what becomes due happens one after the other, each at its own time."""
        self.settle()
        end = self.loop.now + seconds
        while (due := self.do(self.loop.next_timer)) is not None and due <= end:
            self._move(due)
        self._move(end)

    def _move(self, now: float) -> None:
        def move() -> None:
            self.loop.now = now

        self.do(move)
        self.settle()

    def time(self) -> float:
        """Return the seconds since the epoch that the clock shows."""
        return self.start + round(self.loop.now, 6)

    # The end

    def close(self) -> None:
        """End everything: the project's workers first, then the standard ones as a stop of the engine ends them.

        RuntimeError when a handler still runs: its thread cannot be ended from outside.
        """
        running = {call.function.id for call in list(self.router.calls.in_flight.values())}
        standard = [worker for worker in self.workers if worker._options.worker_name in self.standard]
        for worker in reversed(self.workers):
            if worker not in standard:
                worker.shutdown()
        try:
            self.settle()
        finally:
            self.do(self._stop_standard)
            for worker in standard:
                worker._dispatcher.ended.wait(STOP_TIMEOUT)
                worker.shutdown()
            for store in self._stores:
                store.close()
            self.wait(self._cancel_tasks())
            self.loop.call_soon_threadsafe(self.loop.stop)
            self._thread.join()
            self.loop.close()
            self._pool.close()
        end = time.monotonic() + HANDLER_PATIENCE
        while self._pool.size and time.monotonic() < end:
            self.activity.wait(_LOOK_INTERVAL)
        if self._pool.size:
            what = ", ".join(sorted(running)) or "a handler"
            raise RuntimeError(f"{what} still runs after the test, and a thread cannot be ended from outside")

    def _stop_standard(self) -> None:
        for peer in list(self.router.peer_table.peers.values()):
            if peer.name in self.standard:
                self.router.calls.send(peer, encode(Stop(STOP_TIMEOUT * 1000)))
        self._pump.turn()

    async def _cancel_tasks(self) -> None:
        self._builtins.close()
        self._pump.close()
        for end in list(self._ends):
            end.close()
        tasks = asyncio.all_tasks() - {asyncio.current_task()}
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        await self.loop.shutdown_asyncgens()
        await self.loop.shutdown_default_executor()


# The name of the worker that makes the test's own calls.
TEST = "test"
