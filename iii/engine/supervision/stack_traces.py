"""What a traceback says, of Python or of JavaScript: the error, and the lines of the project that were running. Pure.

Reads what a process has written before it died, and the `stacktrace` of a call that failed.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import Path

from iii.engine.supervision.run import Frame, SourceError

MAX_CAUSES = 4
# Seconds between a traceback and the exit that it explains: threads and exit handlers may still have to end.
TRACEBACK_WINDOW = 2.0
# Folders of installed code: their lines say little to whoever wrote the project.
_INSTALLED = {".venv", "site-packages", "dist-packages", "node_modules"}

_FRAME = re.compile(r'^\s*File "(?P<file>[^"]+)", line (?P<line>\d+)(?:, in (?P<function>.*))?$')
# `ValueError: text`, `a.b.CustomError: text`, a bare `KeyboardInterrupt`; frames and source lines are indented.
_ERROR = re.compile(r"^[A-Za-z_][\w.]*(?::\s.*|$)")
_MARKERS = re.compile(r"^[\s^~]*$")
_HEADER = "Traceback (most recent call last)"

# `    at send (file:///project/mail.mjs:7:11)`, `    at /project/mail.js:7:11`
_JS_FRAME = re.compile(
    r"^\s+at (?:async )?(?:(?P<function>.*) \()?(?:file://)?(?P<file>/[^():]+):(?P<line>\d+):\d+\)?$"
)
# `SyntaxError: text`, `TypeError [ERR_X]: text`, `[TypeError: text] {`
_JS_ERROR = re.compile(r"^\[?(?:Uncaught )?(?P<text>[A-Z]\w*(?:Error|Exception)(?: \[\w+\])?: .*?)\]?(?: \{)?$")
# What node writes above an error of the whole program: `/project/mail.js:7`, the line itself, and a caret below it.
_JS_PLACE = re.compile(r"^(?:file://)?(?P<file>/[^():]+):(?P<line>\d+)$")
# Of the compilers that loaders use: `/project/mail.ts:7:11: ERROR: Expected ";" but found "x"`
_COMPILER = re.compile(r"^(?P<file>/[^():]+):(?P<line>\d+):\d+: ERROR: (?P<text>.*)$")


def parse_traceback(written: Iterable[str], root: Path) -> SourceError | None:
    """Return the error of the last traceback, with its lines inside `root`; None if there is no traceback.

    A traceback that never touches the project has one frame, its innermost.
    """
    lines = tuple(written)
    return _python(lines, root) or _javascript(lines, root)


def error_behind(code: int, lines: Iterable[tuple[float, str]], died_at: float, root: Path) -> SourceError | None:
    """Return the error that ended a process which the engine had not ended, None if none is known.

    `code` is the exit code, or the signal negated; `lines` are those of its stderr, each with when it came. A traceback
    is no cause of a signal, nor of an exit long after it: that error was handled.
    """
    if code <= 0:
        return None
    return parse_traceback([line for at, line in lines if died_at - at < TRACEBACK_WINDOW], root)


def begins_traceback(line: str) -> bool:
    """Whether a traceback may begin with this line."""
    return line.startswith((_HEADER, '  File "')) or bool(_JS_PLACE.match(line))


def _python(lines: Sequence[str], root: Path) -> SourceError | None:
    frames: list[tuple[str, Frame]] = []
    text = ""
    errors: list[tuple[str, list[tuple[str, Frame]]]] = []
    for index, line in enumerate(lines):
        if line.startswith(_HEADER):
            frames, text = [], ""
        elif match := _FRAME.match(line):
            if text:  # a second traceback without a header: of a syntax error
                frames, text = [], ""
            source = lines[index + 1] if index + 1 < len(lines) else ""
            is_source = source.startswith("    ") and not _FRAME.match(source) and not _MARKERS.match(source)
            name = (match["function"] or "").removeprefix("<module>")
            shown = Frame(match["file"], int(match["line"]), name, source.strip() if is_source else "")
            frames.append((match["file"], shown))
        elif frames and not text and _ERROR.match(line):
            text = line
            errors.append((text, frames))
    if not errors or not text:
        return None
    causes = []
    for cause, its_frames in errors[:-1][-MAX_CAUSES:]:
        place = _of_project(its_frames, root)[-1]
        causes.append(f"{cause}  {place.file}:{place.line}")
    text, frames = errors[-1]
    return _error(text, _of_project(frames, root), tuple(causes))


def _javascript(lines: Sequence[str], root: Path) -> SourceError | None:
    text = ""
    head: list[tuple[str, Frame]] = []
    frames: list[tuple[str, Frame]] = []
    for index, line in enumerate(lines):
        if match := _COMPILER.match(line):
            file = match["file"]
            return _error(f"SyntaxError: {match['text']}", _of_project([(file, Frame(file, int(match["line"])))], root))
        if match := _JS_PLACE.match(line):
            source = lines[index + 1].strip() if index + 1 < len(lines) else ""
            head, frames, text = [(match["file"], Frame(match["file"], int(match["line"]), "", source))], [], ""
        elif match := _JS_ERROR.match(line):
            if not text:
                text, frames = match["text"], []
        elif text and (match := _JS_FRAME.match(line)):
            frames.append((match["file"], Frame(match["file"], int(match["line"]), match["function"] or "")))
    if not text or not (head or frames):
        return None
    innermost_last = frames[::-1]
    of_project = _of_project(innermost_last, root) if innermost_last else []
    # The head names the very line, with its text; the frames of a syntax error are those of the loader.
    if head and (not of_project or not _is_inside(innermost_last, root)):
        of_project = _of_project(head, root)
    elif head and of_project[-1].line == head[0][1].line:
        of_project[-1] = Frame(of_project[-1].file, of_project[-1].line, of_project[-1].function, head[0][1].source)
    return _error(text, of_project)


def _error(text: str, frames: list[Frame], causes: tuple[str, ...] = ()) -> SourceError:
    innermost = frames[-1]
    return SourceError(innermost.file, innermost.line, text, innermost.source, tuple(frames), causes)


def _is_inside(frames: Sequence[tuple[str, Frame]], root: Path) -> bool:
    return any(_is_own(Path(file), root) for file, _ in frames)


def _is_own(path: Path, root: Path) -> bool:
    return path.is_relative_to(root) and not _INSTALLED & set(path.parts)


def _of_project(frames: Sequence[tuple[str, Frame]], root: Path) -> list[Frame]:
    """Return the frames of the project's own files, named from its root; without any, the innermost frame."""
    own = [
        Frame(str(Path(file).relative_to(root)), frame.line, frame.function, frame.source)
        for file, frame in frames
        if _is_own(Path(file), root)
    ]
    return own or [frames[-1][1]]
