"""Where reports go: to the screen of `iii dev`, to followers, and the lines of workers to their log files as well.

Joins `Screen` (what a report looks like), `Writer` (a descriptor that cannot hold up the engine) and `LogBook` (the
files).
"""

from __future__ import annotations

import contextlib
import os
import sys
import time
from collections.abc import Callable, Mapping, Sequence

from iii.engine.config.spec import ProjectSpec
from iii.engine.supervision.reports import LogLine, Report, Reporter
from iii.engine.terminal.log_files import LogBook
from iii.engine.terminal.screen import Screen, Style, Writer


class Display:
    """The reporter of one running engine. Call it with a report.

    `describe(worker)` says what the worker has registered: "2 functions, 1 route".
    """

    def __init__(self, project: ProjectSpec, style: Style, describe: Callable[[str], str]) -> None:
        self._project = project
        self._screen = Screen(style, project.workers, describe)
        self._writer = Writer(sys.stdout.fileno())
        self._is_json = style.json
        self.logs = LogBook(project.state_dir / "logs")
        self._followers: list[Reporter] = []

    def __call__(self, report: Report) -> None:
        """Show a report, pass it to the followers, and keep it if it is a line of a worker."""
        now = time.time()
        for follower in tuple(self._followers):
            follower(report)
        if isinstance(report, LogLine):
            # Also a line that was shown before its end: what follows comes as a line of its own.
            self.logs.write(report)
        self._writer.write(self._screen.lines(report, now))

    def follow(self, follower: Reporter) -> Callable[[], None]:
        """Call `follower` with every report from now on; return the function that ends that."""
        self._followers.append(follower)

        def end() -> None:
            with contextlib.suppress(ValueError):
                self._followers.remove(follower)

        return end

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
    return Style(color=color == "always" or (color == "auto" and wants_color), plain=not is_terminal, json=json_output)
