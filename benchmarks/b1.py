"""B1: one call in flight through the engine, minimal ends. What a single caller waits for."""

from benchmarks.harness import Comparison, Load, Options, Row, cpu_of, p50_of, rounds_of
from benchmarks.setups import Engine, Relay

# p50 over the floor's.
TARGET = 1.25


def run(options: Options) -> list[Row]:
    """Compare p50 and CPU per call in each placement."""
    rows: list[Row] = []
    for placement in options.placements:
        load = Load(1, options.calls(20_000), placement=placement)
        figures = rounds_of({"floor": Relay(), "engine": Engine()}, load, options.rounds)
        wait = Comparison("B1", f"engine, 1 in flight, {placement}", "µs p50", TARGET)
        cpu = Comparison("B1", f"engine CPU, 1 in flight, {placement}", "µs/call", None)
        rows.append(wait.row(p50_of(figures["engine"]), p50_of(figures["floor"])))
        rows.append(cpu.row(cpu_of(figures["engine"]), cpu_of(figures["floor"])))
    return rows
