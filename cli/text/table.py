"""A table of text for the terminal. Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence

from cli.text.output import shown


def table(columns: Sequence[str], rows: Iterable[Sequence[object]]) -> str:
    """Return the lines of a table; None and empty cells show as `-`, numbers are set right."""
    rows = list(rows)
    cells = [["-" if value is None or value == "" else shown(str(value)) for value in row] for row in rows]
    widths = [max(len(line[number]) for line in [list(columns), *cells]) for number in range(len(columns))]
    aligns = [
        str.rjust if rows and all(isinstance(row[number], (int, float)) for row in rows) else str.ljust
        for number in range(len(columns))
    ]
    lines = [
        "  ".join(align(cell, width) for cell, width, align in zip(line, widths, aligns, strict=True)).rstrip()
        for line in [columns, *cells]
    ]
    return "\n".join(lines)


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
