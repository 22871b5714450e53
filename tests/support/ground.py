"""The ground of the fault tests: a real `iii dev` in a fresh folder, a canary, and the laws checked at the end.

A test declares workers, starts the engine, injects its fault and checks its row. Meanwhile a thread calls the canary
worker over the unix socket all the time. `close` stops the engine and checks what no fault may break: the canary had
no error, nothing of this run is left, descriptors and threads of the engine are back, the engine wrote no traceback.
"""

from __future__ import annotations

import contextlib
import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import Future
from pathlib import Path
from typing import Any, TypeVar

from cli.client.connection import Connection, connect
from iii.engine.boot.stale_processes import of_runs
from iii.engine.supervision import procfs

ROOT = Path(__file__).resolve().parents[2]
# Every wait has a bound, far beyond what a loaded machine needs.
BOUND = 30.0
# The watcher's thread and descriptors and the engine's two pool threads may open after the baseline was taken.
LATE = 4
PAUSE = 0.01  # between two looks at something that announces nothing, such as /proc

CANARY = """
    from iii import InitOptions, register_worker

    worker = register_worker(options=InitOptions(worker_name="canary"))
    worker.register_function("canary::sing", lambda payload: payload)
"""
SDK = "from iii import InitOptions, register_worker\nworker = register_worker()\n"
# The head of a program that speaks the protocol by itself; `take()` returns the next call, and leaves when asked to.
BARE = """
import json, os, sys, time
def send(**message): os.write(1, json.dumps(message).encode() + b"\\n")
def take():
    for line in iter(sys.stdin.buffer.readline, b""):
        message = json.loads(line)
        if message["type"] == "invokefunction": return message
        if message["type"] == "stop": break
    sys.exit(0)
def offer(*function_ids):
    for function_id in function_ids: send(type="registerfunction", id=function_id)
def answer(call, result): send(type="invocationresult", invocation_id=call["invocation_id"], result=result)
"""

T = TypeVar("T")


def eventually(look: Callable[[], T], bound: float = BOUND) -> T:
    """Return the first true value of `look()`; fail after `bound` seconds."""
    deadline = time.monotonic() + bound
    while not (value := look()):
        assert time.monotonic() < deadline, f"did not happen within {bound:.0f} s: {look}"
        time.sleep(PAUSE)  # between two looks
    return value


