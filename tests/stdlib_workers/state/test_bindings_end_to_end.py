"""Bindings and their events under a real engine: reloads, crashes, stops, and a worker that leaves iii.toml."""

from __future__ import annotations

import os
import signal
import time
from pathlib import Path

from tests.support.live_project import BOUND, PROFILE, Project, project

STATE = '[engine]\nlisten = "off"\n[workers.state]\n'
TOML = STATE + '[workers.a]\nrun = "a.py"\n'
BOUND_WORKER = """
worker.register_function("a::changed", lambda event: say("seen", event["new_value"]))
"""
BIND = 'bound = worker.register_trigger({"type": "state", "function_id": "a::changed", "config": {"scope": "s"}})\n'
WITHDRAW = """
def withdraw(_):
    bound.unregister()
    for key, number in (("k", 7), ("k", 8), ("last", 9)):
        worker.trigger("state::set", {"scope": "s", "key": key, "value": number})
worker.register_function("a::withdraw", withdraw)
worker.register_function("a::last", lambda event: say("last", event["new_value"]))
worker.register_trigger({"type": "state", "function_id": "a::last", "config": {"key": "last"}})
"""


def write(running: Project, value: int) -> None:
    running.call("state::set", {"scope": "s", "key": "k", "value": value})


def save(running: Project, text: str) -> None:
    seen = len(running.lines)
    (running.folder / "a.py").write_text(PROFILE + text)
    running.wait("reloaded", after=seen)


def test_a_reload_keeps_a_binding_or_drops_it(tmp_path: Path) -> None:
    made = Project(tmp_path, TOML, {"a": BOUND_WORKER + BIND})
    made.start("dev")
    try:
        write(made, 1)
        made.wait("seen 1")
        save(made, BOUND_WORKER + BIND + "# other code\n")
        write(made, 2)
        made.wait("seen 2")
        save(made, BOUND_WORKER)
        write(made, 3)
        save(made, BOUND_WORKER + BIND.replace('"scope": "s"', '"key": "k"'))
        write(made, 4)
        made.wait("seen 4")
        assert made.said("seen 3") == []
    finally:
        made.stop()


def test_a_binding_that_its_worker_withdraws_fires_no_more(tmp_path: Path) -> None:
    with project(tmp_path, TOML, {"a": BOUND_WORKER + BIND + WITHDRAW}) as running:
        write(running, 1)
        running.wait("seen 1")
        running.call("a::withdraw")
        running.wait("last 9")
        assert running.said("seen ") == ["seen 1"]


def test_writes_while_a_worker_is_dead_fire_when_it_is_back(tmp_path: Path) -> None:
    slow = "import time\nif os.path.exists('slow'): time.sleep(1.5)\n"
    with project(tmp_path, TOML, {"a": slow + BOUND_WORKER + BIND}) as running:
        write(running, 1)
        running.wait("seen 1")
        (tmp_path / "slow").touch()
        os.kill(running.pid_of("a"), signal.SIGKILL)
        for number in range(2, 12):
            write(running, number)
        running.wait("seen 11")
        seen = [int(line.split()[1]) for line in running.said("seen ")]
        assert sorted(set(seen)) == list(range(1, 12))
        first = list(dict.fromkeys(seen))
        assert first == sorted(first)


def test_a_worker_that_left_the_file_and_comes_back_without_its_binding_is_called_no_more(tmp_path: Path) -> None:
    made = Project(tmp_path, TOML, {"a": BOUND_WORKER + BIND})
    made.start("dev")
    try:
        write(made, 1)
        made.wait("seen 1")
        seen = len(made.lines)
        (tmp_path / "iii.toml").write_text(STATE)
        deadline = time.monotonic() + BOUND
        while any(row["name"] == "a" for row in made.call("engine::workers::list")["workers"]):
            assert time.monotonic() < deadline
            time.sleep(0.05)  # between two looks
        write(made, 2)
        (tmp_path / "iii.toml").write_text(TOML)
        (tmp_path / "a.py").write_text(PROFILE + BOUND_WORKER + 'say("here")')
        made.wait("here", after=seen)
        assert made.said("seen 2") == []
    finally:
        made.stop()


def test_a_deleted_database_stops_the_worker_with_a_clear_line_and_it_starts_anew(tmp_path: Path) -> None:
    with project(tmp_path, STATE, {}) as running:
        running.call("state::set", {"scope": "s", "key": "k", "value": 1})
        for file in (tmp_path / ".iii").glob("state.db*"):
            if file.suffix != ".lock":
                file.unlink()
        answer = None
        with running.connect() as connection:
            answer = connection.request("state::set", {"scope": "s", "key": "k", "value": 2}, 20_000)
        assert answer["error"]["details"]["reason"] == "storage_error"
        running.wait("state.db was deleted or moved away while it was in use; nothing more can be made durable")
        deadline = time.monotonic() + BOUND
        while "error" in running_set(running, 3):
            assert time.monotonic() < deadline
            time.sleep(0.05)  # between two tries
        running.kill()
        running.start()
        assert running.call("state::get", {"scope": "s", "key": "k"}) == 3


def running_set(running: Project, value: int) -> dict[str, object]:
    with running.connect() as connection:
        return connection.request("state::set", {"scope": "s", "key": "k", "value": value}, 20_000)
