"""B4: our SDK as callee with a plain sync handler, the minimal caller in front of it."""

from benchmarks.harness import Comparison, Load, Options, Row, Setup, p50_of, rate_of, rounds_of
from benchmarks.setups import Engine, Relay

# p50 and calls per second over the floor's, which has the minimal callee.
TARGET_P50 = 1.8
TARGET_RATE = 0.35


def run(options: Options) -> list[Row]:
    """Compare one call in flight and 64."""
    setups: dict[str, Setup] = {"floor": Relay(), "sdk": Engine(callee="sdk_callee.py")}
    single = rounds_of(setups, Load(1, options.calls(20_000)), options.rounds)
    many = rounds_of(setups, Load(64, options.calls(100_000)), options.rounds)
    wait = Comparison("B4", "SDK callee, sync handler, 1 in flight", "µs p50", TARGET_P50)
    rate = Comparison("B4", "SDK callee, 64 in flight", "calls/s", TARGET_RATE, smaller_is_better=False)
    return [
        wait.row(p50_of(single["sdk"]), p50_of(single["floor"])),
        rate.row(rate_of(many["sdk"]), rate_of(many["floor"])),
    ]
