"""The display: what it hands to followers and files."""

from __future__ import annotations

from pathlib import Path

import pytest

from iii.engine.config.spec import ProjectSpec
from iii.engine.supervision.reports import LogLine, Report
from iii.engine.supervision.run import Run
from iii.engine.terminal.display import Display
from iii.engine.terminal.screen import Style


def line(text: str) -> LogLine:
    return LogLine(Run("web", 1, 3), 1_700_000_000.5, text)


def test_followers_hear_every_line_until_they_leave(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> None:
    display = Display(ProjectSpec(root=tmp_path, name="p", file=tmp_path / "iii.toml"), Style(), str)
    heard: list[Report] = []
    leave = display.follow(heard.append)
    display(line("one"))
    leave()
    leave()
    display(line("two"))
    display.close()
    assert heard == [line("one")]
    assert [shown.split()[-1] for shown in capfd.readouterr().out.splitlines()] == ["one", "two"]
    assert (tmp_path / ".iii/logs/web.log").read_text().count("\n") == 2
