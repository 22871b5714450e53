"""The engine's end of a worker's wire, for tests: in memory, or over the pipes of a real process."""

from __future__ import annotations

import json
import os
import select
import subprocess
import sys
import threading
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from iii.worker.api.options import InitOptions
from iii.worker.runtime.threads import ThreadPool
from iii.worker.transport.base import PairTransport
from iii.worker.transport.stdio import StdioTransport
from iii.worker.worker import Worker

LAUNCHER = Path(__file__).resolve().parents[2] / "iii" / "worker" / "launch.py"
# Every wait has a bound, far beyond what a loaded machine needs.
BOUND = 20.0


class EngineEnd:
    """Sends messages to a worker, and finds its answers in any order."""

    def __init__(self, read: Callable[[], bytes], write: Callable[[bytes], None]) -> None:
        self._read = read
        self._write = write
        self._partial = b""
        self.seen: list[dict[str, Any]] = []

    def send(self, *messages: dict[str, Any]) -> None:
        self.send_raw(b"".join(json.dumps(m, separators=(",", ":")).encode() + b"\n" for m in messages))

    def send_raw(self, data: bytes) -> None:
        self._write(data)

    def invoke(self, function_id: str, data: Any = None, invocation_id: str = "i1", **more: Any) -> None:
        self.send(
            {
                "type": "invokefunction",
                "invocation_id": invocation_id,
                "function_id": function_id,
                "data": data,
                **more,
            }
        )

    def settle(self, call: dict[str, Any], **body: Any) -> None:
        """Answer a call the worker made, with `result=` or `error=`."""
        fields = {"invocation_id": call["invocation_id"], "function_id": call["function_id"]}
        self.send({"type": "invocationresult", **fields, **body})

    def call(self, function_id: str, data: Any = None, invocation_id: str = "i1", **more: Any) -> dict[str, Any]:
        self.invoke(function_id, data, invocation_id, **more)
        return self.result(invocation_id)

    def result(self, invocation_id: str = "i1") -> dict[str, Any]:
        return self.expect("invocationresult", invocation_id=invocation_id)

    def expect(self, kind: str, **fields: Any) -> dict[str, Any]:
        """Return, and remove, the first message of this type with these fields; read until it is there."""
        while True:
            for message in self.seen:
                if message["type"] == kind and fields.items() <= message.items():
                    self.seen.remove(message)
                    return message
            self._fill()

    def _fill(self) -> None:
        data = self._read()
        if not data:
            raise EOFError(f"the worker is gone; seen: {self.seen}")
        *lines, self._partial = (self._partial + data).split(b"\n")
        self.seen += [json.loads(line) for line in lines]


@contextmanager
def pair(
    thread_pool: ThreadPool | None = None, options: InitOptions | None = None
) -> Iterator[tuple[Worker, EngineEnd]]:
    """A connected worker whose threads serve until the block ends."""
    ours, theirs = PairTransport.pair()
    worker = Worker(theirs, options, thread_pool=thread_pool)
    engine = EngineEnd(lambda: ours.read(BOUND) or b"", ours.write)
    worker.ready()
    worker._serve_on_threads()
    try:
        yield worker, engine
    finally:
        ours.close()
        worker.shutdown()


class PipeTransport(StdioTransport):
    """The transport of a supervised worker, in this process: the only one that event loops can read."""

    owns_process = False


@contextmanager
def piped(thread_pool: ThreadPool | None = None) -> Iterator[tuple[Worker, EngineEnd]]:
    """As `pair`, over pipes."""
    worker_reads, we_write = os.pipe()
    we_read, worker_writes = os.pipe()
    worker = Worker(PipeTransport(worker_reads, worker_writes), thread_pool=thread_pool)
    engine = EngineEnd(lambda: _read_within_bound(we_read), lambda data: _write_all(we_write, data))
    worker.ready()
    worker._serve_on_threads()
    try:
        yield worker, engine
    finally:
        os.close(we_write)
        assert worker._dispatcher.ended.wait(BOUND)
        worker.shutdown()
        os.close(we_read)
        os.close(worker_reads)


def _read_within_bound(fd: int) -> bytes:
    readable, _, _ = select.select([fd], [], [], BOUND)
    return os.read(fd, 65536) if readable else b""


def _write_all(fd: int, data: bytes) -> None:
    while data:
        data = data[os.write(fd, data) :]


class Process:
    """A worker's script under the launcher, or by hand."""

    def __init__(self, script: Path, *arguments: str, env: dict[str, str] | None = None, by_hand: bool = False) -> None:
        environment = {**os.environ, "III_URL": "stdio:", "III_PROJECT": str(script.parent), **(env or {})}
        self.child = subprocess.Popen(
            [sys.executable, *([] if by_hand else [str(LAUNCHER)]), str(script), *arguments],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            env=environment,
            bufsize=0,
        )
        assert self.child.stdin is not None
        assert self.child.stdout is not None
        stdout = self.child.stdout.fileno()
        self.engine = EngineEnd(lambda: os.read(stdout, 65536), self.child.stdin.write)  # type: ignore[arg-type]

    def finish(self) -> tuple[int, str]:
        """Close the wire; return exit code and stderr."""
        assert self.child.stdin is not None
        self.child.stdin.close()
        return self.wait()

    def wait(self) -> tuple[int, str]:
        """Return exit code and stderr once the process has ended."""
        assert self.child.stderr is not None
        text = self.child.stderr.read().decode()
        return self.child.wait(BOUND), text

    def close(self) -> None:
        if self.child.poll() is None:
            self.child.kill()
        self.child.wait(BOUND)
        for stream in (self.child.stdin, self.child.stdout, self.child.stderr):
            if stream is not None:
                stream.close()


def in_thread(function: Callable[[], Any]) -> Callable[[], Any]:
    """Run `function` on a thread; returns a function that waits for its result or exception."""
    outcome = []

    def work():
        try:
            outcome.append((function(), None))
        except BaseException as error:  # noqa: BLE001 - the exception is the result here
            outcome.append((None, error))

    thread = threading.Thread(target=work)
    thread.start()

    def result():
        thread.join(BOUND)
        value, error = outcome[0]
        if error is not None:
            raise error
        return value

    return result


def next_call(engine: EngineEnd) -> dict[str, Any]:
    """The worker's next call of a function; its first line, which announces it, is not one."""
    while True:
        call = engine.expect("invokefunction")
        if call["function_id"] != "engine::workers::register":
            return call
