"""The access log: one line for each request on stderr, where the engine takes it up.

A line names method, path, status, function and time; never the query, which is where tokens end up. Lines of a burst
leave in one write.
"""

from __future__ import annotations

import asyncio
import sys
from dataclasses import dataclass

# Long enough for a burst to share one write, short enough to be there when somebody looks.
GATHER_SECONDS = 0.05
MAX_PATH = 200


@dataclass(slots=True)
class Outcome:
    """What became of one request. `route` is the template of its path; `error` the code of a failure."""

    method: str
    path: str
    route: str = ""
    function_id: str = ""
    status: int = 0
    error: str = ""
    milliseconds: float = 0.0


class AccessLog:
    """Gathers lines and writes them. `is_on` False keeps what went wrong and drops the rest."""

    def __init__(self, *, is_on: bool) -> None:
        self._is_on = is_on
        self._lines: list[str] = []

    def note(self, outcome: Outcome) -> None:
        """Note what became of one request."""
        if self._is_on:
            path = printable(outcome.path)[:MAX_PATH]
            broken = f" broken off: {outcome.error}" if outcome.error and outcome.status < 400 else ""
            text = f"{outcome.method} {path} {outcome.status} {outcome.function_id or '-'}"
            self._add(f"{text} {outcome.milliseconds:.1f} ms{broken}")

    def warn(self, text: str) -> None:
        """Write something that its author must see."""
        self._add(printable(text))

    def _add(self, line: str) -> None:
        if not self._lines:
            asyncio.get_running_loop().call_later(GATHER_SECONDS, self.flush)
        self._lines.append(line)

    def flush(self) -> None:
        """Write what has been gathered."""
        if self._lines:
            text = "\n".join(self._lines) + "\n"
            self._lines.clear()
            sys.stderr.write(text)
            sys.stderr.flush()


def printable(text: str) -> str:
    """Return the text with everything escaped that a terminal would act on or a log take for a new line."""
    return text if text.isascii() and text.isprintable() else ascii(text)[1:-1]
