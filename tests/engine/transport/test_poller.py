"""The pollers keep one contract; spinning judges itself."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

import pytest

from iii.engine.transport.poller import EpollPoller, Poller, Spin, make_poller

BOUND = 10.0


@pytest.mark.parametrize("make", [EpollPoller, Poller])
def test_a_readable_descriptor_is_called_back_and_the_turn_ends_after_it(make: Callable[..., Poller]) -> None:
    async def main() -> list[str]:
        told: list[str] = []
        done = asyncio.Event()

        def turn() -> None:
            told.append("turn")
            done.set()

        poller = make(turn)
        reading, writing = os.pipe()
        poller.add_reader(reading, lambda: told.append(os.read(reading, 10).decode()))
        os.write(writing, b"hello")
        await asyncio.wait_for(done.wait(), BOUND)
        poller.remove_reader(reading)
        poller.close()
        os.close(reading)
        os.close(writing)
        return told

    assert asyncio.run(main())[:2] == ["hello", "turn"]


@pytest.mark.parametrize("make", [EpollPoller, Poller])
def test_room_to_write_is_told_until_it_is_no_longer_asked_for(make: Callable[..., Poller]) -> None:
    async def main() -> int:
        calls = 0
        done = asyncio.Event()

        def on_room() -> None:
            nonlocal calls
            calls += 1
            poller.remove_writer(writing)
            done.set()

        poller = make(lambda: None)
        reading, writing = os.pipe()
        poller.add_writer(writing, on_room)
        await asyncio.wait_for(done.wait(), BOUND)
        await asyncio.sleep(0)
        poller.close()
        os.close(reading)
        os.close(writing)
        return calls

    assert asyncio.run(main()) == 1


@pytest.mark.parametrize("make", [EpollPoller, Poller])
def test_a_callback_may_remove_another_that_is_due_in_the_same_turn(make: Callable[..., Poller]) -> None:
    async def main() -> int:
        calls = 0
        done = asyncio.Event()
        pipes = [os.pipe(), os.pipe()]

        def on_readable() -> None:
            nonlocal calls
            calls += 1
            for reading, _ in pipes:
                poller.remove_reader(reading)
            asyncio.get_running_loop().call_soon(done.set)

        poller = make(lambda: None)
        for reading, writing in pipes:
            poller.add_reader(reading, on_readable)
            os.write(writing, b"x")
        await asyncio.wait_for(done.wait(), BOUND)
        poller.close()
        for fd in [fd for pair in pipes for fd in pair]:
            os.close(fd)
        return calls

    assert asyncio.run(main()) == 1


def test_the_best_poller_of_the_system_is_made() -> None:
    async def main() -> Poller:
        poller = make_poller(lambda: None)
        poller.close()
        return poller

    assert isinstance(asyncio.run(main()), EpollPoller)


def test_one_processor_never_spins() -> None:
    assert not Spin(1).is_worthwhile()


def test_spinning_rests_when_it_finds_nothing_and_is_tried_again() -> None:
    spin = Spin(2)
    attempts = 0
    while spin.is_worthwhile():
        spin.note(found=False)
        attempts += 1
    assert attempts < 20
    rests = 1
    while not spin.is_worthwhile():
        rests += 1
    assert 100 < rests < 1000


def test_spinning_that_pays_goes_on() -> None:
    spin = Spin(2)
    for _ in range(1000):
        assert spin.is_worthwhile()
        spin.note(found=True)
