"""State, stream and pubsub as processes under a real engine: crashes, events across them, the CLI's followers."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest

from iii.errors import InvocationError
from tests.support.live_project import BOUND, ROOT, Project, project

STATE = '[engine]\nlisten = "off"\n[workers.state]\n'
WATCHER = STATE + '[workers.watcher]\nrun = "watcher.py"\nafter = ["state"]\n'
SAY_EVENTS = """
def seen(event, metadata=None): say(event["event_type"], event["key"], event["new_value"], metadata)
worker.register_function("watcher::seen", seen)
worker.register_trigger({"type": "state", "function_id": "watcher::seen", "config": {"scope": "s"}, "metadata": 5})
"""


def set_key(running: Project, key: str, value: object) -> None:
    """Write until it is acknowledged: a call may still reach a process that is being killed."""
    for _ in range(100):
        try:
            running.call("state::set", {"scope": "s", "key": key, "value": value})
        except InvocationError as error:
            if error.code != "invocation_stopped":
                raise
        else:
            return
    raise AssertionError("no write was acknowledged")


def test_values_and_events_survive_the_death_of_worker_and_engine(tmp_path: Path) -> None:
    with project(tmp_path, WATCHER, {"watcher": SAY_EVENTS}) as running:
        set_key(running, "a", 1)
        assert running.wait("state:created a 1 5")
        os.kill(running.pid_of("state"), signal.SIGKILL)
        set_key(running, "a", 2)
        assert running.wait("state:updated a 2 5")
        running.kill()
        running.start()
        assert running.call("state::get", {"scope": "s", "key": "a"}) == 2
        set_key(running, "a", 3)
        assert running.wait("state:updated a 3 5")


def test_an_event_waits_for_a_subscriber_that_is_away(tmp_path: Path) -> None:
    with project(tmp_path, WATCHER, {"watcher": SAY_EVENTS}) as running:
        os.kill(running.pid_of("watcher"), signal.SIGSTOP)
        for number in range(3):
            set_key(running, "a", number)
        # The events are committed, and nobody has had them: both ends die now.
        os.kill(running.pid_of("state"), signal.SIGKILL)
        os.kill(running.pid_of("watcher"), signal.SIGKILL)
        assert running.wait("state:updated a 2 5")
        order = [line for line in running.said("state:") if " a " in line]
        assert [int(line.split()[2]) for line in order][-3:] == [0, 1, 2]


@pytest.mark.parametrize(
    ("words", "function_id", "payload", "expected"),
    [
        (
            ["state", "watch", "s", "k"],
            "state::set",
            {"scope": "s", "key": "k", "value": 1},
            {"event_type": "state:created", "new_value": 1},
        ),
        (
            ["stream", "tail", "s", "g"],
            "stream::set",
            {"stream_name": "s", "group_id": "g", "item_id": "i", "data": 1},
            {"event": {"type": "create", "data": 1}, "id": "i"},
        ),
    ],
)
def test_the_terminal_follows_events(
    tmp_path: Path, words: list[str], function_id: str, payload: dict[str, object], expected: dict[str, object]
) -> None:
    toml = STATE + "[workers.stream]\n[workers.stream.config]\nport = 0\n"
    with project(tmp_path, toml, {}) as running:
        follower = subprocess.Popen(
            [sys.executable, "-m", "cli.main", *words, "--json"],
            cwd=tmp_path,
            env=os.environ | {"PYTHONPATH": str(ROOT)},
            stdout=subprocess.PIPE,
            text=True,
        )
        with follower:
            bound_to(running, words[0])
            running.call(function_id, payload)
            assert follower.stdout is not None
            event = json.loads(follower.stdout.readline())
            follower.send_signal(signal.SIGINT)
        assert expected.items() <= event.items()
        assert follower.returncode == 130


def bound_to(running: Project, trigger_type: str) -> None:
    """Return once somebody is bound to the trigger type."""
    deadline = time.monotonic() + BOUND
    query = {"trigger_type": trigger_type}
    while not running.call("engine::registered-triggers::list", query)["registered_triggers"]:
        assert time.monotonic() < deadline


def test_what_is_published_reaches_other_workers(tmp_path: Path) -> None:
    listener = """
worker.register_function("listener::got", lambda data: say("got", data))
worker.register_trigger({"type": "subscribe", "function_id": "listener::got", "config": {"topic": "orders.*"}})
"""
    toml = '[engine]\nlisten = "off"\n[workers.pubsub]\n[workers.listener]\nrun = "listener.py"\nafter = ["pubsub"]\n'
    with project(tmp_path, toml, {"listener": listener}) as running:
        assert running.call("publish", {"topic": "orders.new", "data": 7}) is None
        assert running.wait("got 7")


def test_a_damaged_file_stops_the_worker_with_its_own_exit_code_and_a_way_out(tmp_path: Path) -> None:
    (tmp_path / ".iii").mkdir(mode=0o700)
    (tmp_path / ".iii" / "state.db").write_bytes(b"damaged" * 1000)
    done = subprocess.run(
        [sys.executable, "-m", "stdlib_workers.state"],
        env=os.environ | {"PYTHONPATH": str(ROOT), "III_PROJECT": str(tmp_path), "III_CONFIG": "{}"},
        capture_output=True,
        text=True,
        check=False,
        timeout=BOUND,
    )
    assert done.returncode == 5
    assert ".recover" in done.stderr
    assert (tmp_path / ".iii" / "state.db").read_bytes() == b"damaged" * 1000


def test_q16_a_damaged_file_is_told_once_and_not_tried_again(tmp_path: Path) -> None:
    (tmp_path / ".iii").mkdir(mode=0o700)
    (tmp_path / ".iii" / "state.db").write_bytes(b"damaged" * 1000)
    with project(tmp_path, STATE, {}) as running:
        (row,) = running.call("engine::workers::list")["workers"]
        assert (row["name"], row["state"], row["restarts"]) == ("state", "failed", 0)
        assert any(".recover" in line for line in running.lines)
