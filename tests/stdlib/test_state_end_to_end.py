"""State, stream and pubsub as processes under a real engine: crashes, events across them, the CLI's followers."""

from __future__ import annotations

import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Event

import pytest
from linear import NEVER, Operation, is_linearizable
from live_project import BOUND, ROOT, Project, project

from iii.errors import EngineNotRunning, InvocationError

STATE = '[engine]\nlisten = "off"\n[workers.state]\n'
WATCHER = STATE + '[workers.watcher]\nrun = "watcher.py"\nafter = ["state"]\n'
SAY_EVENTS = """
def seen(event, metadata=None): say(event["event_type"], event["key"], event["new_value"], metadata)
worker.register_function("watcher::seen", seen)
worker.register_trigger({"type": "state", "function_id": "watcher::seen", "config": {"scope": "s"}, "metadata": 5})
"""


def set_key(running: Project, key: str, value: object) -> None:
    running.call("state::set", {"scope": "s", "key": key, "value": value})


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


def history_of(running: Project, seed: int, over: Event) -> dict[str, list[Operation]]:
    """One client's operations by key until `over`; a lost answer leaves the operation open."""
    dice = random.Random(seed)
    found: dict[str, list[Operation]] = {}
    number = 0
    while not over.is_set():
        number += 1
        key, kind = f"k{dice.randrange(5)}", dice.choice(["get", "set", "cas"])
        value, expected = seed * 100_000 + number, None
        if kind == "cas":
            last = found.get(key) or [Operation("get", None, 0, 0)]
            expected = last[-1].value
        start = time.monotonic()
        try:
            seen = operate(running, kind, key, value, expected)
        except InvocationError as error:
            if error.code == "CONFLICT" or kind == "get":
                continue
            found.setdefault(key, []).append(Operation(kind, value, start, NEVER, expected))
        except (EngineNotRunning, OSError):
            if kind != "get":
                found.setdefault(key, []).append(Operation(kind, value, start, NEVER, expected))
        else:
            value = seen if kind == "get" else value
            found.setdefault(key, []).append(Operation(kind, value, start, time.monotonic(), expected))
    return found


def operate(running: Project, kind: str, key: str, value: int, expected: object) -> object:
    address = {"scope": "s", "key": key}
    if kind == "get":
        return running.call("state::get", address)
    more = {"value": value, **({"expected": expected} if kind == "cas" else {})}
    return running.call("state::set", address | more)


@pytest.mark.parametrize("kills", [4, pytest.param(60, marks=[pytest.mark.slow, pytest.mark.timeout(600)])])
def test_what_clients_see_across_kills_is_linearizable(tmp_path: Path, kills: int) -> None:
    with project(tmp_path, STATE, {}) as running:
        over = Event()
        with ThreadPoolExecutor(8) as clients:
            histories = [clients.submit(history_of, running, seed, over) for seed in range(1, 9)]
            try:
                for _ in range(kills):
                    seen = len(running.lines)
                    os.kill(running.pid_of("state"), signal.SIGKILL)
                    running.wait("state", after=seen)
                    running.call("state::set", {"scope": "other", "key": "k", "value": 1})
            finally:
                over.set()
            found = [history.result(BOUND) for history in histories]
    for key in {key for history in found for key in history}:
        operations = [operation for history in found for operation in history.get(key, ())]
        assert is_linearizable(operations), (key, len(operations))
    with sqlite3.connect(tmp_path / ".iii" / "state.db") as database:
        assert database.execute("PRAGMA integrity_check").fetchone() == ("ok",)
    database.close()


def test_the_checker_itself_can_fail() -> None:
    write = Operation("set", 1, 0, 1)
    assert is_linearizable([write, Operation("get", 1, 0.5, 2)])
    assert is_linearizable([write, Operation("get", None, 0.5, 2)])
    assert not is_linearizable([write, Operation("get", None, 1.5, 2)])
    assert not is_linearizable([Operation("cas", 2, 0, 1, 0), Operation("cas", 3, 0, 1, 0)], 0)
    assert is_linearizable([Operation("set", 1, 0, NEVER), Operation("get", None, 5, 6), Operation("get", 1, 7, 8)])
    assert not is_linearizable([Operation("set", 1, 0, NEVER), Operation("get", 1, 5, 6), Operation("get", None, 7, 8)])
    assert is_linearizable([Operation("set", n, n, n + 20) for n in range(9)] + [Operation("get", 3, 30, 31)])
    assert not is_linearizable([Operation("set", n, n, n + 0.5) for n in range(9)] + [Operation("get", 3, 30, 31)])


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
    while not any(row["trigger_type"] == trigger_type for row in running.call("engine::triggers::list")["triggers"]):
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
