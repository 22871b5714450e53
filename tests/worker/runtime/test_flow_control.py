"""A generator waits for the caller that takes its items: the two halves by themselves."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import pytest

from iii.worker.runtime.flow_control import WINDOW_BYTES, WINDOW_ITEMS, ItemWindow, TakenItems
from tests.support.worker_support import in_thread, pair


def test_a_window_is_full_with_its_items_and_open_again_with_the_first_one_taken():
    window = ItemWindow(2)
    window.sent(10)
    assert not window.is_full
    window.sent(10)
    assert window.is_full
    window.taken(1)
    assert not window.is_full


def test_large_items_fill_a_window_by_their_bytes_but_one_always_fits():
    window = ItemWindow(64)
    assert not window.is_full
    window.sent(WINDOW_BYTES + 1)
    assert window.is_full
    window.taken(1)
    assert not window.is_full


def test_a_caller_that_does_not_report_what_it_takes_holds_no_generator_back():
    window = ItemWindow(None)
    for _ in range(10_000):
        window.sent(WINDOW_BYTES)
    assert not window.is_full
    window.wait()


def test_more_taken_than_was_sent_is_no_credit_for_later():
    window = ItemWindow(1)
    window.taken(1_000_000)
    window.sent(1)
    assert window.is_full


@pytest.mark.parametrize("how", ["taken", "end"])
def test_a_thread_that_waits_goes_on(how):
    window = ItemWindow(1)
    window.sent(1)
    done = in_thread(window.wait)
    window.taken(1) if how == "taken" else window.end()
    done()


@pytest.mark.parametrize("how", ["taken", "end"])
def test_a_task_that_waits_goes_on(how):
    async def main():
        window = ItemWindow(1)
        window.sent(1)
        waiting = asyncio.create_task(window.wait_async())
        await asyncio.sleep(0)
        assert not waiting.done()
        in_thread(lambda: window.taken(1) if how == "taken" else window.end())()
        await asyncio.wait_for(waiting, 20)
        await window.wait_async()

    asyncio.run(main())


def test_taken_items_are_reported_every_quarter_of_a_window_and_on_request():
    sent = []
    taken = TakenItems("i1", sent.append)
    taken.report()
    for _ in range(WINDOW_ITEMS // 4 + 3):
        taken.add()
    taken.report()
    taken.report()
    assert [message["count"] for message in sent] == [WINDOW_ITEMS // 4, 3]
    assert sent[0] == {"type": "itemstaken", "invocation_id": "i1", "count": WINDOW_ITEMS // 4}


def test_a_generator_that_awaits_nothing_ends_when_its_caller_leaves() -> None:
    closed: list[bool] = []

    async def endless(_: Any) -> AsyncIterator[int]:
        try:
            while True:
                yield 1
        finally:
            closed.append(True)

    with pair() as (worker, engine):
        worker.register_function("a::endless", endless)
        engine.invoke("a::endless", {}, stream=True)
        engine.expect("invocationitem")
        engine.send({"type": "cancel", "invocation_id": "i1"})
        engine.result()
    assert closed == [True]
