"""The display: what it hands to followers and files."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from iii.engine.config.spec import ProjectSpec
from iii.engine.supervision.reports import CallFailed, Exited, Failed, LogLine, Notice, Repeated, Report
from iii.engine.supervision.run import ExitReason, Run, SourceError
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


RUN = Run("web", 0, 1)
ERROR = SourceError("web.py", 3, "ValueError: no", "raise ValueError('no')")
BROKEN = ExitReason("exited with code 1", exit_code=1, error=ERROR)
TRACEBACK = (
    "Traceback (most recent call last):",
    '  File "web.py", line 3, in <module>',
    "    raise ValueError('no')",
    "ValueError: no",
)


class Stage:
    """A display whose timers the test lets ring."""

    def __init__(self, folder: Path, capfd: pytest.CaptureFixture[str]) -> None:
        self.timers: list[Callable[[], None]] = []
        self.capfd = capfd
        project = ProjectSpec(root=folder, name="p", file=folder / "iii.toml")
        self.display = Display(project, Style(), str, self.call_later)

    def call_later(self, _seconds: float, ring: Callable[[], None]) -> object:
        self.timers.append(ring)
        return ring

    def ring(self) -> None:
        timers, self.timers = self.timers, []
        for timer in timers:
            timer()

    def shown(self) -> list[str]:
        """Close the display and return what it has shown, without the times."""
        self.display.close()
        return [shown.partition("web ")[2] or shown.strip() for shown in self.capfd.readouterr().out.splitlines()]


@pytest.fixture
def stage(tmp_path: Path, capfd: pytest.CaptureFixture[str]) -> Stage:
    return Stage(tmp_path, capfd)


def test_the_traceback_that_a_worker_dies_of_is_shown_once(stage: Stage, tmp_path: Path) -> None:
    for text in ("starting", *TRACEBACK, "bye"):
        stage.display(LogLine(RUN, 1.0, text))
    stage.display(Failed(RUN, BROKEN))
    stage.ring()
    assert stage.shown() == [
        "| starting",
        "| bye",
        "x ValueError: no                      web.py:3",
        "|    3 | raise ValueError('no')",
        "| stopped: save a file or run `iii worker restart web` to try again",
    ]
    assert (tmp_path / ".iii/logs/web.log").read_text().count("\n") == 7


def test_a_traceback_that_a_worker_survives_is_shown_as_it_is(stage: Stage) -> None:
    for text in TRACEBACK:
        stage.display(LogLine(RUN, 1.0, text))
    stage.ring()
    stage.display(Failed(RUN, BROKEN))
    assert stage.shown()[:4] == [f"| {text}" for text in TRACEBACK]


def test_the_error_of_the_exit_before_is_one_line(stage: Stage) -> None:
    stage.display(Exited(RUN, BROKEN, 0.1, 1, 5))
    stage.display(Exited(Run("web", 0, 2), BROKEN, 0.1, 2, 5))
    assert stage.shown()[3:] == ["! exited with code 1, as before: ValueError: no (web.py:3), restart 2 of 5 in 100 ms"]


def test_a_flood_of_one_sentence_is_two_lines(stage: Stage) -> None:
    heard: list[Report] = []
    stage.display.follow(heard.append)
    for _ in range(10_000):
        stage.display(Notice("it was dropped", "web"))
    first, second = stage.shown()
    assert first == "! it was dropped"
    assert second.startswith("! it was dropped  (9999 times more in ")
    assert [type(report) for report in heard] == [Notice, Repeated]


def test_a_failed_call_is_an_error_in_the_log_of_its_worker(stage: Stage, tmp_path: Path) -> None:
    stage.display(CallFailed(RUN, "web::send", "void", "void call of shop", ERROR))
    stage.shown()
    log = (tmp_path / ".iii/logs/web.log").read_text()
    assert '"level":"error"' in log
    assert '"details":["   3 | raise ValueError(\'no\')","void call of shop"]' in log
