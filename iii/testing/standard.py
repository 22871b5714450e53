"""The standard workers in memory: the modules that `iii dev` runs, on the engine's loop and clock."""

from __future__ import annotations

import math
from collections.abc import Callable
from datetime import UTC, datetime, timedelta

from iii.engine.config.spec import WorkerSpec
from iii.testing.core import Core
from iii.worker.api.options import InitOptions
from iii.worker.worker import Worker
from stdlib_workers.events import Background
from stdlib_workers.storage import KEY_VALUE_SCHEMA, SqliteKeyValue, look_after

# Why the others do not run here, and what a test does instead.
_NOT_IN_MEMORY = {
    "http_functions": "it calls other hosts",
    "bridge": "it connects to another engine",
    "observability": "it exports to other programs",
    "configuration": "it edits iii.toml",
    "mcp": "it serves agents",
    "console": "it serves a page",
}


def start(core: Core, spec: WorkerSpec) -> None:
    """Start the standard worker of `spec`; it serves once the engine has settled.

    OptionError for a wrong config. ValueError for a worker that cannot run in memory.
    """
    starter = _STARTERS.get(str(spec.standard))
    if starter is None:
        raise ValueError(refusal(str(spec.standard)))
    options = InitOptions(worker_name=spec.name, namespace=spec.namespace)
    worker = core.join(options, spec, is_standard=True)
    starter(core, spec, worker)
    worker.ready()


def can_start(name: str) -> bool:
    """Whether a standard worker can run in memory."""
    return name in _STARTERS


def refusal(name: str) -> str:
    """Return the sentence that says why a standard worker is missing here, and the way out."""
    why = _NOT_IN_MEMORY.get(name, f"there are {', '.join(_STARTERS)}")
    return f'iii.testing does not run the standard worker {name} ({why}); fake what you call: iii.fake("{name}::...")'


def _state(core: Core, spec: WorkerSpec, worker: Worker) -> None:
    from stdlib_workers.state.__main__ import options_from, register

    options = options_from(spec.config)
    store = core.store(KEY_VALUE_SCHEMA)
    register(worker, SqliteKeyValue(store), options, Background(loop=core.loop))
    look_after(worker, "state", store)


def _stream(core: Core, spec: WorkerSpec, worker: Worker) -> None:
    from stdlib_workers.stream.__main__ import offer
    from stdlib_workers.stream.options import options_from

    options = options_from(spec.config)
    store = core.store(KEY_VALUE_SCHEMA)
    offer(worker, SqliteKeyValue(store), options, Background(loop=core.loop), core.time)
    look_after(worker, "stream", store)


def _pubsub(_: Core, spec: WorkerSpec, worker: Worker) -> None:
    from stdlib_workers.pubsub.__main__ import register
    from stdlib_workers.pubsub.options import check_options

    check_options(spec.config)
    register(worker)


def _queue(core: Core, spec: WorkerSpec, worker: Worker) -> None:
    from stdlib_workers.queue.__main__ import serve
    from stdlib_workers.queue.broker import Broker
    from stdlib_workers.queue.options import options_from
    from stdlib_workers.queue.schema import SCHEMA

    def clock() -> int:
        return round(core.time() * 1000)

    configs, _ = options_from(spec.config)
    store = core.store(SCHEMA)
    broker = Broker(store, "memory", clock, noise=lambda: 0.5)  # a retry comes exactly when its delay is over
    broker.start(configs)
    look_after(worker, "queue", store)
    core.serve(serve(worker, broker, clock, configs, longest_sleep=math.inf))


def _flow(core: Core, spec: WorkerSpec, worker: Worker) -> None:
    from stdlib_workers.flow.__main__ import register
    from stdlib_workers.flow.options import options_from
    from stdlib_workers.flow.schema import SCHEMA

    store = core.store(SCHEMA)
    options = options_from(spec.config)

    def clock() -> int:
        return round(core.time() * 1000)

    service = register(worker, store, options, clock, longest_timer=math.inf)
    look_after(worker, "flow", store)
    core.flow_runs = service.runs

    async def serve() -> None:
        await service.begin()

    core.serve(serve())


def _cron(core: Core, spec: WorkerSpec, worker: Worker) -> None:
    from stdlib_workers.cron.__main__ import serve, store_in_memory
    from stdlib_workers.cron.job_store import SCHEMA
    from stdlib_workers.cron.scheduler import Time

    class ClockTime(Time):
        """The engine's clock. No other one is set behind its back: a job sleeps until its next tick."""

        longest_sleep = timedelta.max.total_seconds()

        def now(self) -> datetime:
            return datetime.fromtimestamp(core.time(), UTC)

    store_in_memory(spec.config)
    store = core.store(SCHEMA)
    look_after(worker, "cron", store)
    core.serve(serve(worker, store, ClockTime()))


def _http(core: Core, spec: WorkerSpec, worker: Worker) -> None:
    from stdlib_workers.http.channels import Channels
    from stdlib_workers.http.options import parse_options
    from stdlib_workers.http.server import Server

    options = parse_options(dict(spec.config), spec.name)
    server = core.do(lambda: Server(worker, options, None, core.root))
    server.application.channels = Channels(worker.trigger_async, core.open_connection)
    worker.before_stop(server.stop)
    core.wait(server.start())
    core.asgi = server.application


_STARTERS: dict[str, Callable[[Core, WorkerSpec, Worker], None]] = {
    "state": _state,
    "stream": _stream,
    "pubsub": _pubsub,
    "queue": _queue,
    "flow": _flow,
    "cron": _cron,
    "http": _http,
}
