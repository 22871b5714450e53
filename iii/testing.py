"""Test workers without processes: an engine in memory, with its own clock, to which real workers are joined.

`Engine` joins the router of the real engine and the real SDK through memory; a test takes milliseconds. The pytest
fixture `iii` is one. The product does not import this module.
"""

from __future__ import annotations

import runpy
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from threading import RLock
from typing import Any

from iii.engine.routing.payload_schemas import compile_result_schema, compile_schema
from iii.engine.routing.peer import Peer
from iii.engine.routing.router import Router
from iii.errors import RemoteProtocolError
from iii.protocol.codec import decode, decode_value
from iii.worker.api.options import InitOptions
from iii.worker.api.triggers import TriggerConfig
from iii.worker.connect import STAND_IN
from iii.worker.transport.base import NoTransport, PairTransport
from iii.worker.worker import Worker

__all__ = ["Engine", "project"]

# Real seconds after which a call without an answer fails its test.
CALL_TIMEOUT = 20.0


class Engine:
    """An engine in this process, without workers at first, and with a clock that only `advance` moves.

    `now` is its time in seconds from 0. `jobs` holds what was enqueued, as `{"function_id", "data", ...}`, until
    `run_jobs`. The engine is a context manager that shuts its workers down.

        with Engine() as engine:
            engine.load("workers/math.py")
            assert engine.call("math::add", a=2, b=3) == 5
    """

    def __init__(self) -> None:
        self.now = 0.0
        self.jobs: list[dict[str, Any]] = []
        self._router = Router(compile_schema=compile_schema, compile_result_schema=compile_result_schema)
        # The router takes one message at a time, on the thread that sends it. A handler that runs there may send too.
        self._turn = RLock()
        self._workers: list[Worker] = []
        self._modules = set(sys.modules)
        self._folders: list[str] = []
        self._test = self.worker("test", timeout_ms=int(CALL_TIMEOUT * 1000))
        self._test.register_function("engine::queue::enqueue", self.jobs.append)

    # Workers

    def worker(self, name: str = "worker", *, timeout_ms: int | None = None) -> Worker:
        """Return a new worker that is joined to this engine, as `register_worker` returns one of a real engine.

        `timeout_ms` is the deadline of its calls that name none, on the engine's clock.
        """
        return self._join(InitOptions(worker_name=name, invocation_timeout_ms=timeout_ms))

    def load(self, script: str | Path) -> None:
        """Run a worker's script; its `register_worker` returns a worker of this engine.

        The script's folder is on `sys.path` until the engine closes. Exceptions of the script pass through.
        """
        path = Path(script).resolve()
        folder = str(path.parent)
        if folder not in sys.path:
            # Behind the standard library, as the engine's own launcher has it.
            sys.path.append(folder)
            self._folders.append(folder)
        token = STAND_IN.set(lambda options: self._join(options or InitOptions(worker_name=path.stem)))
        try:
            runpy.run_path(str(path), run_name="__main__")
        finally:
            STAND_IN.reset(token)

    def _join(self, options: InitOptions) -> Worker:
        name = options.worker_name or "worker"
        peer = Peer(f"{name} {len(self._workers)}", kind="worker", name=name, namespace=options.namespace or "default")
        worker = Worker(_MemoryTransport(self, peer), options, address="memory:")
        self._workers.append(worker)
        worker._serve_on_threads(at_once=True)
        return worker

    # What a test does

    def call(self, function_id: str, payload: Any = None, /, **fields: Any) -> Any:
        """Call a function with a payload, or with an object of these fields, and return its result.

        InvocationError as any caller gets it; a call without an answer fails after 20 real seconds.
        """
        return self._test.trigger(function_id, fields if fields else payload)

    def fire(self, trigger_type: str, payload: Any = None) -> list[Any]:
        """Fire an event as the provider of the trigger type would: call each bound function whose condition allows it.

        Returns their results in the order of the bindings, None where a condition said no.
        """
        return [self._test.fire(binding, payload) for binding in self.bindings(trigger_type)]

    def bindings(self, trigger_type: str) -> list[TriggerConfig]:
        """Return the bindings of a trigger type, in the order they were made."""
        with self._turn:
            return [
                TriggerConfig(
                    binding.id,
                    binding.function_id,
                    decode_value(binding.config),
                    decode_value(binding.metadata) if len(binding.metadata) else None,
                    binding.namespace,
                )
                for binding in self._router.bindings
                if binding.trigger_type == trigger_type
            ]

    def run_jobs(self) -> list[Any]:
        """Run the enqueued jobs in order, with those that they enqueue; return the results."""
        results = []
        while self.jobs:
            job = self.jobs.pop(0)
            results.append(self.call(job["function_id"], job["data"]))
        return results

    def advance(self, seconds: float) -> None:
        """Move the engine's clock; calls whose deadline is reached end with `TIMEOUT`."""
        with self._routing() as router:
            self.now += seconds
            router.calls.expire(self.now)

    @contextmanager
    def _routing(self) -> Iterator[Router]:
        """Take a turn at the router, and at its end deliver what the router has put into outboxes."""
        with self._turn:
            yield self._router
            calls = self._router.calls
            while calls.dirty:
                dirty, calls.dirty = calls.dirty, []
                for peer in dirty:
                    peer.flush()
            calls.events.clear()

    def close(self) -> None:
        """Shut all workers down, and forget the modules that their scripts have imported from their own folders."""
        for worker in reversed(self._workers):
            worker.shutdown()
        for name in set(sys.modules) - self._modules:
            file = getattr(sys.modules[name], "__file__", None) or ""
            if any(file.startswith(f"{folder}/") for folder in self._folders):
                del sys.modules[name]
        for folder in self._folders:
            sys.path.remove(folder)

    def __enter__(self) -> Engine:
        return self

    def __exit__(self, *_: object) -> None:
        self.close()

    def __repr__(self) -> str:
        return f"<Engine in memory, {len(self._workers) - 1} workers, {self._router!r}>"


