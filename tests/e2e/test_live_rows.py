"""The start of `iii dev` on the screen of a terminal."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from tests.support.terminal import Terminal

WORKER = "from iii import register_worker\nworker = register_worker()\n"
# Its start takes until the test writes to the pipe.
SLOW = "open('gate').read()\n" + WORKER
NAME = "with-a-long-name"
PROJECT = f"""
engine.listen = "off"
[workers.quick]
run = "quick.py"
[workers.{NAME}]
run = "slow.py"
[workers.last]
run = "quick.py"
after = ["{NAME}"]
"""
ROW = f"  . {NAME}"


@pytest.fixture
def project(tmp_path: Path) -> Path:
    (tmp_path / "iii.toml").write_text(PROJECT)
    (tmp_path / "quick.py").write_text(WORKER)
    (tmp_path / "slow.py").write_text(SLOW)
    os.mkfifo(tmp_path / "gate")
    return tmp_path


def go_on(project: Path) -> None:
    (project / "gate").write_text("")


def rows_of(terminal: Terminal) -> list[str]:
    return [line for line in terminal.lines if line.startswith("  . ")]


@pytest.mark.parametrize("columns", [40, 80, 200])
def test_each_worker_has_a_row_until_it_is_ready(project: Path, columns: int) -> None:
    with Terminal(project, "dev", columns=columns) as terminal:
        terminal.wait_for(ROW)
        terminal.wait_for("  + quick")
        one, other = rows_of(terminal)
        assert (one.split()[1], other.split()[1]) == (NAME, "last")
        if columns >= 80:
            assert (one.endswith("starting"), other.endswith(f"waits for {NAME}")) == (True, True)
        assert terminal.has_cursor
        go_on(project)
        terminal.wait_for("ready in")
        assert rows_of(terminal) == []
        ready = [line for line in terminal.lines if line.startswith("  + ")]
        assert [line.split()[1] for line in ready] == ["quick", NAME, "last"]
        assert all(line.endswith("s") for line in ready), "a line of a worker does not fit"
        assert terminal.lines[0].startswith("  iii ")
    assert terminal.has_cursor


def test_a_terminal_made_narrower_and_wider_shows_each_row_once(project: Path) -> None:
    with Terminal(project, "dev", columns=100) as terminal:
        terminal.wait_for(ROW)
        for columns in (44, 120):
            terminal.resize(columns)
            seen = len(terminal.written)
            terminal.read_until(lambda _, seen=seen: terminal.written.count(ROW.encode(), seen) >= 2)
            assert [row.split()[1] for row in rows_of(terminal)] == [NAME, "last"]
        go_on(project)
        terminal.wait_for("ready in")
        assert rows_of(terminal) == []


def test_ctrl_c_while_workers_start_leaves_no_row(project: Path) -> None:
    with Terminal(project, "dev") as terminal:
        terminal.wait_for(ROW)
    assert rows_of(terminal) == []
    assert "stopped" in terminal.lines[-1]
    assert terminal.has_cursor


def test_a_terminal_that_cannot_move_its_cursor_gets_lines_only(project: Path) -> None:
    with Terminal(project, "dev", TERM="dumb") as terminal:
        terminal.wait_for("still starting after")
        go_on(project)
        terminal.wait_for("ready in")
    assert b"\x1b" not in terminal.written
