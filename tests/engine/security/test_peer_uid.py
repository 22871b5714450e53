"""Who holds the other end of a loopback connection."""

from __future__ import annotations

import os
import socket
import subprocess
import sys

import pytest

from iii.engine.security.peer_uid import inode_in, is_held_by, is_same_user, owner_in

TABLE = b"""\
  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode
   0: 0100007F:BFEE 00000000:0000 0A 00000000:00000000 00:00000000 00000000  1000        0 11 1
   1: 0100007F:9C40 0100007F:BFEE 01 00000000:00000000 00:00000000 00000000  1001        0 12 1
   2: 0100007F:9C41 0100007F:BFEE 06 00000000:00000000 03:00000000 00000000     0        0 0 3
"""
SERVER = ("127.0.0.1", 0xBFEE)


def test_the_row_of_the_clients_own_socket_tells_its_user() -> None:
    assert owner_in(TABLE, ("127.0.0.1", 0x9C40), SERVER) == 1001


def test_a_socket_that_nobody_holds_any_more_has_no_user() -> None:
    assert owner_in(TABLE, ("127.0.0.1", 0x9C41), SERVER) is None


def test_an_unknown_connection_and_an_empty_table_have_no_user() -> None:
    assert owner_in(TABLE, ("127.0.0.1", 1), SERVER) is None
    assert owner_in(b"", ("127.0.0.1", 0x9C40), SERVER) is None


@pytest.mark.parametrize(("family", "host"), [(socket.AF_INET, "127.0.0.1"), (socket.AF_INET6, "::1")])
def test_the_kernel_knows_our_own_connection(family: socket.AddressFamily, host: str) -> None:
    listening = socket.create_server((host, 0), family=family)
    with listening, socket.create_connection(listening.getsockname()[:2]) as client:
        server, _ = listening.accept()
        with server:
            ends = client.getsockname()[:2], listening.getsockname()[:2]
            assert is_same_user(*ends)
            assert not is_same_user((ends[0][0], 1), ends[1])


def test_the_row_of_the_clients_own_socket_tells_its_inode() -> None:
    assert inode_in(TABLE, ("127.0.0.1", 0x9C40), SERVER) == 12
    assert inode_in(TABLE, ("127.0.0.1", 0x9C41), SERVER) is None


def test_the_kernel_knows_which_process_holds_a_connection() -> None:
    """Not the process that names itself: any pid can be named."""
    connect = "import socket, sys; s = socket.create_connection(('127.0.0.1', int(sys.argv[1]))); sys.stdin.read()"
    with socket.create_server(("127.0.0.1", 0)) as listening:
        port = listening.getsockname()[1]
        with subprocess.Popen([sys.executable, "-c", connect, str(port)], stdin=subprocess.PIPE) as client:
            server, address = listening.accept()
            with server:
                assert is_held_by(client.pid, address, listening.getsockname())
                assert not is_held_by(os.getpid(), address, listening.getsockname())
                assert not is_held_by(2**22 + 1, address, listening.getsockname())
                assert not is_held_by(client.pid, (address[0], 1), listening.getsockname())
            client.communicate()
