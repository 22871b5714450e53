"""When the allocator is asked to give memory back."""

from __future__ import annotations

import itertools

from iii.engine.health.freed_memory import RETRIES, SLACK, FreedMemory, resident_bytes


class Process:
    """A process of a size; trimming makes it `kept` bytes large."""

    def __init__(self) -> None:
        self.size = self.kept = 30 * SLACK
        self.trims: list[bool] = []

    def trim(self, *, is_idle: bool) -> None:
        self.trims.append(is_idle)
        self.size = self.kept


def test_a_process_that_is_larger_than_what_it_holds_explains_is_trimmed_once() -> None:
    process = Process()
    freed = FreedMemory(lambda: process.size, process.trim)
    assert not freed.check(0)
    process.size += 20 * SLACK
    assert not freed.check(20 * SLACK)  # it holds that much
    assert freed.check(0)  # and does so no longer
    assert not freed.check(0)
    assert process.trims == [True]


def test_what_a_trim_did_not_free_is_in_use_and_is_not_tried_every_second() -> None:
    process = Process()
    freed = FreedMemory(lambda: process.size, process.trim)
    freed.check(0)
    process.size = process.kept = 40 * SLACK
    assert freed.check(SLACK)
    assert not freed.check(SLACK)
    process.size = process.kept = 30 * SLACK  # freed by itself: from here on less is expected
    assert not freed.check(0)
    process.size = 32 * SLACK
    assert freed.check(0)
    assert process.trims == [False, True]


def test_what_held_more_than_was_counted_is_given_back_when_it_is_no_longer_held() -> None:
    process = Process()
    freed = FreedMemory(lambda: process.size, process.trim)
    freed.check(0)
    process.size = process.kept = 40 * SLACK  # for what counts as two: a trim frees nothing
    assert freed.check(2 * SLACK)
    process.kept = 30 * SLACK
    assert freed.check(0)
    assert process.size == 30 * SLACK
    assert not freed.check(0)


def test_what_was_freed_after_a_trim_that_came_too_early_is_given_back_soon() -> None:
    process = Process()
    freed = FreedMemory(lambda: process.size, process.trim)
    freed.check(0)
    process.size = process.kept = 40 * SLACK  # lines that a worker has yet to read, of calls that have ended
    assert freed.check(0)
    process.kept = 30 * SLACK  # read and freed, and the process is as large as before
    assert [freed.check(0) for _ in range(RETRIES[0])] == [False] * (RETRIES[0] - 1) + [True]
    assert process.size == 30 * SLACK


def test_what_stays_in_use_is_tried_a_few_times_and_then_no_more() -> None:
    process = Process()
    freed = FreedMemory(lambda: process.size, process.trim)
    freed.check(0)
    process.size = process.kept = 40 * SLACK
    checks = [freed.check(0) for _ in range(1000)]
    tried = [number for number, is_trimmed in enumerate(checks) if is_trimmed]
    assert [after - before for before, after in itertools.pairwise(tried)] == list(RETRIES)


def test_this_process_has_a_size() -> None:
    assert resident_bytes() > SLACK
