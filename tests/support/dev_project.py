"""A project under a real engine, for tests with programs that are workers in it or connect to it."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tests.support.harness import BOUND

ROOT = Path(__file__).resolve().parents[2]


class Project:
    """A running `iii dev`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lines: list[str] = []
        self.ports: dict[str, int] = {}  # for tests that name some
        self._heard = threading.Condition()
        command = [sys.executable, "-m", "cli.main", "dev"]
        plain = {key: value for key, value in os.environ.items() if not key.startswith("III_")}
        self.process = subprocess.Popen(
            command, cwd=folder, env=plain | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self._listening = threading.Thread(target=self._listen)
        self._listening.start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._heard:
                self.lines.append(line.decode())
                self._heard.notify_all()

    def hear(self, pattern: str, count: int = 1, seconds: float = BOUND) -> str:
        """Wait until `count` lines of its output fit; return the last of them."""

        def found() -> list[str]:
            return [line for line in self.lines if re.search(pattern, line)]

        with self._heard:
            self._heard.wait_for(lambda: len(found()) >= count, seconds)
            assert len(found()) >= count, f"no {pattern!r} in:\n{''.join(self.lines)}"
            return found()[-1]

    @property
    def facts(self) -> dict[str, Any]:
        """What the engine tells about itself."""
        facts: dict[str, Any] = json.loads((self.folder / ".iii/run/engine.json").read_text())
        return facts

    def stop(self) -> int:
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(BOUND)
        self._listening.join(BOUND)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code

    def caller(self) -> Caller:
        return Caller(self.facts["socket"])


class Caller:
    """Calls functions over the unix socket."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(BOUND)
        self._socket.connect(path)
        self._lines = self._socket.makefile("rb")

    def call(self, function_id: str, data: Any = None, **more: Any) -> dict[str, Any]:
        """Return the whole `invocationresult`."""
        id = str(uuid.uuid4())
        call = {"type": "invokefunction", "invocation_id": id, "function_id": function_id, "data": data, **more}
        self._socket.sendall(json.dumps(call).encode() + b"\n")
        for line in self._lines:
            message: dict[str, Any] = json.loads(line)
            if message.get("invocation_id") == id:
                return message
        raise AssertionError("the engine closed the connection")

    def result(self, function_id: str, data: Any = None, **more: Any) -> Any:
        """Return the result; an error fails the test."""
        answer = self.call(function_id, data, **more)
        assert "error" not in answer, answer
        return answer.get("result")

    def close(self) -> None:
        self._lines.close()
        self._socket.close()


@contextmanager
def running_project(folder: Path, seconds: float = BOUND) -> Iterator[Project]:
    """Run the project in `folder`, ready within `seconds` and stopped at the end."""
    running = Project(folder)
    try:
        running.hear(r"ready in", seconds=seconds)
        yield running
    finally:
        running.stop()


def free_port() -> int:
    """Return a port nobody has."""
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port