class Ground:
    """One project in `folder` and the engine that runs it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.shown: list[str] = []  # what `iii dev` showed, line by line
        self._shown_more = threading.Condition()
        self._tables: dict[str, str] = {}
        self._guard: subprocess.Popen[str] | None = None
        self._readers: list[threading.Thread] = []
        self.complaints: list[str] = []  # what the engine wrote to stderr
        self.head = '[engine]\nlisten = "off"\n'
        self.laws: set[str] = {"canary", "descriptors", "traceback", "exit"}  # a test that breaks one itself drops it
        self._canary = Canary(self)
        self._baseline = (0, 0)
        self._run_ids: set[str] = set()
        self.worker("canary", CANARY)

    # The project

    def worker(self, name: str, source: str, **keys: Any) -> Path:
        """Declare a Python worker; `keys` are further keys of its table. Takes effect when iii.toml is written."""
        return self._declare(name, source, **{"run": f"workers/{name}.py", **keys})

    def program(self, name: str, source: str, **keys: Any) -> Path:
        """Declare a program that speaks the protocol without the SDK (or does not speak it at all)."""
        run = f"{sys.executable} workers/{name}.py"
        return self._declare(name, BARE + textwrap.dedent(source), **{"run": run, **keys})

    def _declare(self, name: str, source: str, **keys: Any) -> Path:
        rows = [f"{key} = {json.dumps(value, ensure_ascii=False)}" for key, value in keys.items()]
        self._tables[name] = "\n".join([f"[workers.{name}]", *rows, ""])
        return self.write(f"workers/{name}.py", source)

    def write(self, name: str, text: str) -> Path:
        """Write a file of the project."""
        path = self.folder / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(textwrap.dedent(text), encoding="utf-8")
        return path

    def write_project(self) -> Path:
        """Write iii.toml as declared so far."""
        return self.write("iii.toml", self.head + "\n".join(self._tables.values()))

    # The engine

    def start(self, *words: str, prefix: tuple[str, ...] = (), **environment: str) -> Ground:
        """Run `iii dev WORDS...` until it is ready, and start the canary."""
        self.launch(*words, prefix=prefix, **environment)
        self.await_line("ready in")
        self.facts()
        self.call("canary::sing", 1)
        self._baseline = self.burden()
        self._canary.start()
        return self

    def launch(self, *words: str, prefix: tuple[str, ...] = (), **environment: str) -> subprocess.Popen[str]:
        """Run `iii dev WORDS...` and read what it shows. Does not wait for it."""
        self.write_project()
        command = [*prefix, sys.executable, "-m", "cli.main", *(words or ("dev",))]
        self._guard = subprocess.Popen(
            command,
            cwd=self.folder,
            env=clean_environment(**environment),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
            errors="surrogateescape",
        )
        self._readers = [
            threading.Thread(target=self._read, args=(self._guard.stdout, self.shown)),
            threading.Thread(target=self._read, args=(self._guard.stderr, self.complaints)),
        ]
        for reader in self._readers:
            reader.start()
        return self._guard

    def _read(self, stream: Any, into: list[str]) -> None:
        with stream:
            for line in stream:
                with self._shown_more:
                    into.append(line)
                    self._shown_more.notify_all()

    def await_line(self, text: str, after: int = 0, bound: float = BOUND) -> str:
        """Return the first shown line from number `after` on that contains `text`."""

        def found() -> str | None:
            return next((line for line in self.shown[after:] + self.complaints if text in line), None)

        with self._shown_more:
            self._shown_more.wait_for(found, bound)
            line = found()
        assert line is not None, f"never shown: {text}\n{self.output}"
        return line

    @property
    def output(self) -> str:
        """All that was shown so far."""
        return "".join([*self.shown, *self.complaints])

    def facts(self) -> dict[str, Any]:
        """Return engine.json of the running engine."""
        facts: dict[str, Any] = json.loads((self.folder / ".iii/run/engine.json").read_text())
        self._run_ids.add(facts["run_id"])
        return facts

    @property
    def engine_pid(self) -> int:
        return int(self.facts()["pid"])

    @property
    def guard(self) -> subprocess.Popen[str]:
        assert self._guard is not None
        return self._guard

    def burden(self) -> tuple[int, int]:
        """Return how many descriptors and threads the engine has."""
        pid = self.engine_pid
        return len(os.listdir(f"/proc/{pid}/fd")), len(os.listdir(f"/proc/{pid}/task"))

    def memory(self) -> int:
        """Return the engine's resident memory in bytes."""
        status = Path(f"/proc/{self.engine_pid}/status").read_text()
        return int(status.split("VmRSS:")[1].split()[0]) * 1024

    # Calls

    @contextlib.contextmanager
    def connection(self) -> Iterator[Connection]:
        """Connect as the command line does."""
        with connect(self.facts()["socket"]) as connection:
            yield connection

    def call(self, function_id: str, data: Any = None, timeout_ms: int = 20_000) -> Any:
        """Call a function and return its result. Raises InvocationError."""
        with self.connection() as connection:
            return connection.call(function_id, data, timeout_ms)

    def outcome(self, function_id: str, data: Any = None, timeout_ms: int = 20_000, **fields: Any) -> dict[str, Any]:
        """Call a function and return the whole `invocationresult`."""
        with self.connection() as connection:
            return connection.request(function_id, data, timeout_ms, **fields)

    def begin(self, function_id: str, data: Any = None, timeout_ms: int = 20_000) -> Future[dict[str, Any]]:
        """Start a call on a connection of its own; the future has its whole `invocationresult`."""
        future: Future[dict[str, Any]] = Future()

        def run() -> None:
            try:
                future.set_result(self.outcome(function_id, data, timeout_ms))
            except BaseException as error:  # noqa: BLE001 - the future's owner is told
                future.set_exception(error)

        threading.Thread(target=run, daemon=True).start()
        return future

    def rows(self, name: str) -> list[dict[str, Any]]:
        """Return the rows of one worker in `engine::workers::list`."""
        return [row for row in self.call("engine::workers::list")["workers"] if row["name"] == name]

    def pid(self, name: str) -> int:
        """Return the pid of the worker's only instance; 0 while it has none."""
        rows = self.rows(name)
        return int(rows[0].get("pid") or 0) if rows else 0

    def counter(self, name: str) -> int:
        """Return one of the engine's counters of what was dropped or refused."""
        return int(self.call("engine::counters::list")["counters"].get(name, 0))

    def log(self, name: str) -> list[dict[str, Any]]:
        """Return the worker's log, rotated files included, oldest line first."""
        files = [self.folder / f".iii/logs/{name}.log{end}" for end in (".2", ".1", "")]
        return [json.loads(line) for file in files if file.exists() for line in file.read_text().splitlines()]

    def await_log(self, name: str, text: str) -> dict[str, Any]:
        """Return the first line of the worker's log that contains `text`."""
        return eventually(lambda: next((line for line in self.log(name) if text in line["text"]), None))

    # The end

    def stop(self, number: int = signal.SIGINT) -> int:
        """Stop the engine, wait until it is gone, and return its exit code."""
        self._canary.stop()
        self.guard.send_signal(number)
        return self.await_exit()

    def await_exit(self, bound: float = BOUND) -> int:
        """Wait until `iii dev` is gone; return its exit code."""
        code = self.guard.wait(bound)
        for reader in self._readers:
            reader.join()
        return code

    def left(self) -> list[int]:
        """Return the pids of all processes of our runs, whatever environment they have."""
        return [entry.pid for entry in of_runs(procfs.entries(), self._run_ids)]

    def close(self) -> None:
        """Stop what runs, and check the laws."""
        if self._guard is None:
            return
        try:
            if self._guard.poll() is None:
                self._check_running()
                code = self.stop()
                assert "exit" not in self.laws or code == 0, f"exit code {code}\n{self.output}"
        finally:
            self._end_all()
        if "traceback" in self.laws:
            complaints = "".join(self.complaints)
            assert "Traceback" not in complaints, complaints
            assert "never retrieved" not in complaints, complaints
        assert not self.left()

    def _check_running(self) -> None:
        self._canary.stop()
        if "canary" in self.laws:
            assert not self._canary.errors, self._canary.errors[:3]
        if "descriptors" in self.laws:
            fds, threads = self._baseline
            eventually(lambda: self.burden()[0] <= fds + LATE and self.burden()[1] <= threads + LATE)

    def _end_all(self) -> None:
        self._canary.stop()
        if self._guard is not None and self._guard.poll() is None:
            self._guard.kill()
            self.await_exit()


