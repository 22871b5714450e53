"""The transport of a supervised worker, on descriptors that an event loop has left non-blocking."""

from __future__ import annotations

import asyncio
import os
import threading

import pytest
import uvloop

from iii.worker.transport.stdio import StdioTransport


@pytest.fixture
def wire():
    (read, feed), (drain, write) = os.pipe(), os.pipe()
    transport = StdioTransport(read, write)
    yield transport, feed
    transport.close()
    for fd in (read, feed, drain):
        os.close(fd)


@pytest.mark.parametrize("timeout", [None, 20.0])
def test_a_loop_that_read_here_before_is_not_the_end_of_the_wire(wire, timeout):
    transport, feed = wire

    async def watch():
        loop = asyncio.get_running_loop()
        loop.add_reader(transport.input_fd, lambda: None)
        await asyncio.sleep(0)
        loop.remove_reader(transport.input_fd)

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(watch())
    assert not os.get_blocking(transport.input_fd)  # what such loops leave behind
    later = threading.Timer(0.2, os.write, (feed, b"line\n"))
    later.start()
    assert transport.read(timeout) == b"line\n"
    later.join()


def test_nothing_in_time_is_none(wire):
    transport, _ = wire
    os.set_blocking(transport.input_fd, False)
    assert transport.read(0) is None


class Thief:
    """Stands for `poll`: the first time, what it has seen is gone by the time of the read."""

    def __init__(self, poll, fd):
        self._poll, self._fd, self.looks = poll, fd, 0

    def poll(self, *timeout):
        seen = self._poll.poll(*timeout)
        self.looks += 1
        if self.looks == 1:
            os.read(self._fd, 100)
            threading.Timer(0.1, os.write, (self._feed, b"second\n")).start()
        return seen


@pytest.mark.parametrize("timeout", [None, 20.0])
def test_a_line_that_somebody_else_has_read_meanwhile_is_not_the_end_of_the_wire(wire, timeout):
    transport, feed = wire
    os.set_blocking(transport.input_fd, False)
    thief = transport._poll = Thief(transport._poll, transport.input_fd)
    thief._feed = feed
    if timeout is None:
        threading.Timer(0.1, os.write, (feed, b"first\n")).start()
    else:
        os.write(feed, b"first\n")
    assert transport.read(timeout) == b"second\n"
    assert thief.looks == 2
