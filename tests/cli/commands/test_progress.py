"""What a command that takes its time shows in a terminal."""

from __future__ import annotations

import threading
from pathlib import Path

from tests.support.command import Iii
from tests.support.fake_engine import FakeEngine
from tests.support.terminal import Terminal

DONE = {"workers": [{"name": "math", "state": "ready", "generation": 3}]}


def test_a_wait_is_shown_while_it_lasts_and_erased(folder: Path, engine: FakeEngine) -> None:
    may_answer = threading.Event()

    def restart(_: object) -> object:
        may_answer.wait(30)
        return DONE

    engine.functions["engine::workers::restart"] = restart
    with Terminal(folder, "worker", "restart", "math", columns=40) as terminal:
        terminal.wait_for("restart math")
        may_answer.set()
        terminal.wait_for("math: ready, generation 3")
        terminal.read_until(lambda _: False, or_end=True)
        assert terminal.lines == ["math: ready, generation 3"]
        assert terminal.has_cursor


def test_a_wait_says_nothing_to_a_pipe_or_a_dumb_terminal(folder: Path, engine: FakeEngine, iii: Iii) -> None:
    engine.functions["engine::workers::restart"] = lambda _: DONE
    assert iii("worker", "restart", "math").stderr == ""
    with Terminal(folder, "worker", "restart", "math", TERM="dumb") as terminal:
        terminal.read_until(lambda _: False, or_end=True)
        assert terminal.written == b"math: ready, generation 3\r\n"
