"""The minimal caller where no C compiler is present: same arguments and words as native/caller.c."""

from __future__ import annotations

import json
import os
import sys
import time
from pathlib import Path

REGISTER = {"runtime": "python", "version": "1", "name": "caller", "os": "linux", "pid": os.getpid()}


def line_of(message: dict[str, object]) -> bytes:
    """One compact line."""
    return json.dumps(message, separators=(",", ":")).encode() + b"\n"


def write(data: bytes) -> None:
    """Write all of it."""
    while data:
        data = data[os.write(1, data) :]


class Caller:
    """Keeps calls in flight and the moments at which they left."""

    def __init__(self, size: int) -> None:
        self.payload = {"pad": "x" * max(0, size - 20), "a": 2, "b": 3}
        self.sequence = 0
        self.started: dict[str, float] = {}
        self.latencies: list[float] = []
        self.rest = b""

    def call(self, times: int) -> None:
        """Send that many calls, one write each."""
        for _ in range(times):
            invocation_id = f"{os.getpid():08x}-0000-4000-8000-{self.sequence:012x}"
            self.sequence += 1
            self.started[invocation_id] = time.perf_counter()
            call = {"type": "invokefunction", "invocation_id": invocation_id, "function_id": "bench::echo"}
            write(line_of({**call, "data": self.payload}))

    def receive(self) -> tuple[int, bool]:
        """Wait for input; return how many results it held and whether one was an error."""
        data = os.read(0, 65536)
        if not data:
            raise SystemExit(0)
        *lines, self.rest = (self.rest + data).split(b"\n")
        results = [message for message in map(json.loads, lines) if message["type"] == "invocationresult"]
        for result in results:
            self.latencies.append(time.perf_counter() - self.started.pop(result["invocation_id"]))
        return len(results), any("error" in result for result in results)

    def await_callee(self) -> None:
        """Call until somebody answers without an error."""
        results, refused = 0, True
        while refused:
            self.call(1)
            results, refused = self.receive()
            while results == 0:
                results, refused = self.receive()
            time.sleep(0.02 if refused else 0)

    def run(self, window: int, calls: int) -> float:
        """Have `calls` calls answered, `window` in flight; return the seconds it took."""
        self.latencies.clear()
        begin, sent, done = time.perf_counter(), min(window, calls), 0
        self.call(sent)
        while done < calls:
            results, _ = self.receive()
            more = min(results, calls - sent)
            self.call(more)
            done, sent = done + results, sent + more
        return time.perf_counter() - begin


def main(report: str, window: int, calls: int, size: int, cpu: int) -> None:
    """Warm up, measure, report."""
    if cpu >= 0:
        os.sched_setaffinity(0, {cpu})
    register = {"type": "invokefunction", "function_id": "engine::workers::register", "data": REGISTER}
    write(line_of({**register, "action": {"type": "void"}}) + line_of({"type": "ready", "vouches": True}))
    caller = Caller(size)
    caller.await_callee()
    caller.run(window, calls // 5 + window)
    seconds = caller.run(window, calls)
    latencies = sorted(caller.latencies)
    figures = {
        "p50_us": latencies[calls // 2] * 1e6,
        "p99_us": latencies[calls * 99 // 100] * 1e6,
        "calls_per_s": calls / seconds,
        "relay_cpu_us": 0.0,
    }
    Path(report).write_text(json.dumps(figures))


if __name__ == "__main__":
    main(sys.argv[1], *map(int, sys.argv[2:6]))
