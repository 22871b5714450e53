"""B2: 64 calls in flight through the engine, minimal ends. How much one engine carries."""

from benchmarks.harness import Comparison, Load, Options, Row, cpu_of, rate_of, rounds_of
from benchmarks.setups import Engine, Relay

# Calls per second over the floor's.
TARGET = 0.75


def run(options: Options) -> list[Row]:
    """Compare throughput and CPU per call in each placement."""
    rows: list[Row] = []
    for placement in options.placements:
        load = Load(64, options.calls(300_000), placement=placement)
        figures = rounds_of({"floor": Relay(), "engine": Engine()}, load, options.rounds)
        rate = Comparison("B2", f"engine, 64 in flight, {placement}", "calls/s", TARGET, smaller_is_better=False)
        cpu = Comparison("B2", f"engine CPU, 64 in flight, {placement}", "µs/call", None)
        rows.append(rate.row(rate_of(figures["engine"]), rate_of(figures["floor"])))
        rows.append(cpu.row(cpu_of(figures["engine"]), cpu_of(figures["floor"])))
    return rows
