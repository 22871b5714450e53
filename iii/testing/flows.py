"""Runs of flows in tests: a handle of one run, and deaths after each of its commits."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol
from uuid import uuid4

from iii.errors import InvocationError
from stdlib_workers.flow.model import State
from stdlib_workers.flow.policy import TurnEnd
from stdlib_workers.flow.runs import Runs, next_due
from stdlib_workers.flow.transaction import Changes

# How often the clock moves, each time by 10 % more, while a call is under way: four months in all.
MAX_TRIES = 150
_ENDED = ("completed", "failed", "cancelled")


class Tester(Protocol):
    """What of the engine in memory runs need."""

    def call(self, function_id: str, payload: Any = None, /) -> Any: ...
    def advance(self, duration: float) -> None: ...
    @property
    def now(self) -> datetime: ...


class FlowRun:
    """A run of a flow. `id` is its id."""

    def __init__(self, engine: Tester, runs: Runs, id: str) -> None:
        self._engine = engine
        self._runs = runs
        self.id = id

    @property
    def state(self) -> str:
        """Where it is: `queued`, `running`, `parked`, `held`, `blocked`, `undoing`, or how it has ended."""
        return str(self.get()["state"])

    @property
    def steps(self) -> list[dict[str, Any]]:
        """The steps of its journal, with what they returned."""
        return list(self._engine.call("flow::export", {"run": self.id})["steps"])

    def get(self) -> dict[str, Any]:
        """Return what `flow::get` shows of it."""
        shown: dict[str, Any] = self._engine.call("flow::get", {"run": self.id})
        return shown

    def signal(self, event: str, payload: Any = None) -> None:
        """Send it an event."""
        self._engine.call("flow::signal", {"run": self.id, "event": event, "payload": payload})

    def cancel(self, reason: str | None = None, *, force: bool = False) -> None:
        """Cancel it."""
        self._engine.call("flow::cancel", {"run": self.id, "reason": reason, "force": force})

    def result(self, *, skip: bool = False) -> Any:
        """Return its result; InvocationError for its error, and AssertionError for a run that has not ended.

        `skip` moves the clock to whatever it waits for, again and again.
        """
        tries = 0
        while (state := self.state) not in _ENDED:
            tries += 1
            if not skip or state == "blocked" or not self._skip(state, tries):
                if self.state in _ENDED:
                    break  # meanwhile: what hangs in a handler is not waited for
                waiting = [step["key"] for step in self.steps if step["state"] in ("open", "calling", "retrying")]
                raise AssertionError(f"the run {self.id} has not ended: it is {self.state}, at {waiting or 'no step'}")
        return self._engine.call("flow::result", {"run": self.id})

    def _skip(self, state: str, tries: int) -> bool:
        """Move the clock to what is due next, of any run; False when only an event can help."""
        due = self._runs.record(lambda tx: next_due(tx.connection)).result()
        is_under_way = state in ("running", "undoing") or any(step["state"] == "calling" for step in self.steps)
        if is_under_way and tries < MAX_TRIES:
            self._engine.advance(1.1**tries)  # a call under way has timers of its own
        elif due is not None:
            self._engine.advance(max(0.001, due / 1000 - self._engine.now.timestamp()))
        return due is not None or (is_under_way and tries < MAX_TRIES)

    def __repr__(self) -> str:
        return f"<FlowRun {self.id} {self.state}>"


def crash_test(engine: Tester, runs: Runs, function_id: str, payload: Any, events: Mapping[str, Any]) -> int:
    """Make a run, then another one for each of its steps that dies right after that step; returns how many.

    `events` are sent to each run at its start. AssertionError names the step after which a run takes another way.
    """

    def make(run_id: str) -> tuple[Any, list[tuple[str, str]]]:
        engine.call("flow::start", {"function_id": function_id, "payload": payload, "id": run_id})
        run = FlowRun(engine, runs, run_id)
        for event, content in events.items():
            if run.state not in _ENDED:
                run.signal(event, content)
        try:
            outcome: Any = run.result(skip=True)
        except InvocationError as error:
            outcome = (error.code, error.message.replace(run_id, "RUN"))
        return _plain(outcome, run_id), [(step["key"], step["state"]) for step in run.steps]

    def differing(steps: list[tuple[str, str]]) -> str | None:
        """Branches may end in another order."""
        return min({key for key, _ in set(steps) ^ set(journal)}, default=None)

    name = f"crash-{uuid4()}"
    expected, journal = make(name)
    for number in range(1, len(journal) + 1):
        run_id = f"{name}-{number}"
        take = runs.on_changes
        runs.on_changes = _dying(runs, run_id, number, take)
        try:
            outcome, steps = make(run_id)
        except AssertionError as error:
            raise AssertionError(f"after a death behind the step {journal[number - 1][0]!r}: {error}") from None
        finally:
            runs.on_changes = take
        key = differing(steps)
        if outcome != expected or key is not None:
            text = f"after a death behind the step {journal[number - 1][0]!r} the run takes another way"
            where = f" at the step {key!r}" if key else ""
            raise AssertionError(f"{text}{where}: it ends with {outcome!r}, without the death with {expected!r}")
    return len(journal)


def _dying(runs: Runs, run_id: str, number: int, take: Callable[[Changes], object]) -> Callable[[Changes], object]:
    """Take changes as before; the turn that writes the step of that number ends as if its process had died."""
    seqs: dict[int, Any] = {}
    dead: set[int] = set()

    def on_changes(changes: Changes) -> None:
        take(changes)
        seqs.update({start.run.seq: start.run for start in changes.turns if start.run.id == run_id})
        for entry in changes.steps:
            if entry.run in seqs and entry.n == number and entry.run not in dead:
                dead.add(entry.run)
                runs.suspend(seqs[entry.run], set(), TurnEnd(State.QUEUED, 1, 0), None)

    return on_changes


def _plain(value: Any, run_id: str) -> Any:
    return json.loads(json.dumps(value).replace(run_id, "RUN"))


def check_history(engine: Tester, file: str | Path) -> None:
    """Call a flow's function against a journal of `iii flow export`. AssertionError says where they part."""
    answer = engine.call("flow::check", {"journal": json.loads(Path(file).read_text(encoding="utf-8"))})
    if not answer["ok"]:
        raise AssertionError(f"{file}: {answer['error']['message']}")
