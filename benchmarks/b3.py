"""B3: payloads of 1 MiB, against a relay in C that leaves its pipes at their default size."""

from benchmarks.harness import Comparison, Load, Options, Row, rate_of, rounds_of
from benchmarks.native import program
from benchmarks.setups import Engine, Relay

# Calls per second over the C relay's. The engine checks that the payload is JSON; the relay does not look.
TARGET = 1.0
SIZE = 1 << 20


def run(options: Options) -> list[Row]:
    """Compare calls per second; each call carries SIZE bytes there and back."""
    load = Load(1, options.calls(1_000), size=SIZE)
    figures = rounds_of({"relay": Relay(program("relay")), "engine": Engine()}, load, options.rounds)
    comparison = Comparison("B3", "engine, 1 MiB payloads", "calls/s", TARGET, smaller_is_better=False)
    return [comparison.row(rate_of(figures["engine"]), rate_of(figures["relay"]))]
