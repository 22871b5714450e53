"""What typed parameters cost per call, over the plain form. `python -m benchmarks.b_typed [--quick]`.

Counts instructions where valgrind is installed: they are the same on a busy machine. Without it the CPU time of both
forms is compared, and nothing is judged.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
from importlib.util import find_spec

from benchmarks.ends.typed_callee import BY_HAND, CASES, MODELS
from benchmarks.harness import Comparison, Options, Row, interleave
from benchmarks.report import table
from benchmarks.setups import ENDS

MOST_INSTRUCTIONS = 8000.0
# The first calls warm the interpreter's caches up; they are in both counts.
FEW_CALLS, MANY_CALLS = 100, 1100


def run(options: Options) -> list[Row]:
    """Compare each kind of signature with the plain function."""
    installed = [case for case, package in MODELS.items() if find_spec(package) is not None]
    names = {case: f"T{number}" for number, case in enumerate([*CASES, *installed], 1)}
    if shutil.which("valgrind") is None:
        return [compare_times(name, case, options) for case, name in names.items()]
    plain = instructions(next(iter(CASES)), "plain")  # the same in each case: it takes the payload as it is
    return [compare_instructions(name, case, plain) for case, name in names.items()]


def compare_instructions(name: str, case: str, plain: float) -> Row:
    """Compare what the typed form takes more than the plain one with the most that it may."""
    typed = instructions(case, "typed")
    by_hand = f", by hand {instructions(case, 'by-hand'):,.0f}" if case in BY_HAND else ""
    what = f"{case}: {typed:,.0f} a call, plain {plain:,.0f}{by_hand}; more, against the most"
    return Comparison(name, what, "instructions", 1.0).row([typed - plain], [MOST_INSTRUCTIONS])


def compare_times(name: str, case: str, options: Options) -> Row:
    """Compare the CPU times of both forms."""
    calls = options.calls(200_000)
    figures = interleave(
        {form: lambda form=form: float(callee(case, form, calls)) for form in ("plain", "typed")},  # type: ignore[misc]
        options.rounds,
    )
    return Comparison(name, f"{case}, against plain", "ns", None).row(figures["typed"], figures["plain"])


def instructions(case: str, form: str) -> float:
    """Return the instructions of one call."""
    valgrind = ("valgrind", "--tool=callgrind", "--callgrind-out-file=/dev/null")
    counts = []
    for calls in (FEW_CALLS, MANY_CALLS):
        found = re.search(r"Collected : (\d+)", callee(case, form, calls, *valgrind))
        if found is None:
            raise RuntimeError("callgrind has counted nothing")
        counts.append(int(found[1]))
    return (counts[1] - counts[0]) / (MANY_CALLS - FEW_CALLS)


def callee(case: str, form: str, calls: int, *before: str) -> str:
    """Run the callee and return what it has written."""
    command = [*before, sys.executable, str(ENDS / "typed_callee.py"), case, form, str(calls)]
    # The same hashes in each run, and so the same lookups.
    environment = {**os.environ, "PYTHONHASHSEED": "0"}
    result = subprocess.run(command, env=environment, capture_output=True, text=True, check=True)
    return result.stderr if before else result.stdout


def main() -> None:
    """Run everything and print the table."""
    parser = argparse.ArgumentParser(prog="python -m benchmarks.b_typed", description=__doc__)
    parser.add_argument("--quick", action="store_true", help="fewer calls and rounds of CPU time")
    print(table(run(Options(quick=parser.parse_args().quick))))


if __name__ == "__main__":
    main()