class _MemoryTransport(NoTransport):
    """A worker's transport: the engine routes what the worker writes at once; what it gets waits until it reads."""

    def __init__(self, engine: Engine, peer: Peer) -> None:
        self._engine = engine
        self._peer = peer
        self._inbox, self._outbox = PairTransport.pair()
        peer.flush = lambda: self._outbox.write(b"".join(line + b"\n" for line in peer.take_outbox()))
        with engine._routing() as router:
            router.peer_table.attach(peer)

    def read(self, timeout: float | None) -> bytes | None:
        return self._inbox.read(timeout)

    def write(self, data: bytes) -> None:
        """Let the engine route complete lines."""
        with self._engine._routing() as router:
            for line in filter(None, data.split(b"\n")):
                try:
                    message = decode(line)
                except RemoteProtocolError as error:
                    router.calls.refuse(self._peer, error)
                else:
                    router.receive(self._peer, message, line, self._engine.now)

    def reconnect(self) -> bool:
        return False

    def abandon(self) -> None:
        self._inbox.abandon()

    def close(self) -> None:
        """Leave the engine; calls that the worker was running fail."""
        with self._engine._routing() as router:
            if not self._peer.is_gone:
                router.peer_table.detach(self._peer)
        self._inbox.close()


@contextmanager
def project(folder: str | Path = ".") -> Iterator[Engine]:
    """An engine with every Python worker of the project in `folder` or above it, closed at the end of the `with`.

    TOMLDecodeError for an iii.toml that is not TOML; exceptions of the scripts pass through.
    """
    import tomllib  # tests of single workers need none

    start = Path(folder).resolve()
    with Engine() as engine:
        root = next((place for place in (start, *start.parents) if (place / "iii.toml").is_file()), None)
        if root is not None:
            workers = tomllib.loads((root / "iii.toml").read_text(encoding="utf-8")).get("workers", {})
            runs = [str(worker.get("run", "")) for worker in workers.values()]
            for run in runs:
                if run.endswith(".py") and " " not in run:
                    engine.load(root / run)
        yield engine
