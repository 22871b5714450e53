"""The three examples, with a kill -9 behind every single commit: of the flow worker, and of the worker of the bodies.

A killed flow worker has told nobody of what it has just committed. III_FLOW_COMMITS limits how many of them are tried.
"""

from __future__ import annotations

import os
import time
from collections.abc import Iterator
from typing import Any, NamedTuple

import pytest

from iii import InvocationError
from iii.errors import EngineNotRunning
from tests.support.live_project import BOUND, ROOT, Project, project

COMMITS = int(os.environ.get("III_FLOW_COMMITS", "100"))
EXAMPLES = ("orders", "approvals", "research")
TOML = """
[engine]
listen = "off"
[workers.flow]
run = "mortal_flow.py"
""" + "".join(f'[workers.{name}]\nrun = "{name}.py"\n' for name in EXAMPLES)
# The flow worker with a store that kills when a number of commits have changed something: `kill` names whom, and when.
FLOW = """
import os, signal, sqlite3
from pathlib import Path
from iii import InitOptions, register_worker
from stdlib_workers.flow.__main__ import RESUME, register
from stdlib_workers.flow.options import Options
from stdlib_workers.flow.schema import SCHEMA
from stdlib_workers.storage import Store, TransactionHook
from stdlib_workers.values.clock import Clock

ORDER = Path("kill")

class Killer(TransactionHook):
    def __init__(self, hook):
        self.hook, self.changes, self.order = hook, 0, None
    def begin(self):
        self.hook.begin()
    def finish(self, connection):
        self.hook.finish(connection)
        self.has_changed = connection.total_changes != self.changes
        self.changes = connection.total_changes
    def committed(self):
        if self.has_changed and ORDER.exists():
            if self.order != (order := ORDER.read_text()):
                self.order, self.left = order, int(order.split()[1])
            self.left -= 1
            if self.left == 0:
                pid = int(order.split()[0])
                self.order = None
                ORDER.unlink()
                os.kill(pid or os.getpid(), signal.SIGKILL)
        self.hook.committed()

class MortalStore(Store):
    def attach(self, hook):
        super().attach(Killer(hook))

store = MortalStore(Path(".iii", "flow.db"), SCHEMA)
worker = register_worker(options=InitOptions(worker_name="flow"))
register(worker, store, Options(), Clock())
worker.ready()
worker.trigger(RESUME, {})
"""


class Case(NamedTuple):
    """A run of an example: `example` is its worker, `events` are sent to it."""

    example: str
    function_id: str
    payload: dict[str, Any]
    events: tuple[tuple[str, Any], ...] = ()


ORDER = {"order_id": "7", "items": ["tea", "cups"], "amount": 12.5}
CASES = {
    "order": Case("orders", "orders::fulfil", ORDER),
    "undo": Case("orders", "orders::fulfil", {**ORDER, "items": ["tea", "moon"]}),
    "approval": Case(
        "approvals", "approvals::ask", {"request": "r", "text": "May I?"}, (("answer", {"approved": True}),)
    ),
    "agent": Case("research", "research::answer", {"question": "what is tea"}),
}


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    folder = tmp_path_factory.mktemp("examples")
    (folder / "mortal_flow.py").write_text(FLOW)
    for name in EXAMPLES:
        text = (ROOT / "examples" / "flows" / f"{name}.py").read_text()
        (folder / f"{name}.py").write_text(text.replace('flow.sleep("1h")', 'flow.sleep("100ms")'))
    with project(folder, TOML, {}) as made:
        yield made


def ask(running: Project, function_id: str, payload: Any, ends: tuple[str, ...] = ()) -> Any:
    """Call until there is an answer; return it, or the code of an error that `ends` names."""
    give_up = time.monotonic() + BOUND
    while True:
        try:
            return running.call(function_id, payload)
        except InvocationError as error:
            if error.code in ends:
                return error.code
            if time.monotonic() > give_up:
                raise
        except EngineNotRunning:
            if time.monotonic() > give_up:
                raise


def live(running: Project, case: Case, run: str) -> tuple[Any, dict[str, str]]:
    """Make a run; return its result, or the code of its error, and its steps with how they ended."""
    ask(running, "flow::start", {"function_id": case.function_id, "payload": case.payload, "id": run})
    for number, (event, payload) in enumerate(case.events):
        signal = {"run": run, "event": event, "payload": payload, "id": str(number)}
        ask(running, "flow::signal", signal, ("run_ended",))  # it was taken, and the answer lost
    result = ask(running, "flow::result", {"run": run}, ("sold_out",))
    steps = ask(running, "flow::export", {"run": run})["steps"]
    if isinstance(result, str):
        result = result.replace(run, "RUN")
    return result, {step["key"]: step["state"] for step in steps}


@pytest.mark.slow
@pytest.mark.timeout(600)
@pytest.mark.parametrize("victim", ["flow", "bodies"])
@pytest.mark.parametrize("name", CASES)
def test_a_kill_behind_any_commit_changes_nothing(running: Project, name: str, victim: str) -> None:
    case, order = CASES[name], running.folder / "kill"
    expected = live(running, case, f"{name}-{victim}-0")
    for number in range(1, COMMITS + 1):
        pid = 0 if victim == "flow" else ask(running, "engine::workers::list", {})["workers"]
        pid = pid and next(each["pid"] for each in pid if each["name"] == case.example)
        (running.folder / "next").write_text(f"{pid or 0} {number}")
        (running.folder / "next").rename(order)
        assert live(running, case, f"{name}-{victim}-{number}") == expected, number
        if order.exists():
            order.unlink()
            assert number > 3  # a start, an end, and something between them
            print(f"{name}: {victim} killed behind each of {number - 1} commits")
            return
    assert COMMITS < 100, "the run has more commits than were tried"
