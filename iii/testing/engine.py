"""`Engine`: what a test holds. Calls, time, requests and fakes; what runs them is in `core`."""

from __future__ import annotations

import asyncio
import os
import runpy
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping
from contextlib import contextmanager
from datetime import UTC, datetime
from graphlib import TopologicalSorter
from pathlib import Path
from typing import TYPE_CHECKING, Any

from iii.durations import parse_duration
from iii.engine.config.environment import environment_of
from iii.engine.config.project import find_project, load_project
from iii.engine.config.spec import ProjectSpec, WorkerSpec
from iii.errors import ErrorCode, InvocationError
from iii.protocol.codec import decode_value
from iii.testing import flows, standard, traces
from iii.testing.core import CALL_TIMEOUT, TEST, Core
from iii.testing.fakes import Fake
from iii.testing.flows import FlowRun
from iii.worker.api.options import InitOptions
from iii.worker.api.triggers import TriggerConfig
from iii.worker.connect import STAND_IN
from iii.worker.context.invocation import current_invocation
from iii.worker.functions.handler import handler_from
from iii.worker.worker import Worker

if TYPE_CHECKING:
    from typing import Literal, overload

    from iii.testing.http import HttpClient
    from iii.worker.api.requests import TriggerRequestInput

    StandardWorker = Literal["state", "stream", "queue", "flow", "pubsub", "cron", "http"]

# What the clock shows at first, the same in every run: a test must not depend on the hour at which it runs.
START = datetime(2026, 1, 1, tzinfo=UTC)


