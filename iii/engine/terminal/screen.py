"""The screen of `iii dev`: reports -> lines of text. Pure: the same report and style give the same lines.

There are three styles: for a terminal (short times, colors), for a pipe (full times, no color), and JSON (one object a
line). `Writer` writes them.
"""

from __future__ import annotations

import json
import re
import sys
import zlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from datetime import datetime
from typing import Any

import msgspec
from msgspec import Struct

from iii.engine.security.sanitize import sanitize, shorten
from iii.engine.supervision import reports
from iii.engine.supervision.reports import Report
from iii.engine.supervision.run import ExitReason, Run, SourceError
from iii.engine.terminal.logger_lines import LEVELS, readable

# Colors of workers: without red, yellow and grey, which mean something here; readable on dark and on light.
_PALETTE = (36, 35, 34, 32, 96, 95, 94, 92)
_RED, _YELLOW, _DIM, _BOLD = 31, 33, 2, 1
_SOURCE_LINES = 3  # lines of stderr shown for an error that is not a traceback
_LINES = 50  # shown of one record of a Logger
_FRAMES = 8  # lines of the project shown of one traceback; of a deeper one the outer ones are left out
_COLOR = re.compile("\x1b\\[[0-9;]*m")
_LEVEL_COLORS = dict(zip(LEVELS, (_DIM, 0, _YELLOW, _RED), strict=True))


class Style(Struct, frozen=True):
    """How to show: `color`, full ISO times instead of the time of day (`plain`), or `json`.

    `live`: what has still to come up may be drawn below the lines, again and again.
    """

    color: bool = False
    plain: bool = True
    json: bool = False
    live: bool = False


