"""`iii flow` as a real process."""

from __future__ import annotations

import json
from pathlib import Path

from tests.support.command import Iii
from tests.support.fake_engine import FakeEngine, Refused

RUN = {
    **{"run": "order-7", "function_id": "orders::fulfil", "namespace": "default", "state": "blocked"},
    **{"created": 0, "step_count": 2, "error": {"code": "flow_changed", "message": "the journal has\nanother step"}},
}
STEPS = [
    {"key": "pay::charge", "n": 1, "kind": "call", "state": "done", "ended": 0, "undo": "pay::refund", "at": "o.py:7"},
    {"key": "approved", "n": 2, "kind": "wait", "state": "open"},
]
SHOWN = {**RUN, "turn": 3, "code": "v1", "unread": ["late"], "input": {}, "status": {"boxes": 1}, "steps": STEPS}


def asked(engine: FakeEngine) -> dict[str, object]:
    """Return the last call that the command has made."""
    message = [message for message in engine.received if message["type"] == "invokefunction"][-1]
    return {"function_id": message["function_id"], **message["data"]}


def test_list_shows_runs_and_filters(engine: FakeEngine, iii: Iii) -> None:
    engine.functions["flow::list"] = lambda _: {"runs": [RUN], "cursor": None}
    row = iii("flow", "list", "--state", "blocked", "--function", "orders::fulfil").stdout.splitlines()[1]
    assert row.split()[:3] == ["order-7", "orders::fulfil", "blocked"]
    assert asked(engine) == {"function_id": "orders::fulfil", "limit": 20, "state": ["blocked"]}
    assert json.loads(iii("flow", "list", "--json").stdout)["runs"] == [RUN]
    assert iii("flow", "list", "--state", "lost").returncode == 2


def test_show_has_the_error_the_status_and_the_steps(engine: FakeEngine, iii: Iii) -> None:
    engine.functions["flow::get"] = lambda _: SHOWN
    text = iii("flow", "show", "order-7").stdout
    for part in ("order-7  orders::fulfil  blocked  3 turns", '{"boxes": 1}', "late", "flow_changed: ", "pay::refund"):
        assert part in text
    assert json.loads(iii("flow", "show", "order-7", "--json").stdout) == SHOWN


def test_result_is_that_of_the_run_or_its_error(engine: FakeEngine, iii: Iii) -> None:
    engine.functions["flow::result"] = lambda _: {"sent": True}
    assert json.loads(iii("flow", "result", "order-7").stdout) == {"sent": True}

    def refuse(_: object) -> None:
        raise Refused("not_approved", "nobody said yes")

    engine.functions["flow::result"] = refuse
    done = iii("flow", "result", "order-7")
    assert done.returncode != 0
    assert "nobody said yes  (not_approved)" in done.stderr


def test_signal_sends_json_once_for_an_id(engine: FakeEngine, iii: Iii) -> None:
    engine.functions["flow::signal"] = lambda data: {"run": data["run"], "accepted": data.get("id") != "old"}
    assert iii("flow", "signal", "order-7", "approved", '{"by": "ada"}').stdout == "sent\n"
    event = {"run": "order-7", "event": "approved", "payload": {"by": "ada"}}
    assert asked(engine) == {"function_id": "flow::signal", **event}
    assert iii("flow", "signal", "order-7", "approved", "--id", "old").stdout == "it was sent before\n"
    assert "is not JSON" in iii("flow", "signal", "order-7", "approved", "{").stderr


def test_cancel_retry_and_fork_say_what_has_come_of_it(engine: FakeEngine, iii: Iii) -> None:
    engine.functions["flow::cancel"] = lambda data: {"run": data["run"], "state": "queued"}
    assert iii("flow", "cancel", "order-7", "--reason", "sold out").stdout == "order-7 is queued\n"
    assert asked(engine) == {"function_id": "flow::cancel", "run": "order-7", "reason": "sold out", "force": False}
    engine.functions["flow::retry"] = lambda data: {"run": data["run"], "state": "queued"}
    assert iii("flow", "retry", "order-7").stdout == "order-7 is queued\n"
    engine.functions["flow::fork"] = lambda _: {"run": "order-8"}
    assert iii("flow", "fork", "order-7", "--from", "ship", "--id", "order-8").stdout == "order-8\n"
    assert asked(engine) == {"function_id": "flow::fork", "run": "order-7", "from": "ship", "id": "order-8"}


def test_check_takes_a_run_or_an_exported_file(engine: FakeEngine, iii: Iii, tmp_path: Path) -> None:
    engine.functions["flow::export"] = lambda _: SHOWN
    engine.functions["flow::check"] = lambda data: {"ok": "journal" in data, "error": {"message": "no step a"}}
    exported = iii("flow", "export", "order-7").stdout
    file = tmp_path / "journal.json"
    file.write_text(exported)
    done = iii("flow", "check", str(file))
    assert done.stdout == "the function matches\n"
    assert asked(engine) == {"function_id": "flow::check", "journal": SHOWN}
    failed = iii("flow", "check", "order-7")
    assert failed.returncode == 2
    assert "the function does not match: no step a" in failed.stderr
