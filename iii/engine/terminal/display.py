"""Where reports go: to the screen of `iii dev`, to followers, and the lines of workers to their log files as well.

Joins `Screen` (what a report looks like), `Writer` (a descriptor that cannot hold up the engine) and `LogBook` (the
files).
"""

from __future__ import annotations

import contextlib
import os
import shutil
import sys
import time
from collections.abc import Callable, Hashable, Iterable, Mapping, Sequence
from typing import Any

from msgspec.structs import replace

from iii.engine.config.spec import ProjectSpec
from iii.engine.security.sanitize import sanitize
from iii.engine.supervision.reports import (
    AllReady,
    Became,
    CallFailed,
    Exited,
    Failed,
    Finished,
    LogLine,
    Notice,
    Reloaded,
    ReloadFailed,
    Report,
    Reporter,
    StartingSlowly,
)
from iii.engine.supervision.run import Run, SourceError
from iii.engine.supervision.stack_traces import begins_traceback
from iii.engine.terminal.log_files import CallLater, LogBook, at_once
from iii.engine.terminal.repeats import Repeats
from iii.engine.terminal.screen import Screen, Style, failure_lines
from iii.engine.terminal.writer import Starting, Writer

# Seconds within which a process ends after the traceback that it dies of. Until then the traceback is held back: the
# report of the end shows its lines of the project, and the log file has all of it.
HOLD_TIMEOUT = 0.3
MAX_HELD = 500  # lines of one process


class Display:
    """The reporter of one running engine. Call it with a report.

    `describe(worker)` says what the worker has registered: "2 functions, 1 route". `call_later(seconds, callback)` is
    the event loop's; without it nothing is shown later than its report.
    """

    def __init__(
        self,
        project: ProjectSpec,
        style: Style,
        describe: Callable[[str], str],
        call_later: CallLater = at_once,
    ) -> None:
        self._project = project
        columns = (lambda: sys.maxsize) if style.plain else (lambda: shutil.get_terminal_size().columns)
        self._screen = Screen(style, project.workers, describe, columns)
        self._writer = Writer(sys.stdout.fileno())
        self._is_json = style.json
        self._is_live = style.live
        self._call_later = call_later
        self.logs = LogBook(project.state_dir / "logs", call_later)
        self._followers: list[Reporter] = []
        self._repeats = Repeats()
        self._is_timer_armed = False
        self._held: dict[Run, list[LogLine]] = {}
        self._starting: dict[str, None] = {}  # workers that have a row at the bottom of the terminal
        self._last_errors: dict[tuple[str, int], SourceError] = {}  # of each instance, since it was last ready

    def __call__(self, report: Report) -> None:
        """Show a report, pass it to the followers, and keep it if it is a line of a worker or a call that failed.

        A report that repeats another one is counted, and told later.
        """
        if isinstance(report, LogLine):
            if not report.is_partial:  # else the whole line follows
                self._tell(report)
                self.logs.write(report)
            if not self._is_held(report):
                self._show(report)
            return
        if (said := _identity_of(report)) is not None and not self._repeats.is_new(report, *said, time.monotonic()):
            self._arm_timer()
            return
        self._tell(report)
        if isinstance(report, CallFailed):
            self.logs.write(log_line(report, time.time()))
        elif isinstance(report, Became | Reloaded):
            self._last_errors.pop((report.run.worker, report.run.instance), None)
        elif isinstance(report, Exited | Failed | ReloadFailed | Finished):
            self._release(report.run, report.reason.error)
            self.logs.write(log_line_of_exit(report, time.time()))
            report = self._without_known_error(report)
        self._show(report)

    def starting(self, names: Iterable[str]) -> None:
        """Show which workers have still to come up, until they are, at the bottom of a terminal."""
        if self._is_live:
            self._starting = dict.fromkeys(names)
            self._writer.write([], self._rows())

    def _rows(self) -> Starting:
        """Return what each worker that has still to come up does."""
        rows = {}
        for name in self._starting:
            spec = self._project.workers.get(name)
            before = [other for other in spec.after if other in self._starting] if spec is not None else []
            rows[sanitize(name)] = sanitize(f"waits for {', '.join(before)}" if before else "starting")
        return rows

    def _show(self, report: Report) -> None:
        if self._starting:
            if isinstance(report, StartingSlowly):
                return  # the rows say so all the time
            if isinstance(report, AllReady):
                self._starting = {}
            elif isinstance(report, Became | Failed | Finished):
                self._starting.pop(report.run.worker, None)
        self._writer.write(self._screen.lines(report, time.time()), self._rows())

    def _tell(self, report: Report) -> None:
        for follower in tuple(self._followers):
            follower(report)

    # Tracebacks, which are shown once

    def _is_held(self, line: LogLine) -> bool:
        """Hold a line of a traceback back, and those after it; the JSON form has every line at once."""
        held = self._held.get(line.run)
        if held is None:
            if self._is_json or not begins_traceback(line.text):
                return False
            held = self._held[line.run] = []
            if self._call_later(HOLD_TIMEOUT, lambda: self._release(line.run, None)) is None:
                del self._held[line.run]
                return False
        held.append(line)
        if len(held) > MAX_HELD:
            self._release(line.run, None)
        return True

    def _release(self, run: Run, error: SourceError | None) -> None:
        """Show the lines held back of this process, without the traceback of `error`, which its report shows."""
        lines = self._held.pop(run, [])
        if error is not None and lines:
            # Of Python the error is the last line; of JavaScript its stack follows, up to the end.
            is_python = lines[0].text.startswith(("Traceback", "  File"))
            ends = [index for index, line in enumerate(lines) if line.text == error.text or not is_python]
            lines = lines[ends[-1] + 1 :] if ends else lines
        for line in lines:
            self._show(line)

    def _without_known_error(self, report: Any) -> Any:
        """Return the report of an exit; an error that was shown for the exit before is only named."""
        instance, error = (report.run.worker, report.run.instance), report.reason.error
        if error is None:
            return report
        if self._last_errors.get(instance) != error:
            self._last_errors[instance] = error
            return report
        words = f"{report.reason.words}, as before: {error}"
        return replace(report, reason=replace(report.reason, words=words, error=None, stderr=()))

    # Reports that come again and again

    def _arm_timer(self) -> None:
        if self._is_timer_armed or (due := self._repeats.due) is None:
            return
        timer = self._call_later(max(0.0, due - time.monotonic()), self._tell_repeats)
        self._is_timer_armed = timer is not None

    def _tell_repeats(self, *, everything: bool = False) -> None:
        self._is_timer_armed = False
        for repeated in self._repeats.take(time.monotonic(), everything=everything):
            self._tell(repeated)
            if isinstance(repeated.report, CallFailed):
                self.logs.write(log_line(repeated.report, time.time(), f" ({repeated.count} more)"))
            self._show(repeated)
        if not everything:
            self._arm_timer()

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
        """Write what is held back and queued, and close the files."""
        for run in tuple(self._held):
            self._release(run, None)
        self._tell_repeats(everything=True)
        self._writer.close()
        self.logs.close()


