"""A throw-away project with a real engine, for what only processes can show: lines to wait for, functions to call."""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
from collections.abc import Iterator, Mapping
from pathlib import Path
from threading import Condition, Thread
from typing import Any

import psutil

from cli.client.connection import Connection, connect

ROOT = Path(__file__).resolve().parents[2]
# Every wait has a bound, far beyond what a loaded machine needs.
BOUND = 30.0
PROFILE = """\
import os, signal, sys, threading
from iii import InvocationError, TriggerAction, current_invocation, register_worker
worker = register_worker()
def say(*words): sys.stderr.write("@ " + " ".join(map(str, words)) + "\\n")
"""


class Project:
    """A folder, its engine, and what that has written so far."""

    ports: dict[str, int]  # of listeners, for tests that name some

    def __init__(self, folder: Path, toml: str, workers: Mapping[str, str]) -> None:
        self.folder = folder
        self.lines: list[str] = []
        self._changed = Condition()
        self._connections: list[Connection] = []
        (folder / "iii.toml").write_text(toml)
        for name, body in workers.items():
            (folder / f"{name}.py").write_text(PROFILE + body)

    def start(self, command: str = "start") -> None:
        """Start the engine and wait until its workers are ready; `dev` reloads what is saved."""
        self.command = command
        environment = {key: value for key, value in os.environ.items() if not key.startswith("III_")}
        self.process = subprocess.Popen(
            [sys.executable, "-m", "cli.main", command],
            cwd=self.folder,
            env=environment | {"PYTHONPATH": str(ROOT)},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        seen = len(self.lines)
        self._reader = Thread(target=self._read, args=(self.process,))
        self._reader.start()
        self.wait("ready in", after=seen)

    def _read(self, process: subprocess.Popen[str]) -> None:
        assert process.stdout is not None
        for line in process.stdout:
            with self._changed:
                self.lines.append(line.rstrip("\n"))
                self._changed.notify_all()
        process.stdout.close()

    def wait(self, text: str, *, count: int = 1, after: int = 0) -> list[str]:
        """Wait until `count` lines hold `text`; return them."""
        with self._changed:
            if not self._changed.wait_for(lambda: len(self.said(text, after)) >= count, BOUND):
                raise TimeoutError(f"{text!r} not {count} times in:\n" + "\n".join(self.lines[-60:]))
            return self.said(text, after)

    def said(self, text: str, after: int = 0) -> list[str]:
        """Return the lines so far that hold `text`, from what workers said with `say` only those words."""
        return [line.rpartition("@ ")[2] for line in self.lines[after:] if text in line]

    def call(self, function_id: str, data: Any = None, **fields: Any) -> Any:
        """Call a function and return its result. InvocationError for its error."""
        with self.connect() as connection:
            if not fields:
                return connection.call(function_id, data)
            answer = connection.request(function_id, data, 20_000, **fields)
            assert "error" not in answer, answer
            return answer.get("result")

    def enqueue(self, function_id: str, data: Any, queue: str = "default", **options: Any) -> str:
        """Put a call into a queue; return its receipt."""
        action = {"type": "enqueue", "queue": queue, **options}
        receipt: str = self.call(function_id, data, action=action)["messageReceiptId"]
        return receipt

    def connect(self) -> Connection:
        """Return a connection to the engine. Raises what `connect` raises, OSError while there is no engine.json."""
        run = json.loads((self.folder / ".iii" / "run" / "engine.json").read_text())
        return connect(run["socket"])

    def pid_of(self, worker: str) -> int:
        """Return the process of a worker."""
        rows = self.call("engine::workers::list")["workers"]
        pid: int = next(row["pid"] for row in rows if row["name"] == worker)
        return pid

    def kill(self) -> None:
        """Kill the engine; first freeze the guard above it, which would start another one, and kill that too."""
        self.process.send_signal(signal.SIGSTOP)
        guard = psutil.Process(self.process.pid)
        for child in guard.children():
            # The engine, also one that is being started, if it lives; orphans are children of the guard as well.
            with contextlib.suppress(psutil.NoSuchProcess):
                if child.cmdline() == guard.cmdline():
                    child.kill()
        self.kill_guard()

    def kill_guard(self) -> None:
        """Kill the guard alone: its engine stops in an orderly way."""
        self.process.kill()
        self.process.wait(BOUND)
        self._reader.join(BOUND)

    def stop(self) -> None:
        """Stop the engine in an orderly way."""
        if self.process.poll() is None:
            self.process.send_signal(signal.SIGTERM)
            try:
                self.process.wait(BOUND)
            except subprocess.TimeoutExpired:
                self.process.kill()
                self.process.wait(BOUND)
        self._reader.join(BOUND)


@contextlib.contextmanager
def project(folder: Path, toml: str, workers: Mapping[str, str], command: str = "start") -> Iterator[Project]:
    """A running project that is stopped at the end."""
    made = Project(folder, toml, workers)
    made.start(command)
    try:
        yield made
    finally:
        made.stop()


@contextlib.contextmanager
def held_port() -> Iterator[int]:
    """Yield a port that no other test takes while a project that listens on it stops and starts again.

    It is none that the kernel gives to those who ask for any port, and a lock keeps other tests of this kind from it.
    """
    folder = Path(tempfile.gettempdir()) / "iii-test-ports"
    folder.mkdir(exist_ok=True)
    for port in random.sample(range(20_000, 30_000), 1000):
        with (folder / str(port)).open("w") as lock:
            try:
                fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                socket.create_server(("127.0.0.1", port)).close()
            except OSError:
                continue
            yield port
            return
    raise OSError("no port is free")


def free_ports(*names: str) -> dict[str, int]:
    """Return a port for each name, all different."""
    taken = [socket.create_server(("127.0.0.1", 0)) for _ in names]
    ports = {name: found.getsockname()[1] for name, found in zip(names, taken, strict=True)}
    for found in taken:
        found.close()
    return ports