class Screen:
    """Formats reports. `names` fixes the width of the prefix; `describe(worker)`: "2 functions, 1 route".

    `columns` returns how wide the terminal is now: texts that stand apart move together in a narrow one.
    """

    def __init__(
        self,
        style: Style,
        names: Iterable[str],
        describe: Callable[[str], str],
        columns: Callable[[], int] = lambda: sys.maxsize,
    ) -> None:
        self._style = style
        self._columns = columns
        self._width = max(map(len, names), default=0)
        self._describe = describe
        self._formats: dict[type, Callable[[Any, float], list[str]]] = {
            reports.LogLine: self._log_line,
            reports.Became: self._became,
            reports.StartingSlowly: self._starting_slowly,
            reports.AllReady: self._all_ready,
            reports.Reloaded: self._reloaded,
            reports.ReloadFailed: self._reload_failed,
            reports.Exited: self._exited,
            reports.Failed: self._failed,
            reports.Finished: self._finished,
            reports.Holding: self._holding,
            reports.LeftBehind: self._left_behind,
            reports.AllStopped: self._all_stopped,
            reports.Notice: self._notice,
            reports.CallFailed: self._call_failed,
            reports.Repeated: self._repeated,
        }

    def lines(self, report: Report, now: float) -> list[str]:
        """Return the lines that show a report which came at `now` (seconds since the epoch).

        This is the one place where text that is not ours becomes text for a terminal: everything in a report is made
        harmless before it is formatted.
        """
        if self._style.json:
            return [to_json(report, now)]
        # The text of a worker's line is made harmless where it is shown: its colors may stay.
        is_line = isinstance(report, reports.LogLine)
        return self._formats[type(report)](report if is_line else _harmless(report), now)

    def banner(self, title: str, runtime: str, facts: Sequence[tuple[str, str]]) -> list[str]:
        """Return the head of the screen: `iii 0.1.0  hello`, the Python, and two facts a line where they fit."""
        cells = [f"{name:<9}{sanitize(value)}" for name, value in facts]
        width = max(map(len, cells), default=0) + 4
        each = 2 if 2 * width <= self._columns() else 1
        rows = ["".join(f"{cell:<{width}}" for cell in cells[i : i + each]) for i in range(0, len(cells), each)]
        rows = [row.rstrip() for row in rows]
        return [
            self._spread(f"  {self._paint(sanitize(title), _BOLD)}", sanitize(runtime), 52),
            *(f"  {row}" for row in rows),
            "",
        ]

    # One method for each class of report.

    def _log_line(self, report: reports.LogLine, _now: float) -> list[str]:
        if report.is_partial and self._style.plain:
            return []  # nobody sits there and waits: the whole line is enough
        level, text = readable(report.text)
        level = level or report.level
        first, *more = (sanitize(shorten(line), color=self._style.color) for line in text.split("\n")[:_LINES])
        if level:
            first = f"{self._paint(level.upper(), _LEVEL_COLORS[level])} {first}"
        sign = "x" if report.details else "|"
        below = (*more, *_harmless(report.details))
        return [self._prefixed(report.run, sign, first, report.time), *map(self._below, below)]

    def _became(self, report: reports.Became, _now: float) -> list[str]:
        name = f"{_label(report.run):<{self._width}}"
        what = sanitize(self._describe(report.run.worker))
        left = f"  + {self._paint(name, _color_of(report.run.worker))}"
        took = duration(report.seconds)
        if self._width + len(what) + len(took) + 9 <= self._columns():
            left += f"   {what}"
        return [self._spread(left, took, self._width + 49)]

    def _starting_slowly(self, report: reports.StartingSlowly, _now: float) -> list[str]:
        return [f"  . still starting after {duration(report.seconds)}: {', '.join(report.workers)}"]

    def _all_ready(self, report: reports.AllReady, _now: float) -> list[str]:
        line = f"  ready in {duration(report.seconds)}"
        if report.failed:
            line += self._paint(f", but not {', '.join(report.failed)}", _RED)
        return [self._spread(line, "Ctrl-C stops", 50) if len(line) < self._columns() - 14 else line, ""]

    def _reloaded(self, report: reports.Reloaded, now: float) -> list[str]:
        calls = f" ({count(report.finishing, 'call')} finishing on the old code)" if report.finishing else ""
        why = f"{', '.join(report.files)} changed: reloaded" if report.files else "ready again"
        return [self._prefixed(report.run, "~", f"{why} in {duration(report.seconds)}{calls}", now)]

    def _reload_failed(self, report: reports.ReloadFailed, now: float) -> list[str]:
        since = f"{datetime.fromtimestamp(report.since):%H:%M:%S}"
        return [*self._error(report.run, report.reason, now), self._below(f"still serving the version from {since}")]

    def _exited(self, report: reports.Exited, now: float) -> list[str]:
        of = f" of {report.limit}" if report.limit else ""
        text = f"{report.reason.words}, restart {report.count}{of} in {duration(report.delay)}"
        return [self._prefixed(report.run, "!", self._paint(text, _YELLOW), now), *self._where(report.reason)]

    def _failed(self, report: reports.Failed, now: float) -> list[str]:
        times = f" ({count(report.count, 'exit')} in a minute)" if report.count else ""
        lines = self._error(report.run, report.reason, now)
        hint = f"stopped{times}: save a file or run `iii worker restart {report.run.worker}` to try again"
        return [*lines, self._below(hint)]

    def _finished(self, report: reports.Finished, now: float) -> list[str]:
        return [self._prefixed(report.run, "!", f"{report.reason.words}; not restarted", now)]

    def _holding(self, report: reports.Holding, now: float) -> list[str]:
        what = f"{count(report.calls, 'call')} in flight" if report.calls else "the process to exit"
        text = f"waiting for {what}, at most {duration(report.seconds)} more"
        return [self._prefixed(report.run, "~", text, now)]

    def _left_behind(self, report: reports.LeftBehind, now: float) -> list[str]:
        pids = ", ".join(map(str, report.pids))
        why = "keeps running (keep_children)" if report.on_purpose else "cannot be killed"
        return [self._prefixed(report.run, "!", f"{why}: {pids}", now)]

    def _all_stopped(self, report: reports.AllStopped, _now: float) -> list[str]:
        return [f"  stopped {count(report.workers, 'worker')} in {duration(report.seconds)}"]

    def _notice(self, report: reports.Notice, now: float) -> list[str]:
        color = {"info": 0, "warning": _YELLOW, "error": _RED}[report.level]
        first = self._prefixed(Run(report.worker or "iii", 0, 0), "!", self._paint(report.text, color), now)
        return [first, *map(self._below, report.details)]

    def _call_failed(self, report: reports.CallFailed, now: float) -> list[str]:
        head, details = failure_lines(report)
        return [self._prefixed(report.run, "x", self._paint(head, _RED), now), *map(self._below, details)]

    def _repeated(self, report: reports.Repeated, now: float) -> list[str]:
        first = self._formats[type(report.report)](report.report, now)[0]
        what = "others like it" if report.is_others else "times"
        return [f"{first}  ({report.count} {what} more in {duration(report.seconds)})"]

    # Their parts.

    def _error(self, run: Run, reason: ExitReason, now: float) -> list[str]:
        error = reason.error
        if error is None:
            head = self._prefixed(run, "x", self._paint(reason.words, _RED), now)
            return [head, *map(self._below, reason.stderr[-_SOURCE_LINES:])]
        prefix = self._prefixed(run, "x", "", now)
        left = prefix + self._paint(error.text, _RED)
        place = self._spread(left, f"{error.file}:{error.line}", len(_COLOR.sub("", prefix)) + 36)
        return [place, *self._where(reason, brief=True)]

    def _where(self, reason: ExitReason, *, brief: bool = False) -> list[str]:
        error = reason.error
        if error is None:
            return []
        head = [] if brief else [f"{error.text}  {error.file}:{error.line}"]
        return [self._below(line) for line in (*head, *_trail(error))]

    def _spread(self, left: str, right: str, column: int) -> str:
        """Return both texts on one line, `right` at this column, or as far before it as a narrow terminal asks for."""
        width = len(_COLOR.sub("", left))
        gap = min(column, self._columns() - len(right)) - width
        return f"{left}{' ' * max(2, gap)}{right}".rstrip()

    def _prefixed(self, run: Run, sign: str, text: str, time: float) -> str:
        name = self._paint(f"{_label(run):<{self._width}}", _color_of(run.worker))
        painted_sign = self._paint(sign, {"x": _RED, "!": _YELLOW, "|": _DIM}.get(sign, 0))
        return f"{self._paint(self._clock(time), _DIM)} {name} {painted_sign} {text}"

    def _below(self, text: str) -> str:
        return f"{' ' * (len(self._clock(0.0)) + self._width + 2)}{self._paint('|', _DIM)} {text}"

    def _clock(self, time: float) -> str:
        moment = datetime.fromtimestamp(time).astimezone()
        if self._style.plain:
            return moment.isoformat(timespec="milliseconds")
        return f"{moment:%H:%M:%S}.{moment.microsecond // 1000:03d}"

    def _paint(self, text: str, color: int) -> str:
        return f"\x1b[{color}m{text}\x1b[0m" if self._style.color and color else text


