"""The listening socket on its way from one generation to the next, and how a port is chosen."""

from __future__ import annotations

import asyncio
import socket
from pathlib import Path

import pytest

from stdlib_workers.http.handover import Handover, bind, is_bound_to
from tests.support.live_project import BOUND


async def test_a_successor_gets_the_same_socket_and_is_noticed(tmp_path: Path) -> None:
    lost = asyncio.Event()
    old, new = Handover(tmp_path, "http"), Handover(tmp_path, "http")
    old.on_successor_lost = lost.set
    with bind("127.0.0.1", 0, 0) as listening:
        await old.offer(listening)
        assert not old.has_successor
        taken = await asyncio.to_thread(new.take)
        assert taken is not None
        with taken:
            assert taken.getsockname() == listening.getsockname()
            assert old.has_successor
        new.close()
        await asyncio.wait_for(lost.wait(), BOUND)
        assert not old.has_successor
    old.close()


async def test_whoever_offers_last_is_found_however_deep_the_folder(tmp_path: Path) -> None:
    folder = tmp_path / ("deep" * 20) / ("deeper" * 20)
    folder.mkdir(parents=True)
    first, second, third = (Handover(folder, "http") for _ in range(3))
    with bind("127.0.0.1", 0, 0) as one, bind("127.0.0.1", 0, 0) as two:
        await first.offer(one)
        await second.offer(two)
        taken = await asyncio.to_thread(third.take)
        assert taken is not None
        with taken:
            assert taken.getsockname() == two.getsockname()
        assert (folder / "http.sock").stat().st_mode & 0o777 == 0o600
        assert [path.name for path in folder.iterdir()] == ["http.sock"]
    for each in (first, second, third):
        each.close()


def test_where_nobody_runs_there_is_nothing_to_take(tmp_path: Path) -> None:
    assert Handover(tmp_path, "http").take() is None
    with socket.socket(socket.AF_UNIX) as stale:
        stale.bind(str(tmp_path / "http.sock"))
    assert Handover(tmp_path, "http").take() is None


def test_what_answers_with_something_else_is_not_a_generation(tmp_path: Path) -> None:
    with socket.socket(socket.AF_UNIX) as other:
        other.bind(str(tmp_path / "http.sock"))
        other.listen()
        taking = asyncio.new_event_loop()
        future = taking.run_in_executor(None, Handover(tmp_path, "http").take)
        link, _ = other.accept()
        link.sendall(b"220 mail.")
        link.close()
        assert taking.run_until_complete(future) is None
        taking.run_until_complete(taking.shutdown_default_executor())
        taking.close()


def test_a_default_port_that_is_taken_moves_on_and_a_named_one_does_not() -> None:
    with bind("127.0.0.1", 0, 0) as holder:
        taken = holder.getsockname()[1]
        with pytest.raises(OSError, match="in use"):
            bind("127.0.0.1", taken, 0)
        with bind("127.0.0.1", None, taken) as moved:
            assert moved.getsockname()[1] != taken
            assert is_bound_to(moved, "127.0.0.1", None)
            assert is_bound_to(moved, "127.0.0.1", 0)
            assert not is_bound_to(moved, "127.0.0.1", taken)
            assert not is_bound_to(moved, "0.0.0.0", None)