class Canary:
    """Calls an innocent worker all the time; whatever happens elsewhere, every call must succeed."""

    def __init__(self, ground: Ground) -> None:
        self._ground = ground
        self._is_over = threading.Event()
        self._thread = threading.Thread(target=self._sing, daemon=True)
        self.errors: list[str] = []
        self.times: list[float] = []  # seconds of each call

    def start(self) -> None:
        self._thread.start()

    def stop(self) -> None:
        self._is_over.set()
        if self._thread.is_alive():
            self._thread.join()

    def _sing(self) -> None:
        try:
            with self._ground.connection() as connection:
                self._sing_over(connection)
        except Exception as error:  # noqa: BLE001 - a canary that cannot sing is an error like any other
            self.errors.append(repr(error))

    def _sing_over(self, connection: Connection) -> None:
        number = 0
        while not self._is_over.wait(0.02):
            number += 1
            began = time.monotonic()
            answer = connection.request("canary::sing", number, 10_000)
            self.times.append(time.monotonic() - began)
            if answer.get("result") != number:
                self.errors.append(f"call {number}: {answer}")


def clean_environment(**more: str) -> dict[str, str]:
    """Return our environment without what would name another engine."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("III_")}
    return {**kept, "PYTHONPATH": str(ROOT), "PYTHONUTF8": "1", **more}
