"""Keeps calls of a standard worker in flight without any SDK: `wire_caller.py REPORT WINDOW CALLS LOAD`.

Lines are made before the clock starts and answers only counted, so that what is measured is the engine and the
worker: what a caller's own SDK costs is another benchmark's matter. Writes calls per second as JSON to REPORT.
"""

from __future__ import annotations

import json
import os
import sys
import time
from collections.abc import Callable, Iterator
from itertools import islice
from pathlib import Path
from typing import Any

REGISTER = {"runtime": "python", "version": "1", "name": "caller", "os": "linux", "pid": os.getpid()}
ANSWER, ERROR = b'"type":"invocationresult"', b'"error":{'
JOB = {"function_id": "bench::job", "data": {"n": 1}, "action": {"type": "enqueue", "queue": "quiet"}}


def write(data: bytes) -> None:
    """Write all of it."""
    while data:
        data = data[os.write(1, data) :]


def line_of(message: dict[str, Any]) -> bytes:
    """One compact line."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def call_of(number: int, call: dict[str, Any]) -> bytes:
    """Return the line of a call."""
    invocation_id = f"{os.getpid():08x}-0000-4000-8000-{number:012x}"
    return line_of({"type": "invokefunction", "invocation_id": invocation_id, **call})


def set_of(number: int) -> dict[str, Any]:
    """Return a write of one of a thousand keys."""
    return {
        "function_id": "state::set",
        "data": {"scope": "bench", "key": f"k{number % 1000}", "value": {"n": number}},
    }


def get_of(_: int) -> dict[str, Any]:
    """Return a read."""
    return {"function_id": "state::get", "data": {"scope": "bench", "key": "k0"}}


def job_of(_: int) -> dict[str, Any]:
    """Return an enqueue."""
    return JOB


LOADS: dict[str, Callable[[int], dict[str, Any]]] = {"set": set_of, "get": get_of, "enqueue": job_of}


class Caller:
    """Calls in flight, counted."""

    def __init__(self) -> None:
        self._sent = 0
        self._rest = b""

    def ask(self, call: dict[str, Any]) -> bytes:
        """Make one call and return what comes with its answer."""
        self._sent += 1
        write(call_of(self._sent, call))
        answer = b""
        while ANSWER not in answer:
            answer += self._read()
        return answer

    def await_service(self, call: dict[str, Any]) -> None:
        """Call until somebody answers without an error."""
        while ERROR in self.ask(call):
            time.sleep(0.02)

    def run(self, load: Callable[[int], dict[str, Any]], window: int, calls: int) -> float:
        """Have calls answered, `window` in flight, each written by itself; return how many a second."""
        lines = [call_of(self._sent + number, load(number)) for number in range(1, calls + 1)]
        self._sent += calls
        waiting, done = iter(lines), 0
        begin = time.perf_counter()
        self._send(waiting, window)
        while done < calls:
            data = self._read()
            if ERROR in data:
                raise SystemExit(f"refused: {data[-500:]!r}")
            answered = data.count(ANSWER)
            done += answered
            self._send(waiting, answered)
        return calls / (time.perf_counter() - begin)

    def _send(self, waiting: Iterator[bytes], count: int) -> None:
        for line in islice(waiting, count):
            write(line)

    def _read(self) -> bytes:
        data = os.read(0, 65536)
        if not data:
            raise SystemExit(0)
        # Cut behind the last whole line: a word at the cut would be missed.
        whole, newline, rest = data.rpartition(b"\n")
        data, self._rest = self._rest + whole + newline, rest
        return data


def main(report: str, window: int, calls: int, load: str) -> None:
    """Warm up, measure, report."""
    register = {"type": "invokefunction", "function_id": "engine::workers::register", "data": REGISTER}
    write(line_of({**register, "action": {"type": "void"}}) + line_of({"type": "ready"}))
    caller = Caller()
    if load == "enqueue":
        caller.await_service({"function_id": "iii::queue::pause", "data": {"queue": "quiet"}})
    else:
        caller.await_service(set_of(0))
    caller.run(LOADS[load], window, calls // 5)
    figures = {"calls_per_s": caller.run(LOADS[load], window, calls)}
    Path(report).write_text(json.dumps(figures), encoding="utf-8")
    while os.read(0, 65536):
        pass


if __name__ == "__main__":
    main(sys.argv[1], int(sys.argv[2]), int(sys.argv[3]), sys.argv[4])
