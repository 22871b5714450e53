"""What only real descriptors show of a connection: where the bytes are that nobody will read."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable

from iii.engine.routing.peer import Peer
from iii.engine.transport.connection import Connection
from iii.engine.transport.poller import make_poller


def play(scenario: Callable[[Connection, int], None]) -> Connection:
    """Run a scenario with a connection and the far end of the pipe it writes to."""

    async def main() -> Connection:
        far, near = os.pipe()
        silent, unused = os.pipe()
        poller = make_poller(lambda: None)
        connection = Connection(
            Peer("a", kind="worker"), silent, near, poller=poller, on_lines=_ignore, on_closed=_ignore
        )
        scenario(connection, far)
        connection.close()
        os.close(unused)
        poller.close()
        return connection

    return asyncio.run(main())


def _ignore(*_: object) -> None:
    """Nothing comes in here."""


def put(connection: Connection, line: bytes) -> None:
    connection.peer.outbox.append(line)
    connection.peer.enqueued += len(line) + 1
    connection.flush()


def test_what_a_dead_process_left_in_its_pipe_counts_as_not_written() -> None:
    def scenario(connection: Connection, far: int) -> None:
        put(connection, b"read")
        assert os.read(far, 5) == b"read\n"
        put(connection, b"never read")
        assert connection.peer.unsent_bytes == 0
        os.close(far)
        connection.take_back_unread()

    assert play(scenario).peer.written == len(b"read\n")


def test_a_write_into_a_closed_pipe_takes_back_what_lay_unread_before_it() -> None:
    def scenario(connection: Connection, far: int) -> None:
        put(connection, b"never read")
        os.close(far)
        put(connection, b"never written")

    assert play(scenario).peer.written == 0


def test_what_a_worker_may_still_read_stays_written_when_its_input_ends() -> None:
    def scenario(connection: Connection, far: int) -> None:
        put(connection, b"the last")
        connection.close_input()
        connection.take_back_unread()
        assert os.read(far, 64) == b"the last\n"
        os.close(far)

    assert play(scenario).peer.written == len(b"the last\n")