def log_line(report: CallFailed, now: float, more: str = "") -> LogLine:
    """Return the line of the log that tells of a call that failed."""
    head, details = failure_lines(report)
    return LogLine(report.run, now, head + more, "engine", level="error", details=() if more else details)


def log_line_of_exit(report: Exited | Failed | ReloadFailed | Finished, now: float) -> LogLine:
    """Return the line of the log that tells how a process has ended, below what the process has written itself."""
    level = {Exited: "warn", Finished: "info"}.get(type(report), "error")
    error = f": {report.reason.error}" if report.reason.error else ""
    return LogLine(report.run, now, f"{report.reason.words}{error}", "engine", level=level)


def _identity_of(report: Report) -> tuple[Hashable, Hashable] | None:
    """Return what makes two reports the same, and the group of those that one cause may flood the screen with."""
    if isinstance(report, Notice):
        return (report.worker, report.level, report.text), (report.worker, report.level)
    if isinstance(report, CallFailed):
        group = (report.function_id, report.cause, report.is_final)
        return (*group, report.error.text, report.error.file, report.error.line), group
    return None


def style_of(color: str, environ: Mapping[str, str], *, json_output: bool) -> Style:
    """Return how to show: `color` is auto, always or never; a terminal gets short times, a pipe full ones."""
    is_terminal = sys.stdout.isatty()
    can_draw = is_terminal and environ.get("TERM") not in ("dumb", "unknown")
    wants_color = can_draw and not environ.get("NO_COLOR")
    return Style(
        color=color == "always" or (color == "auto" and wants_color),
        plain=not is_terminal,
        json=json_output,
        live=can_draw and not json_output,
    )
