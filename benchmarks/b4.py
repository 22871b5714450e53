"""B4: our SDK as callee with a plain sync handler, the minimal caller in front of it.

Measured behind the raw relay too, which tells the SDK's share from the engine's.
"""

from benchmarks.harness import Comparison, Load, Options, Row, Setup, p50_of, rate_of, rounds_of
from benchmarks.setups import Engine, Relay

# p50 and calls per second over the floor's, which has the minimal callee.
TARGET_P50 = 1.8
TARGET_RATE = 0.35


def run(options: Options) -> list[Row]:
    """Compare one call in flight and 64."""
    setups: dict[str, Setup] = {
        "floor": Relay(),
        "alone": Relay(callee="sdk_callee.py"),
        "sdk": Engine(callee="sdk_callee.py"),
    }
    single = rounds_of(setups, Load(1, options.calls(20_000)), options.rounds)
    many = rounds_of(setups, Load(64, options.calls(100_000)), options.rounds)
    alone = Comparison("B4", "SDK callee without the engine, 1 in flight", "µs p50", None)
    alone_rate = Comparison("B4", "SDK callee without the engine, 64", "calls/s", None, smaller_is_better=False)
    wait = Comparison("B4", "SDK callee, sync handler, 1 in flight", "µs p50", TARGET_P50)
    rate = Comparison("B4", "SDK callee, 64 in flight", "calls/s", TARGET_RATE, smaller_is_better=False)
    return [
        wait.row(p50_of(single["sdk"]), p50_of(single["floor"])),
        rate.row(rate_of(many["sdk"]), rate_of(many["floor"])),
        alone.row(p50_of(single["alone"]), p50_of(single["floor"])),
        alone_rate.row(rate_of(many["alone"]), rate_of(many["floor"])),
    ]
