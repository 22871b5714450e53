"""A small engine for the tests of the command line: a unix socket that answers as the protocol says.

Functions are plain Python callables that get the payload and return a result, or raise `Refused` for an error body.
It knows nothing of the real engine, so the CLI is held to the protocol's text and not to our own code.
"""

from __future__ import annotations

import json
import os
import socket
import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

from iii.version import VERSION

MATH_SCHEMA = {
    "type": "object",
    "properties": {
        "a": {"type": "number", "description": "First number"},
        "b": {"type": "number", "default": 3},
    },
    "required": ["a"],
}
MATH_INFO = {
    "function_id": "math::add",
    "namespace": "default",
    "worker_name": "math",
    "description": "Add two numbers.",
    "request_schema": MATH_SCHEMA,
    "response_schema": {"type": "object", "properties": {"c": {"type": "number"}}},
    "source": {"file": "workers/math.py", "line": 4},
    "registered_triggers": [],
}


class Refused(Exception):
    """Raised by a function to answer with an error body."""

    def __init__(self, code: str, message: str, **more: Any) -> None:
        super().__init__(message)
        self.body = {"code": code, "message": message, **more}


class FakeEngine:
    """Listens in `root/.iii/run`; `received` holds every message in order. A context manager."""

    def __init__(self, root: Path, *, is_silent: bool = False) -> None:
        self.root = root
        self.path = root / ".iii" / "run" / "engine.sock"
        self.received: list[dict[str, Any]] = []
        self.infos: dict[str, Any] = {"math::add": MATH_INFO}
        self.functions: dict[str, Callable[[Any], Any]] = {
            "math::add": self._add,
            "engine::functions::info": self._info,
            "engine::functions::list": lambda _: {"functions": list(self.infos.values())},
            "engine::workers::list": lambda _: {"workers": []},
        }
        self.progress: list[dict[str, Any]] = []  # reported before the answer of each call that is streamed
        self._is_silent = is_silent
        self._threads: list[threading.Thread] = []
        self._open: list[socket.socket] = []

    def __enter__(self) -> FakeEngine:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self._listener = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._listener.bind(str(self.path))
        self._listener.listen()
        self.write_run_file(os.getpid())
        self._start(self._accept)
        return self

    def __exit__(self, *_: object) -> None:
        self._listener.shutdown(socket.SHUT_RDWR)
        self._listener.close()
        self.hang_up()
        for thread in self._threads:
            thread.join(10)

    def write_run_file(self, pid: int) -> None:
        """Write `engine.json` as if the engine ran as `pid`."""
        about = {"pid": pid, "run_id": "r1", "version": VERSION, "ready": True}
        described = {**about, "socket": str(self.path), "url": None}
        (self.path.parent / "engine.json").write_text(json.dumps(described))

    def hang_up(self) -> None:
        """Close every connection, as an engine that dies does."""
        for opened in self._open:
            try:
                opened.shutdown(socket.SHUT_RDWR)
            except OSError:
                continue  # the other end was faster

    @property
    def calls(self) -> list[dict[str, Any]]:
        """The invocations that are no questions to the engine itself."""
        wanted = [message for message in self.received if message["type"] == "invokefunction"]
        return [message for message in wanted if not message["function_id"].startswith("engine::")]

    def _start(self, target: Callable[..., None], *arguments: Any) -> None:
        thread = threading.Thread(target=target, args=arguments)
        self._threads.append(thread)
        thread.start()

    def _accept(self) -> None:
        while True:
            try:
                opened, _ = self._listener.accept()
            except OSError:
                return
            self._open.append(opened)
            self._start(self._serve, opened)

    def _serve(self, opened: socket.socket) -> None:
        with opened, opened.makefile("rb") as lines:
            if not self._is_silent:
                self._send(opened, {"type": "workerregistered", "worker_id": "w", "reattach_token": "t"})
            try:
                for line in lines:
                    message = json.loads(line)
                    self.received.append(message)
                    if not self._is_silent:
                        self._answer(opened, message)
            except OSError:
                return

    def _answer(self, opened: socket.socket, message: dict[str, Any]) -> None:
        if message["type"] == "ping":
            self._send(opened, {"type": "pong"})
        elif "invocation_id" in message:
            answer = {key: message[key] for key in ("invocation_id", "function_id")}
            for progress in self.progress if message.get("stream") else ():
                self._send(opened, {"type": "invocationitem", **answer, "progress": progress})
            self._send(opened, {"type": "invocationresult", **answer, **self._outcome(message)})

    def _outcome(self, message: dict[str, Any]) -> dict[str, Any]:
        name = message["function_id"]
        try:
            if name not in self.functions:
                raise Refused("function_not_found", f"Function {name} not found in namespace default")
            return {"result": self.functions[name](message["data"])}
        except Refused as refused:
            return {"error": refused.body}

    def _info(self, data: Any) -> Any:
        if data["function_id"] not in self.infos:
            raise Refused("NOT_FOUND", f"function {data['function_id']} not found")
        return self.infos[data["function_id"]]

    def _add(self, data: Any) -> Any:
        if isinstance(data["a"], str):
            details = {"path": "a", "expected": "number", "got": data["a"]}
            raise Refused("invalid_payload", f'math::add: a must be a number, got "{data["a"]}"', details=details)
        return {"c": data["a"] + data["b"]}

    @staticmethod
    def _send(opened: socket.socket, message: dict[str, Any]) -> None:
        opened.sendall(json.dumps(message).encode() + b"\n")
