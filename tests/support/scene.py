"""A ground that follows the engine's own events (`iii dev --json`) and has many calls under way on one connection.

For the faults of processes: what became of a generation, in which order calls were answered, that each was once.
"""

from __future__ import annotations

import json
import os
import signal
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import psutil

from iii.engine.supervision import procfs
from tests.support.caller import Caller, Outcome
from tests.support.ground import BOUND, SDK, Ground, eventually

# What asyncio.to_thread may keep: its threads come with their first use and stay.
SPARE_THREADS = min(32, (os.cpu_count() or 1) + 4)
HEAD = f"""import os, signal, sys, threading, time
from iii import current_invocation
{SDK}
def on(function_id, **details):
    def keep(handler):
        worker.register_function(function_id, handler, **details)
        return handler
    return keep
def say(*words): print(*words, file=sys.stderr, flush=True)
"""


class Scene(Ground):
    """One project whose engine tells its history as JSON."""

    def __init__(self, folder: Path) -> None:
        super().__init__(folder)
        self.caller: Caller
        self._parsed: list[dict[str, Any]] = []

    # The project

    def script(self, name: str, body: str) -> Path:
        """Save a worker's script: HEAD and `body`."""
        return self.write(f"workers/{name}.py", HEAD + body)

    def play(self, scripts: Mapping[str, str], *, environment: Mapping[str, str] | None = None, **keys: Any) -> Scene:
        """Declare workers (name -> body; name=dict of further keys of its table), start, connect."""
        for name, body in scripts.items():
            self.worker(name, HEAD + body, **keys.get(name, {}))
        return self.open(environment)

    def open(self, environment: Mapping[str, str] | None = None) -> Scene:
        """Start what is declared."""
        if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
            # Started in the background of a shell: the guard would leave the signal ignored, as it should.
            signal.signal(signal.SIGINT, signal.default_int_handler)
        self.start("dev", "--json", **(environment or {}))
        self.attach()
        return self

    def attach(self) -> None:
        """Connect to the engine."""
        self.caller = Caller(Path(self.facts()["socket"]))
        eventually(lambda: self._canary.times and self._is_watching())
        self.measure()

    def attach_again(self) -> None:
        """Connect to the engine that the guard has started."""
        self.caller = Caller(Path(self.facts()["socket"]))

    def measure(self) -> None:
        """What the engine holds now is the baseline: with its watches, the canary, and every worker up."""
        descriptors, threads = self.burden()
        self._baseline = (descriptors, threads + SPARE_THREADS)

    def _is_watching(self) -> bool:
        folder = f"/proc/{self.engine_pid}/fd"
        return any("inotify" in link for fd in os.listdir(folder) if (link := _target(f"{folder}/{fd}")))

    def await_line(self, text: str, after: int = 0, bound: float = BOUND) -> str:
        """As of any ground; ready is an event here."""
        return super().await_line('"kind":"AllReady"' if text == "ready in" else text, after, bound)

    # What happens

    @property
    def events(self) -> list[dict[str, Any]]:
        """Everything reported so far."""
        lines = self.shown[len(self._parsed) :]
        self._parsed += [json.loads(line) for line in lines]
        return self._parsed

    def seen(self, kind: str, worker: str = "", after: int = 0, **fields: Any) -> list[dict[str, Any]]:
        """Return the reports of a kind so far, behind the `after` first of all; of one worker, with these values."""
        wanted = {"kind": kind, **fields} | ({"worker": worker} if worker else {})
        return [event for event in self.events[after:] if wanted.items() <= event.items()]

    def wait(self, kind: str, worker: str = "", *, count: int = 1, after: int = 0, **fields: Any) -> dict[str, Any]:
        """Return the `count`th such report as soon as there is one."""
        with self._shown_more:
            self._shown_more.wait_for(lambda: len(self.seen(kind, worker, after, **fields)) >= count, BOUND)
            found = self.seen(kind, worker, after, **fields)
        assert len(found) >= count, f"no {kind} of {worker} {fields}: {self.events[-12:]} {self.complaints[-20:]}"
        return found[count - 1]

    def said(self, worker: str, prefix: str, *, count: int = 1, after: int = 0) -> str:
        """Return the rest of the `count`th line of a worker's stderr that begins so."""
        with self._shown_more:
            self._shown_more.wait_for(lambda: len(self._rests(worker, prefix, after)) >= count, BOUND)
            found = self._rests(worker, prefix, after)
        assert len(found) >= count, f"{worker} never said {prefix}: {self.events[-12:]}"
        return found[count - 1]

    def _rests(self, worker: str, prefix: str, after: int) -> list[str]:
        lines = [str(event["text"]) for event in self.seen("LogLine", worker, after) if not event["is_partial"]]
        return [line.removeprefix(prefix).strip() for line in lines if line.startswith(prefix)]

    # Calls and processes

    def ask(self, function_id: str, data: Any = None, **fields: Any) -> Outcome:
        """Call on the scene's connection and wait for the outcome."""
        return self.caller.call(function_id, data, **fields)

    def row(self, worker: str, instance: int = 0) -> dict[str, Any]:
        """What `iii ps` shows of one instance."""
        found: dict[str, Any] = next(row for row in self.rows(worker) if row["instance"] == instance)
        return found

    def kill(self, worker: str, number: int = signal.SIGKILL) -> int:
        """Signal a worker's process; return its pid."""
        pid = self.pid(worker)
        os.kill(pid, number)
        return pid

    def processes(self, worker: str) -> list[int]:
        """Living processes of a worker in our runs, whoever started them."""
        marks = {f"III_RUN_ID={run_id}".encode() for run_id in self._run_ids}
        name = f"III_WORKER_NAME={worker}".encode()
        return [e.pid for e in procfs.entries() if e.is_alive and marks & e.marks and name in e.marks]

    def _check_running(self) -> None:
        eventually(lambda: self.caller.unanswered == 0)
        super()._check_running()
        self.caller.close()
        assert self.caller.strays == []


def _target(link: str) -> str:
    try:
        return os.readlink(link)
    except FileNotFoundError:
        return ""  # closed since it was listed


def is_alive(pid: int) -> bool:
    """Whether a thread of a process runs: it is neither gone nor a zombie.

    A killed process is called a zombie as soon as its main thread is gone; the thread that reads may be there still.
    """
    try:
        is_dead = psutil.Process(pid).status() in (psutil.STATUS_ZOMBIE, psutil.STATUS_DEAD)
        return not is_dead or len(os.listdir(f"/proc/{pid}/task")) > 1
    except (psutil.NoSuchProcess, OSError):
        return False
