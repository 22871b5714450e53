"""Reads where a worker's code is wrong from the last lines it wrote to stderr. Pure;
used when a process has died.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from iii.engine.run import SourceError

_FRAME = re.compile(r'^\s*File "(?P<file>[^"]+)", line (?P<line>\d+)')
# `ValueError: text`, `a.b.CustomError: text`, a bare `KeyboardInterrupt`; frames and source lines are
# indented.
_ERROR = re.compile(r"^[A-Za-z_][\w.]*(?::\s.*|$)")
_MARKERS = re.compile(r"^[\s^~]*$")


def parse_traceback(lines: Sequence[str], root: Path) -> SourceError | None:
    """Return the innermost frame inside `root` of the last Python traceback, None if there is none.

    A traceback that never touches the project names its innermost frame.
    """
    frames: list[tuple[int, str, int]] = []
    text = ""
    for index, line in enumerate(lines):
        if line.startswith("Traceback (most recent call last)"):
            frames, text = [], ""
        elif match := _FRAME.match(line):
            frames.append((index, match["file"], int(match["line"])))
            text = ""
        elif frames and not text and _ERROR.match(line):
            text = line
    if not frames or not text:
        return None
    index, file, number = _innermost(frames, root)
    return SourceError(file, number, text, _source_after(lines, index))


def _innermost(frames: list[tuple[int, str, int]], root: Path) -> tuple[int, str, int]:
    for index, file, number in reversed(frames):
        path = Path(file)
        if path.is_relative_to(root) and not {".venv", "site-packages"} & set(path.parts):
            return index, str(path.relative_to(root)), number
    return frames[-1]


def _source_after(lines: Sequence[str], index: int) -> str:
    following = lines[index + 1] if index + 1 < len(lines) else ""
    is_source = following.startswith("    ") and not _FRAME.match(following) and not _MARKERS.match(following)
    return following.strip() if is_source else ""
