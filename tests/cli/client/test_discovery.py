"""Finding the engine: the order of the places, and what counts as no engine."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest

from cli.client.discovery import find_engine
from tests.support.command import Iii
from tests.support.fake_engine import FakeEngine

NO_ENGINE = "error: no engine is running; start one with `iii dev`\n"


def test_an_explicit_address_wins_over_the_environment_and_the_run_file(engine: FakeEngine, folder: Path) -> None:
    environ = {"III_URL": "ws://there", "III_SOCKET": "/there.sock"}
    assert find_engine("unix:/here.sock", environ, str(folder)) == "/here.sock"
    assert find_engine(None, environ, str(folder)) == "ws://there"
    assert find_engine(None, {"III_URL": "  ", "III_SOCKET": "/there.sock"}, str(folder)) == "/there.sock"
    assert find_engine(None, {}, str(folder)) == str(engine.path)


def test_the_wire_of_a_worker_is_no_address(folder: Path) -> None:
    assert find_engine(None, {"III_URL": "stdio:", "III_SOCKET": "/s"}, str(folder)) == "/s"


def test_the_nearest_run_file_upwards_is_taken(engine: FakeEngine, folder: Path) -> None:
    assert find_engine(None, {}, str(folder / "workers" / "deep")) == str(engine.path)


@pytest.mark.parametrize("text", ["", "{", "[]", '{"pid": "1"}', '{"pid": -1, "socket": "/s"}', '{"pid": true'])
def test_a_broken_run_file_counts_as_no_engine(folder: Path, text: str) -> None:
    (folder / ".iii" / "run").mkdir(parents=True)
    (folder / ".iii" / "run" / "engine.json").write_text(text)
    assert find_engine(None, {}, str(folder)) is None


def test_no_engine_exits_with_3(iii: Iii) -> None:
    done = iii("trigger", "math::add")
    assert (done.stderr, done.returncode) == (NO_ENGINE, 3)


def test_a_run_file_of_a_dead_process_exits_with_3_and_touches_no_process(engine: FakeEngine, iii: Iii) -> None:
    with subprocess.Popen([sys.executable, "-c", ""]) as gone:
        gone.wait(20)
    engine.write_run_file(gone.pid)
    done = iii("trigger", "math::add")
    assert (done.stderr, done.returncode) == (NO_ENGINE, 3)


def test_a_socket_that_refuses_exits_with_3(folder: Path, iii: Iii) -> None:
    (folder / ".iii" / "run").mkdir(parents=True)
    described = {"pid": os.getpid(), "socket": str(folder / "nothing.sock")}
    (folder / ".iii" / "run" / "engine.json").write_text(json.dumps(described))
    assert (iii("ps").stderr, iii("ps").returncode) == (NO_ENGINE, 3)


def test_an_explicit_socket_that_refuses_is_named(iii: Iii) -> None:
    done = iii("ps", "--engine", "/no.sock")
    assert done.stderr == "error: no engine answers at /no.sock; start one with `iii dev`\n"


def test_a_frozen_engine_exits_with_3_at_the_timeout(folder: Path, iii: Iii) -> None:
    with FakeEngine(folder, is_silent=True):
        done = iii("trigger", "math::add", "--timeout-ms", "10")
    assert (done.stderr, done.returncode) == ("error: the engine does not answer; start one with `iii dev`\n", 3)


def test_an_engine_that_goes_away_during_a_call_exits_with_3(engine: FakeEngine, iii: Iii) -> None:
    engine.functions["x::bye"] = lambda _: engine.hang_up()
    done = iii("trigger", "x::bye")
    assert "the engine stopped before it answered" in done.stderr
    assert done.returncode == 3
