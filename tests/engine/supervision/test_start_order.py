"""The order of starts: dependencies first, and only a few at a time."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from iii.engine.config.spec import WorkerSpec
from iii.engine.supervision.start_limiter import StartLimiter
from iii.engine.supervision.start_order import dependents_first, with_dependencies


def workers(**after: str) -> dict[str, WorkerSpec]:
    return {name: WorkerSpec(name, Path(), after=tuple(names.split())) for name, names in after.items()}


def test_a_named_worker_brings_what_it_comes_after() -> None:
    project = workers(a="", b="a", c="b", d="")
    assert with_dependencies(["c"], project) == {"a", "b", "c"}
    assert with_dependencies([], project) == set()
    with pytest.raises(KeyError):
        with_dependencies(["x"], project)


def test_a_worker_stops_after_those_that_depend_on_it() -> None:
    assert dependents_first(workers(a="", b="a", c="a b", d="")) == [["c", "d"], ["b"], ["a"]]
    assert dependents_first(workers(a="b", b="a")) == [["a", "b"]]  # a circle ends too


def test_only_so_many_start_at_a_time_and_in_order() -> None:
    async def play() -> None:
        limiter = StartLimiter(places=2)
        tickets = [limiter.enter(lambda: True) for _ in range(4)]
        assert [ticket.admitted.done() for ticket in tickets] == [True, True, False, False]
        assert repr(limiter) == "<StartLimiter 0 free, 2 waiting>"
        limiter.leave(tickets[2])
        limiter.leave(tickets[0])
        limiter.leave(tickets[0])
        assert repr(limiter) == "<StartLimiter 0 free, 0 waiting>"
        assert [await ticket.admitted for ticket in tickets] == [True, True, False, True]

    asyncio.run(play())


def test_a_start_that_cannot_begin_yet_is_passed_over() -> None:
    async def play() -> None:
        can_start = False
        limiter = StartLimiter(places=1)
        waiting = limiter.enter(lambda: can_start)
        other = limiter.enter(lambda: True)
        assert (waiting.admitted.done(), other.admitted.done()) == (False, True)
        can_start = True
        limiter.leave(other)
        assert await waiting.admitted

    asyncio.run(play())
