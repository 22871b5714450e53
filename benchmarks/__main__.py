"""`python -m benchmarks [b1 b2 ...] [--quick]`: run benchmarks, print their table, record a full run."""

from __future__ import annotations

import argparse
import importlib
import sys
from collections.abc import Sequence
from pathlib import Path

from benchmarks import report
from benchmarks.harness import Options, Placement, Row, busy

# Share of the CPUs in use above which a record would say more about the neighbours than about the engine.
BUSY = 0.35
# A ratio this many times off its target is a regression on any machine, however noisy.
FAR_OFF = 2.0
# Work for more CPUs than there are, several times over: nothing can be told of what is measured beside it.
OVERLOADED = 3.0
PLACEMENTS: tuple[Placement, ...] = ("free", "same", "split")


def names() -> list[str]:
    """Every benchmark, in order."""
    return sorted((path.stem for path in Path(__file__).parent.glob("b[0-9]*.py")), key=lambda name: int(name[1:]))


def arguments() -> argparse.Namespace:
    """Parse the command line."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks", description=__doc__)
    parser.add_argument("names", nargs="*", metavar="NAME", help=f"one of {', '.join(names())}; default: all")
    parser.add_argument("--quick", action="store_true", help="fewer calls and rounds; nothing is recorded")
    parser.add_argument("--force", action="store_true", help="record although the machine is busy")
    parser.add_argument(
        "--guard", action="store_true", help="exit 1 only on a ratio twice off its target in each round"
    )
    parser.add_argument("--placement", action="append", choices=PLACEMENTS, help="where processes run; repeatable")
    found = parser.parse_args()
    if unknown := set(found.names) - set(names()):
        parser.error(f"no benchmark is called {', '.join(sorted(unknown))}")
    return found


def measure(chosen: Sequence[str], options: Options) -> list[Row]:
    """Run them one after the other, saying which."""
    rows: list[Row] = []
    for name in chosen:
        print(f"{name} ...", file=sys.stderr, flush=True)
        rows += importlib.import_module(f"benchmarks.{name}").run(options)
    return rows


def main() -> int:
    """Run what was asked for; 1 when a target was missed."""
    given = arguments()
    whole = not given.names and not given.quick
    placements = given.placement or (PLACEMENTS if whole else ("free",))
    quiet = busy() <= BUSY or given.force
    if whole and not quiet:
        print(f"not recording: {busy():.0%} of the CPUs are in use (--force records anyway)", file=sys.stderr)
    rows = measure(given.names or names(), Options(quick=given.quick, placements=placements))
    print(report.table(rows))
    if whole and quiet:
        report.write(rows)
    return guard(rows, busy()) if given.guard else int(any(row.cost > 1 for row in rows))


def guard(rows: Sequence[Row], load: float) -> int:
    """Return 1 when a ratio was far off its target in every round, and name it; `load` is the share of CPUs in use."""
    far = [row for row in rows if row.least_cost > FAR_OFF]
    for row in far:
        print(f"regression: {row.name} {row.what} is {row.ratio:.2f}x, target {row.target:g}x", file=sys.stderr)
    if far and load > OVERLOADED:
        print(f"not judged: {load:.0%} of the CPUs are asked for, which tells of the neighbors", file=sys.stderr)
        return 0
    return int(bool(far))


if __name__ == "__main__":
    sys.exit(main())
