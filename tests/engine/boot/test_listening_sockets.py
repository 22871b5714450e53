"""The sockets that workers listen on: one for each worker, kept while the address is the same."""

from __future__ import annotations

import os
import socket
from collections.abc import Iterator
from pathlib import Path

import pytest
from msgspec.structs import replace

from iii.engine.boot.listening_sockets import ListeningSockets
from iii.engine.config.spec import WorkerSpec
from iii.errors import ProjectError


@pytest.fixture
def opened() -> Iterator[ListeningSockets]:
    made = ListeningSockets(lambda *_: None)
    yield made
    made.close("web")


def spec(listen: str | None, *, is_default: bool = False) -> WorkerSpec:
    return WorkerSpec("web", Path(), listen=listen, is_default_listen=is_default, line=3)


def port_of(descriptor: int | None) -> int:
    assert descriptor is not None
    with socket.socket(fileno=os.dup(descriptor)) as own:
        port: int = own.getsockname()[1]
        return port


def test_every_process_of_a_worker_gets_the_same_socket(opened: ListeningSockets) -> None:
    first = opened.descriptor_of(spec("127.0.0.1:0"))
    assert opened.descriptor_of(replace(spec("127.0.0.1:0"), line=9)) == first
    assert first is not None
    assert os.get_blocking(first)
    assert not os.get_inheritable(first)
    assert opened.descriptor_of(spec(None)) is None


def test_a_port_that_is_taken_names_its_holder_and_keeps_the_old_socket(opened: ListeningSockets) -> None:
    before = opened.descriptor_of(spec("127.0.0.1:0"))
    with socket.create_server(("127.0.0.1", 0)) as holder:
        taken = holder.getsockname()[1]
        with pytest.raises(ProjectError, match=rf"iii.toml:3: port {taken} is taken by .*\(pid {os.getpid()}\)"):
            opened.descriptor_of(spec(f"127.0.0.1:{taken}"))
        assert port_of(before) > 0
        moved = opened.descriptor_of(spec(f"127.0.0.1:{taken}", is_default=True))
        assert port_of(moved) > taken
        (text,) = opened.take_moves()
        assert text == f"127.0.0.1:{taken} is taken: web listens on 127.0.0.1:{port_of(moved)} instead"
        assert opened.take_moves() == []


def test_a_socket_that_is_closed_is_opened_anew(opened: ListeningSockets) -> None:
    port = port_of(opened.descriptor_of(spec("127.0.0.1:0")))
    opened.close("web")
    opened.close("web")
    with pytest.raises(ConnectionRefusedError):
        socket.create_connection(("127.0.0.1", port), 5)
    assert port_of(opened.descriptor_of(spec(f"127.0.0.1:{port}"))) == port
