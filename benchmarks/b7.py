"""B7: what routing costs while the engine knows more: 10 to 10,000 functions, 2 to 200 workers.

The cost is the engine's CPU time for a call with 64 in flight, which a busy machine disturbs less than time. The
functions and workers beside the measured ones are idle: what is measured is finding a way past them.
"""

from __future__ import annotations

import json
import shlex
import tempfile
from collections.abc import Mapping
from pathlib import Path

from benchmarks.harness import Comparison, Load, Options, Row, Setup, cpu_of, rounds_of
from benchmarks.setups import Engine

# CPU per call over that of the smallest setup.
TARGET = 1.15
FUNCTIONS = (10, 100, 1_000, 10_000)
WORKERS = (2, 20, 200)
READY = json.dumps({"type": "ready"})


def run(options: Options) -> list[Row]:
    """Compare each size with the smallest."""
    with tempfile.TemporaryDirectory(prefix="iii-bench-") as made:
        folder = Path(made)
        functions = {f"{count:,} functions": Engine(beside=bystanders(folder, 1, count)) for count in FUNCTIONS}
        # Caller and callee are two of them.
        workers = {f"{count} workers": Engine(beside=bystanders(folder, count - 2, 1)) for count in WORKERS}
        return [*compare(functions, options), *compare(workers, options)]


def compare(setups: Mapping[str, Setup], options: Options) -> list[Row]:
    """Return a row for each setup but the first, which is the baseline."""
    figures = rounds_of(setups, Load(64, options.calls(200_000)), options.rounds // 2 + 1)
    smallest, *larger = setups
    return [
        Comparison("B7", f"{name} against {smallest}, engine CPU", "µs/call", TARGET).row(
            cpu_of(figures[name]), cpu_of(figures[smallest])
        )
        for name in larger
    ]


def bystanders(folder: Path, workers: int, functions: int) -> dict[str, str]:
    """Return what idle workers with that many functions each run: a shell that says so and listens."""
    commands = {}
    for worker in range(workers):
        words = folder / f"words-{functions}-{worker}"
        ids = (f"idle{worker}::f{number}" for number in range(functions))
        lines = [json.dumps({"type": "registerfunction", "id": id}) for id in ids]
        words.write_text("\n".join([*lines, READY, ""]), encoding="utf-8")
        script = f"cat {shlex.quote(str(words))}; exec cat > /dev/null"
        commands[f"idle{worker}"] = shlex.join(["sh", "-c", script])
    return commands
