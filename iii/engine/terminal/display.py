"""Where reports go: to the screen of `iii dev`, and the workers' own lines to their files as well.

Joins `Screen` (what it looks like), `Writer` (a descriptor that cannot hold anybody up) and `LogBook` (the files).
Made by the composition root; called with every report.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from iii.engine.config.spec import ProjectSpec
from iii.engine.supervision.reports import LogLine, Report, Reporter
from iii.engine.terminal.log_files import LogBook
from iii.engine.terminal.screen import Screen, Style, Writer


class Display:
    """The reporter of one running engine. Call it with a report."""

    def __init__(self, project: ProjectSpec, style: Style) -> None:
        self._project = project
        self.describe: Callable[[str], str] = str  # worker -> what it has registered; set once there is an engine
        self._screen = Screen(style, project.workers, self._described)
        self._writer = Writer(sys.stdout.fileno())
        self._is_json = style.json
        self.logs = LogBook(project.state_dir / "logs")
        self._followers: list[Reporter] = []

    def __call__(self, report: Report) -> None:
        """Show a report; keep it too if it is a line of a worker."""
        now = time.time()
        for follower in tuple(self._followers):
            follower(report)
        if isinstance(report, LogLine):
            # Also one that was shown early: what follows comes as a line of its own.
            self.logs.write(report)
        self._writer.write(self._screen.lines(report, now))

    def follow(self, follower: Reporter) -> Callable[[], None]:
        """Tell `follower` every report from now on; return what ends that."""
        self._followers.append(follower)
        return lambda: self._followers.remove(follower)

    def _described(self, worker: str) -> str:
        return self.describe(worker)

    def open(self, version: str, facts: Sequence[tuple[str, str]]) -> None:
        """Show the banner: version, project, interpreter, and the addresses in `facts`."""
        if self._is_json:
            return
        runtime = f"Python {sys.version.partition(' ')[0]}"
        if sys.prefix != sys.base_prefix:
            runtime += f"  {os.path.basename(sys.prefix)}"
        self._writer.write(self._screen.banner(f"iii {version}  {self._project.name}", runtime, facts))

    def close(self) -> None:
        """Write what is queued and close the files."""
        self._writer.close()
        self.logs.close()


def style_of(color: str, environ: Mapping[str, str], *, json_output: bool) -> Style:
    """Return how to show: `color` is auto, always or never; a terminal gets short times, a pipe full ones."""
    is_terminal = sys.stdout.isatty()
    wants_color = is_terminal and not environ.get("NO_COLOR") and environ.get("TERM") != "dumb"
    return Style(
        color=color == "always" or (color == "auto" and wants_color),
        plain=not is_terminal,
        json=json_output,
    )
