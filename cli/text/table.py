"""A table of text for the terminal."""

from __future__ import annotations

import shutil
import sys
from collections.abc import Iterable, Sequence

from cli.text.output import shown

# The narrowest that a column is cut to.
LEAST_WIDTH = 12


def table(
    columns: Sequence[str],
    rows: Iterable[Sequence[object]],
    *,
    cut: str = "",
    drop: Sequence[str] = (),
    width: int | None = None,
) -> str:
    """Return the lines of a table; None and empty cells show as `-`, numbers are set right.

    Where the lines are longer than `width` (by default the terminal's, none for a pipe), the column `cut` is shortened,
    then those in `drop` are left out, the first one first. No line is broken, and no other cell is cut.
    """
    rows = list(rows)
    width = terminal_width() if width is None else width
    cells = [["-" if value is None or value == "" else shown(str(value)) for value in row] for row in rows]
    lines = [list(columns), *cells]
    aligns = [
        str.rjust if rows and all(isinstance(row[number], (int, float)) for row in rows) else str.ljust
        for number in range(len(columns))
    ]
    widths = [max(len(line[number]) for line in lines) for number in range(len(columns))]
    kept = list(range(len(columns)))
    if width is not None:
        _fit(columns, widths, kept, width, cut, drop)
    return "\n".join(
        "  ".join(aligns[number](_short(line[number], widths[number]), widths[number]) for number in kept).rstrip()
        for line in lines
    )


def _fit(columns: Sequence[str], widths: list[int], kept: list[int], width: int, cut: str, drop: Sequence[str]) -> None:
    """Make the columns narrower, and fewer, until they fit."""
    for left_out in ("", *drop):
        kept[:] = [number for number in kept if columns[number] != left_out]
        excess = sum(widths[number] for number in kept) + 2 * (len(kept) - 1) - width
        if excess <= 0:
            return
        for number in kept:
            if columns[number] == cut and widths[number] - excess >= LEAST_WIDTH:
                widths[number] -= excess
                return


def _short(text: str, width: int) -> str:
    return text if len(text) <= width else text[: width - 1] + "…"


def terminal_width() -> int | None:
    """Return the columns of the terminal that stdout is, None if it is none."""
    return shutil.get_terminal_size().columns if sys.stdout.isatty() else None


def duration(seconds: float | None) -> str | None:
    """Return seconds as `12s`, `3m 20s`, `5h 2m` or `4d 3h`."""
    if seconds is None:
        return None
    whole = int(seconds)
    for size, unit, smaller, small_unit in ((86400, "d", 3600, "h"), (3600, "h", 60, "m"), (60, "m", 1, "s")):
        if whole >= size:
            return f"{whole // size}{unit} {whole % size // smaller}{small_unit}"
    return f"{whole}s"


def size(count: float | None) -> str | None:
    """Return bytes as `812 B`, `24.1 MB` (powers of 1000)."""
    if count is None:
        return None
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.0f} {unit}" if unit == "B" else f"{count:.1f} {unit}"
        count /= 1000
    return f"{count:.1f} TB"
