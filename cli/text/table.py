"""A table of text for the terminal. Pure. Called by the commands that list things."""

from __future__ import annotations

from collections.abc import Sequence

from cli.text.output import shown


def table(columns: Sequence[str], rows: Sequence[Sequence[object]]) -> str:
    """Return the lines of a table; None and empty cells show as `-`, numbers are set right."""
    cells = [[_cell(value) for value in row] for row in rows]
    widths = [max(len(line[number]) for line in [list(columns), *cells]) for number in range(len(columns))]
    right = [
        bool(rows) and all(isinstance(row[number], (int, float)) for row in rows) for number in range(len(columns))
    ]
    lines = [columns, *cells]
    return "\n".join(_line(line, widths, right) for line in lines)


def _line(cells: Sequence[str], widths: Sequence[int], right: Sequence[bool]) -> str:
    placed = zip(cells, widths, right, strict=True)
    return "  ".join(cell.rjust(width) if is_right else cell.ljust(width) for cell, width, is_right in placed).rstrip()


def _cell(value: object) -> str:
    return "-" if value is None or value == "" else shown(str(value))


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
