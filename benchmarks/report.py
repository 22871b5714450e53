"""Show rows as a table, and write them with the machine they came from to RESULTS.md."""

from __future__ import annotations

import datetime
import os
import platform
from collections.abc import Sequence
from importlib.metadata import PackageNotFoundError, version
from pathlib import Path

from benchmarks.harness import Row
from benchmarks.native import compiler
from benchmarks.notes import misses

RESULTS = Path(__file__).resolve().parent / "RESULTS.md"
COLUMNS = ("#", "what", "measured", "baseline", "ratio", "spread", "target", "")
PACKAGES = ("msgspec", "orjson", "uvloop", "click", "watchfiles")


def cells(row: Row) -> tuple[str, ...]:
    """Return one row as text."""
    sign = "<=" if row.smaller_is_better else ">="
    target = "" if row.target is None else f"{sign} {row.target:g}x"
    spread = f"{row.low:.2f} to {row.high:.2f}"
    return (row.name, row.what, row.measured, row.baseline, f"{row.ratio:.2f}x", spread, target, row.verdict)


def table(rows: Sequence[Row]) -> str:
    """Return the rows as a Markdown table whose columns also line up in a terminal."""
    lines = [COLUMNS, *map(cells, rows)]
    widths = [max(len(line[column]) for line in lines) for column in range(len(COLUMNS))]
    lines.insert(1, tuple("-" * width for width in widths))
    return "\n".join(
        "| " + " | ".join(text.ljust(width) for text, width in zip(line, widths, strict=True)) + " |" for line in lines
    )


def machine() -> str:
    """Return where and with what the figures were made."""
    packages = ", ".join(f"{name} {installed(name)}" for name in PACKAGES)
    lines = [
        f"- {datetime.date.today().isoformat()}, load {os.getloadavg()[0]:.2f} at the end",
        f"- {processor()}, {os.cpu_count()} CPUs, {platform.system()} {platform.release()}",
        f"- {platform.python_implementation()} {platform.python_version()}, {packages}",
        f"- ends: {'C' if compiler() else 'Python'}",
    ]
    return "\n".join(lines)


def installed(package: str) -> str:
    """Return its version."""
    try:
        return version(package)
    except PackageNotFoundError:
        return "-"


def processor() -> str:
    """Return the name of the CPU as the kernel gives it."""
    info = Path("/proc/cpuinfo")
    names = [line for line in info.read_text().splitlines() if line.startswith("model name")] if info.exists() else []
    return names[0].partition(":")[2].strip() if names else platform.machine()


def write(rows: Sequence[Row]) -> None:
    """Replace RESULTS.md."""
    RESULTS.write_text(page(rows), encoding="utf-8")


def page(rows: Sequence[Row]) -> str:
    """Return the text of RESULTS.md: machine, table, and a note on each miss."""
    head = f"# Benchmark results\n\n`python -m benchmarks` wrote this file.\n\n{machine()}\n\n{table(rows)}\n"
    found = misses(rows)
    return f"{head}\n{found}" if found else head
