"""The clock by which things are due: a machine that sleeps, and wall clocks that are set."""

from __future__ import annotations

import time

from stdlib_workers.values.clock import WALL_INTERVAL, Clock
from stdlib_workers.values.clock import steady as steady_now

HOUR = 3600.0


class Clocks:
    """A wall clock and a steady one, in seconds, and the clock over both."""

    def __init__(self) -> None:
        self.wall, self.steady = 1_000_000.0, 50.0
        self.clock = Clock(lambda: self.wall, lambda: self.steady)

    def after(self, steady: float, *, wall: float) -> float:
        """Let the clocks go on by so many seconds; return how many the clock has gone on since its start."""
        self.steady += steady
        self.wall += wall
        return round(self.clock() / 1000 - 1_000_000, 3)


def test_30_time_that_the_steady_clock_counts_has_passed() -> None:
    assert Clocks().after(HOUR, wall=HOUR) == HOUR


def test_30_a_sleep_that_the_steady_clock_does_not_count_is_followed_within_a_minute() -> None:
    clocks = Clocks()
    assert clocks.after(1, wall=2 * HOUR) == 1
    assert clocks.after(WALL_INTERVAL, wall=WALL_INTERVAL) == 2 * HOUR + WALL_INTERVAL


def test_30_a_wall_clock_that_is_set_forward_is_followed_and_one_that_is_set_back_is_not() -> None:
    clocks = Clocks()
    assert clocks.after(WALL_INTERVAL, wall=WALL_INTERVAL + 24 * HOUR) == WALL_INTERVAL + 24 * HOUR
    assert clocks.after(WALL_INTERVAL, wall=-24 * HOUR) == 2 * WALL_INTERVAL + 24 * HOUR
    assert clocks.after(2, wall=-24 * HOUR) == 2 * WALL_INTERVAL + 24 * HOUR + 2


def test_30_a_wall_clock_that_is_moved_bit_by_bit_is_no_reason_to_jump() -> None:
    clocks = Clocks()
    assert clocks.after(WALL_INTERVAL, wall=WALL_INTERVAL + 0.9) == WALL_INTERVAL
    assert clocks.after(WALL_INTERVAL, wall=WALL_INTERVAL + 0.9) == 2 * WALL_INTERVAL + 1.8


def test_30_the_steady_clock_counts_the_time_that_the_machine_sleeps_where_it_can() -> None:
    assert abs(steady_now() - time.clock_gettime(time.CLOCK_BOOTTIME)) < 60
