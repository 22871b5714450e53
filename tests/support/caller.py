"""A client that has many calls under way at once, and counts what comes back: one outcome a call, never two."""

from __future__ import annotations

import contextlib
import json
import socket
import time
from concurrent.futures import Future
from dataclasses import dataclass
from pathlib import Path
from threading import Lock, Thread
from typing import Any
from uuid import uuid4

BOUND = 40.0  # seconds; far beyond what anything here needs on a loaded machine


@dataclass(frozen=True)
class Outcome:
    """What a call came to: its result, or its error's body. `sent` and `got` are monotonic seconds."""

    result: Any
    error: dict[str, Any] | None
    sent: float
    got: float

    @property
    def seconds(self) -> float:
        return self.got - self.sent

    @property
    def value(self) -> Any:
        """The result; fails with the error's words if there is none."""
        assert self.error is None, self.error
        return self.result

    @property
    def code(self) -> str:
        assert self.error is not None, f"answered {self.result!r}"
        return str(self.error["code"])

    @property
    def details(self) -> dict[str, Any]:
        assert self.error is not None, f"answered {self.result!r}"
        return self.error.get("details") or {}


class Caller:
    """One connection to the engine's unix socket; calls may overlap."""

    def __init__(self, path: Path) -> None:
        self._socket = socket.socket(socket.AF_UNIX, socket.SOCK_STREAM)
        self._socket.connect(str(path))
        self._waiting: dict[str, tuple[float, Future[Outcome]]] = {}
        self._lock = Lock()
        self.strays: list[str] = []  # ids that were answered twice, or never asked
        self._thread = Thread(target=self._read, name="caller", daemon=True)
        self._thread.start()

    @property
    def unanswered(self) -> int:
        return len(self._waiting)

    def begin(self, function_id: str, data: Any = None, **fields: Any) -> Future[Outcome]:
        """Send a call; the future holds its outcome. ConnectionError when the engine goes meanwhile."""
        invocation_id = str(uuid4())
        future: Future[Outcome] = Future()
        with self._lock:
            self._waiting[invocation_id] = (time.monotonic(), future)
            message = {"type": "invokefunction", "invocation_id": invocation_id, "function_id": function_id}
            self._socket.sendall(json.dumps({**message, "data": data, **fields}).encode() + b"\n")
        return future

    def call(self, function_id: str, data: Any = None, **fields: Any) -> Outcome:
        """Send a call and wait for its outcome."""
        return self.begin(function_id, data, **fields).result(BOUND)

    def close(self) -> None:
        with contextlib.suppress(OSError):  # the engine was first
            self._socket.shutdown(socket.SHUT_RDWR)
        self._thread.join(BOUND)

    def _read(self) -> None:
        with self._socket, self._socket.makefile("rb") as lines:
            try:
                for line in lines:
                    self._settle(json.loads(line))
            except OSError:
                pass  # reset by an engine that was killed: the same as its end
        for _, future in self._waiting.values():
            future.set_exception(ConnectionError("the engine is gone"))
        self._waiting.clear()

    def _settle(self, message: dict[str, Any]) -> None:
        if message["type"] != "invocationresult":
            return
        sent, future = self._waiting.pop(message["invocation_id"], (0.0, None))
        if future is None:
            self.strays.append(message["invocation_id"])
        else:
            future.set_result(Outcome(message.get("result"), message.get("error"), sent, time.monotonic()))
