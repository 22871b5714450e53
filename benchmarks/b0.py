"""B0: the floor against itself, and the C relay against it. The first ratio is the noise of this machine."""

from benchmarks.harness import Comparison, Load, Options, Row, p50_of, rate_of, rounds_of
from benchmarks.native import program
from benchmarks.setups import Relay


def run(options: Options) -> list[Row]:
    """Compare with one call in flight and with 64, in each placement."""
    rows: list[Row] = []
    for placement in options.placements:
        rows += compare(options, Load(1, options.calls(20_000), placement=placement))
        rows += compare(options, Load(64, options.calls(300_000), placement=placement))
    return rows


def compare(options: Options, load: Load) -> list[Row]:
    """Return two rows of one load."""
    figures = rounds_of({"floor": Relay(), "again": Relay(), "C": Relay(program("relay"))}, load, options.rounds)
    figure_of, unit = (p50_of, "µs p50") if load.window == 1 else (rate_of, "calls/s")
    under = f"{load.window} in flight, {load.placement}"
    baseline = figure_of(figures["floor"])
    return [
        Comparison("B0", f"floor again, {under}", unit, None).row(figure_of(figures["again"]), baseline),
        Comparison("B0", f"relay in C, {under}", unit, None).row(figure_of(figures["C"]), baseline),
    ]