class Engine:
    """An engine in this process, with a clock that only `advance` moves.

    It has no workers at first but the standard workers that are named: `Engine(["state"])`, or with the config that
    iii.toml would give them, `Engine({"queue": {"queue_configs": {"mail": {}}}})`. `now` is what its clock shows at
    first. Every method returns when all that it has caused is over: events are delivered, jobs that are due have run.
    Each has an `_async` twin for `await`. The engine is a context manager that ends everything it has started.

        with Engine(["queue"]) as engine:
            engine.load("workers/math.py")
            assert engine.call("math::add", a=2, b=3) == 5
    """

    def __init__(
        self, standard_workers: Iterable[str] | Mapping[str, Mapping[str, Any]] = (), *, now: datetime = START
    ) -> None:
        self._core = Core(now.timestamp())
        self._absent: list[str] = []
        self._http: HttpClient | None = None
        self._modules = set(sys.modules)
        self._folders: list[str] = []
        self._variables: list[str] = []
        self._test = self.worker(TEST, timeout_ms=int(CALL_TIMEOUT * 1000))
        try:
            for name in standard_workers:
                config = standard_workers[name] if isinstance(standard_workers, Mapping) else {}
                self.start(name, config)
        except BaseException:
            self.close()
            raise

    # Workers

    def worker(self, name: str = "worker", *, timeout_ms: int | None = None) -> Worker:
        """Return a new worker that is joined to this engine, as `register_worker` returns one of a real engine.

        `timeout_ms` is the deadline of its calls that name none, on the engine's clock.
        """
        worker = self._core.join(InitOptions(worker_name=name, invocation_timeout_ms=timeout_ms))
        worker.ready()
        return worker

    if TYPE_CHECKING:

        @overload
        def start(self, name: StandardWorker, config: Mapping[str, Any], /) -> None: ...
        @overload
        def start(self, name: str, payload: Any = None, /, *, id: str | None = None, **fields: Any) -> FlowRun: ...

    def start(self, name: str, payload: Any = None, /, *, id: str | None = None, **fields: Any) -> Any:
        """Start a run of a flow with a payload, or with an object of these fields, and return its `FlowRun`.

        With the name of a standard worker (state, stream, queue, flow, pubsub, cron or http) start that, with its data
        in memory; the payload is then the table `[workers.NAME.config]` of iii.toml. ValueError for a wrong config, and
        for a standard worker that cannot run in memory.

            run = iii.start("orders::fulfil", order_id="7", amount=5)
            run.signal("approved", {"by": "ada"})
            assert run.result(skip=True) == "sent"
        """
        if "::" in name:
            data = fields if fields else payload
            started = self.call("flow::start", {"function_id": name, "payload": data, "id": id})
            return FlowRun(self, self._core.flow_runs, started["run"])
        standard.start(self._core, WorkerSpec(name, self._core.root, standard=name, config=payload or {}))
        self.settle()
        return None

    def load(self, script: str | Path) -> None:
        """Run a worker's script; its `register_worker` returns a worker of this engine.

        The script's folder is on `sys.path` until the engine closes. Exceptions of the script pass through.
        """
        self._load(Path(script).resolve(), None)

    def _load(self, path: Path, spec: WorkerSpec | None) -> None:
        folder = str(path.parent)
        if folder not in sys.path:
            # Behind the standard library, as the engine's own launcher has it.
            sys.path.append(folder)
            self._folders.append(folder)
        made: list[Worker] = []

        def join(options: InitOptions | None) -> Worker:
            if not made:
                options = options or InitOptions(worker_name=path.stem)
                if spec is not None:
                    options = InitOptions(
                        spec.name, None, spec.namespace, invocation_timeout_ms=options.invocation_timeout_ms
                    )
                made.append(self._core.join(options, spec))
            return made[0]

        token = STAND_IN.set(join)
        try:
            runpy.run_path(str(path), run_name="__main__")
        finally:
            STAND_IN.reset(token)
        for worker in made:
            worker.ready()
        self.settle()

    # What a test does

    def call(self, function_id: str, payload: Any = None, /, **fields: Any) -> Any:
        """Call a function with a payload, or with an object of these fields, and return its result.

        InvocationError as any caller gets it, with the handler's traceback and the trace as notes; a call without an
        answer fails after 20 real seconds.
        """
        with self._settled():
            return self._test.trigger(function_id, fields if fields else payload)

    async def call_async(self, function_id: str, payload: Any = None, /, **fields: Any) -> Any:
        """As `call`, for `await`."""
        return await asyncio.to_thread(self.call, function_id, payload, **fields)

    def enqueue(self, function_id: str, payload: Any = None, *, queue: str = "default", **options: Any) -> str:
        """Put a call into a queue and return its receipt; `options` are those of an enqueue, such as `delay_ms`.

        `metadata` among them goes along with the job, beside its payload. ValueError for `wait`: its answer is no
        receipt.
        """
        if options.get("wait"):
            raise ValueError("enqueue returns the receipt; let a function of a worker enqueue with wait, and call that")
        metadata = options.pop("metadata", None)
        action = {"type": "enqueue", "queue": queue, **options}
        request: TriggerRequestInput = {"function_id": function_id, "payload": payload, "action": action}
        with self._settled():
            result = self._test.trigger({**request, "metadata": metadata})
        return str(result.messageReceiptId)

    async def enqueue_async(
        self, function_id: str, payload: Any = None, *, queue: str = "default", **options: Any
    ) -> str:
        """As `enqueue`, for `await`."""
        return await asyncio.to_thread(self.enqueue, function_id, payload, queue=queue, **options)

    def fire(self, trigger_type: str, payload: Any = None) -> list[Any]:
        """Fire an event as the provider of the trigger type would: call each bound function whose condition allows it.

        Returns their results in the order of the bindings, None where a condition said no.
        """
        with self._settled():
            return [self._test.fire(binding, payload) for binding in self.bindings(trigger_type)]

    async def fire_async(self, trigger_type: str, payload: Any = None) -> list[Any]:
        """As `fire`, for `await`."""
        return await asyncio.to_thread(self.fire, trigger_type, payload)

    def bindings(self, trigger_type: str) -> list[TriggerConfig]:
        """Return the bindings of a trigger type, in the order they were made."""
        return self._core.do(
            lambda: [
                TriggerConfig(
                    binding.id,
                    binding.function_id,
                    decode_value(binding.config),
                    decode_value(binding.metadata) if len(binding.metadata) else None,
                    binding.namespace,
                )
                for binding in self._core.router.bindings
                if binding.trigger_type == trigger_type
            ]
        )

    @property
    def http(self) -> HttpClient:
        """A client of the http worker: `iii.http.get("/orders/7").json()`."""
        from iii.testing.http import HttpClient  # httpx takes a tenth of a second, and few tests need it

        self._http = self._http or HttpClient(self._core)
        return self._http

    def fake(
        self,
        function_id: str,
        function: Callable[[Any], Any] | None = None,
        *,
        returns: Any = None,
        raises: BaseException | type[BaseException] | None = None,
    ) -> Fake:
        """Let a function return a value, raise an error, or call `function(payload)`, whoever calls it.

        A function that a worker has registered is replaced, and its schemas still hold for the fake; one that nobody
        has registered exists from now on. `fake.calls` is the list of the payloads that it was called with.

            charge = iii.fake("stripe::charge", returns={"id": "ch_1"})
            iii.call("shop::order", item="tea")
            assert charge.calls == [{"amount": 3}]
        """
        fake = Fake(function_id, function, returns=returns, raises=raises)
        for worker in self._core.workers:
            if function_id in worker._receiver.functions:
                worker._receiver.functions[function_id] = handler_from(function_id, fake.handler)
                return fake
        self._test.register_function(function_id, fake.handler)
        self.settle()
        return fake

    # Time

    @property
    def now(self) -> datetime:
        """What the engine's clock shows, in UTC. `datetime.now()` of the project's own code does not follow it."""
        return datetime.fromtimestamp(self._core.time(), UTC)

    def advance(self, duration: str | float) -> None:
        """Move the clock by seconds, or by a duration like `"10s"`, `"1.5h"` or `"1d"`.

        What becomes due meanwhile happens in order, each at its own time: ticks of cron, retries and delays of queues,
        deadlines of calls, timeouts of requests. ValueError for what is no duration.
        """
        seconds = parse_duration(duration) if isinstance(duration, str) else duration
        if seconds < 0:
            raise ValueError(f"the clock does not go back, and {duration!r} is negative")
        self._core.advance(seconds)

    async def advance_async(self, duration: str | float) -> None:
        """As `advance`, for `await`."""
        await asyncio.to_thread(self.advance, duration)

    # Flows

    def crash_test(self, function_id: str, payload: Any = None, *, events: Mapping[str, Any] | None = None) -> int:
        """Make a run of a flow, then one more for each of its steps that dies right after it; return how many.

        Every run must end as the first. `events` are sent to each at its start. AssertionError names the step behind
        which a run takes another way.
        """
        return flows.crash_test(self, self._core.flow_runs, function_id, payload, events or {})

    def check_history(self, file: str | Path) -> None:
        """Call a flow's function against a journal of `iii flow export`. AssertionError says where they part."""
        flows.check_history(self, file)

    def settle(self) -> None:
        """Wait until all that was caused so far is over, for a test that calls a worker's own methods.

        A handler that waits for the clock, or for ever, is given up after a second of silence. TimeoutError when the
        engine does not come to rest in 20 real seconds.
        """
        # A handler that uses the engine itself is part of what would be waited for.
        if current_invocation() is None:
            self._core.settle()

    async def settle_async(self) -> None:
        """As `settle`, for `await`."""
        await asyncio.to_thread(self.settle)

    @contextmanager
    def _settled(self) -> Iterator[None]:
        """Settle behind a call, and give its error the handler's traceback and the trace as notes."""
        try:
            yield
        except InvocationError as error:
            self.settle()
            for note in self._notes(error):
                error.add_note(note)
            raise
        self.settle()

    def _notes(self, error: InvocationError) -> Iterator[str]:
        if error.stacktrace:
            yield f"The handler's traceback:\n{error.stacktrace.rstrip()}"
        spans = self._core.do(lambda: list(self._core.spans))
        ids = {span.trace_id for span in spans if span.invocation_id == error.invocation_id}
        tree = traces.tree_lines(span for span in spans if span.trace_id in ids)
        if len(tree) > 1:
            yield "The trace:\n" + "\n".join(f"  {line}" for line in tree)
        if error.code == ErrorCode.FUNCTION_NOT_FOUND and self._absent:
            yield "\n".join(self._absent)

    # What has happened

    @property
    def failures(self) -> list[str]:
        """The failures that no caller has heard of (of jobs, ticks, events and void calls), as `iii dev` shows them."""
        return self._core.do(lambda: ["\n".join(traces.failure_text([each])) for each in self._core.failures])

    def report(self) -> str:
        """Return all calls as trees, and the failures that no caller has heard of: pytest shows it of a failed test."""
        tree = traces.tree_lines(self._core.do(lambda: list(self._core.spans)))
        parts = [*tree, *(("", "Failures that no caller waited for:") if self.failures else ()), *self.failures]
        return "\n".join(parts)

    # The end

    def close(self) -> None:
        """End all workers, and forget the modules that scripts have imported from their own folders.

        RuntimeError when a handler still runs: its thread cannot be ended from outside.
        """
        if self._http is not None:
            self._http.close()
        try:
            self._core.close()
        finally:
            for name in set(sys.modules) - self._modules:
                file = getattr(sys.modules[name], "__file__", None) or ""
                if any(file.startswith(f"{folder}/") for folder in self._folders):
                    del sys.modules[name]
            for folder in self._folders:
                sys.path.remove(folder)
            for variable in self._variables:
                os.environ.pop(variable, None)

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Engine in memory, {len(self._core.workers) - 1} workers, {self._core!r}>"

    def _run(self, project: ProjectSpec) -> None:
        """Start the project's standard workers, then its scripts, each behind those that it names in `after`."""
        self._core.root = project.root
        self._core.router.calls.timeout = project.engine.invocation_timeout
        order = TopologicalSorter({name: spec.after for name, spec in project.workers.items()}).static_order()
        specs = sorted((project.workers[name] for name in order), key=lambda spec: spec.standard is None)
        for spec in specs:
            if spec.script is not None:
                self._take_variables(spec, project)
                self._load(spec.script, spec)
            elif spec.standard is None:
                text = f"iii.testing does not run the worker {spec.name} (it is no Python script)"
                self._absent.append(f'{text}; fake what you call: iii.fake("{spec.name}::...")')
            elif standard.can_start(spec.standard):
                standard.start(self._core, spec)
            else:
                self._absent.append(standard.refusal(spec.standard))
        self.settle()

    def _take_variables(self, spec: WorkerSpec, project: ProjectSpec) -> None:
        """Set what iii.toml and the .env files give a worker, until the engine closes; what is set already stays."""
        shell = {name: value for name, value in os.environ.items() if name not in self._variables}
        for name, (value, source) in environment_of(spec, project, shell).items():
            if source in ("shell", "reserved"):
                continue
            if name not in self._variables:
                os.environ[name] = value
                self._variables.append(name)
            elif os.environ.get(name) != value:
                text = f"iii.testing: the worker {spec.name} gets another worker's {name}, as both are in this process"
                sys.stderr.write(f"{text}\n")


@contextmanager
def project(folder: str | Path = ".", *, now: datetime = START) -> Iterator[Engine]:
    """An engine with the standard workers and the Python workers of the project in `folder` or above it.

    It is closed at the end of the `with`. ProjectError for a wrong iii.toml; exceptions of the scripts pass through.
    """
    file = find_project(Path(folder).resolve())
    with Engine(now=now) as engine:
        if file is not None:
            engine._run(load_project(file, environ=os.environ))
        yield engine
