"""When the allocator is asked to give memory back."""

from __future__ import annotations

from iii.engine.health.freed_memory import SLACK, FreedMemory, resident_bytes


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


def test_this_process_has_a_size() -> None:
    assert resident_bytes() > SLACK