def failure_lines(report: reports.CallFailed) -> tuple[str, tuple[str, ...]]:
    """Return the line that says that a call has failed, and those below it: where, what made the call, its trace."""
    error = report.error
    place = f"  {error.file}:{error.line}" if error.file else ""
    trace = f"; trace {report.trace_id}" if report.trace_id else ""
    return f"{report.function_id} failed: {error.text}{place}", (*_trail(error), f"{report.invoked_by}{trace}")


def _trail(error: SourceError) -> Iterator[str]:
    """Yield the lines of the project that led to an error, the innermost last, and the errors before it."""
    hidden = len(error.frames) - _FRAMES
    if hidden > 0:
        yield f"... {count(hidden, 'line')} of the project more"
    for frame in error.frames[max(hidden, 0) : -1]:
        yield f"{frame.line:>4} | {frame.source}  {frame.file}" + (f", in {frame.function}" if frame.function else "")
    if error.source:
        yield f"{error.line:>4} | {error.source}"
    for cause in error.causes:
        yield f"caused by {cause}"


def _harmless(value: Any) -> Any:
    """Return a report, or any value in one, with every text in it safe to show and not longer than a line may be."""
    if isinstance(value, str):
        return sanitize(shorten(value))
    if isinstance(value, tuple):
        return tuple(map(_harmless, value))
    if isinstance(value, Struct):
        fields = {name: _harmless(getattr(value, name)) for name in value.__struct_fields__}
        return type(value)(**fields)
    return value


def to_json(report: Report, now: float) -> str:
    """Return a report as one JSON object: `time`, `kind`, and its fields; a run is spread over three of them."""
    return json.dumps({"time": now, **_plain(report)}, separators=(",", ":"))


def _plain(report: Report) -> dict[str, Any]:
    fields = {"kind": type(report).__name__, **msgspec.to_builtins(report)}
    if isinstance(report, reports.Repeated):
        fields["report"] = _plain(report.report)
    run = fields.pop("run", None)
    return {**fields, **(run or {})}


def duration(seconds: float) -> str:
    """Return `84 ms`, `0.8 s`, `2 min`."""
    if seconds < 0.2:
        return f"{seconds * 1000:.0f} ms"
    return f"{seconds:.1f} s" if seconds < 120 else f"{seconds / 60:.0f} min"


def count(number: int, noun: str) -> str:
    """Return `1 call`, `2 calls`."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def _label(run: Run) -> str:
    return f"{run.worker}[{run.instance}]" if run.instance else run.worker


def _color_of(worker: str) -> int:
    return _PALETTE[zlib.crc32(worker.encode()) % len(_PALETTE)]
