"""B5: our SDK at both ends: `trigger` from threads, `trigger_async` from one loop."""

from benchmarks.harness import Comparison, Load, Options, Row, Setup, p50_of, rate_of, rounds_of
from benchmarks.setups import Engine, Relay

# p50 and calls per second over the floor's. With 64 threads the callers' own interpreter lock is the limit, so
# the target for the rate holds for the async caller.
TARGET_P50 = 3.0
TARGET_RATE = 0.2
CALLERS = {"trigger": "sdk_caller.py", "trigger_async": "sdk_caller_async.py"}


def run(options: Options) -> list[Row]:
    """Compare one call in flight and 64, each with a sync and an async caller."""
    engines = {name: Engine(callee="sdk_callee.py", caller=script) for name, script in CALLERS.items()}
    setups: dict[str, Setup] = {"floor": Relay(), **engines}
    single = rounds_of(setups, Load(1, options.calls(10_000)), options.rounds)
    many = rounds_of(setups, Load(64, options.calls(50_000)), options.rounds)
    rows: list[Row] = []
    for name in CALLERS:
        goal = TARGET_RATE if name == "trigger_async" else None
        wait = Comparison("B5", f"SDK both ends, {name}, 1 in flight", "µs p50", TARGET_P50)
        rate = Comparison("B5", f"SDK both ends, {name}, 64", "calls/s", goal, smaller_is_better=False)
        rows.append(wait.row(p50_of(single[name]), p50_of(single["floor"])))
        rows.append(rate.row(rate_of(many[name]), rate_of(many["floor"])))
    return rows
