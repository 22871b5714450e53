"""The key, and which requests get past it: without a process."""

from __future__ import annotations

import os
import socket
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from stdlib_workers.loopback.sockets import loopback_socket
from stdlib_workers.mcp.key import NAME, read_or_make
from stdlib_workers.mcp.listener import refusal
from stdlib_workers.values.serving import LOOPBACK, address_of

KEY = "k" * 32
HOSTS = frozenset(f"{name}:3114" for name in LOOPBACK)
GOOD = {"host": "127.0.0.1:3114", "authorization": f"Bearer {KEY}"}


def status(*more: tuple[str, str], **fields: str) -> int:
    headers = [*{**GOOD, **fields}.items(), *more]
    found = refusal([(name.encode(), value.encode()) for name, value in headers], HOSTS, KEY)
    return 200 if found is None else found[0]


def test_the_key_on_our_host_gets_in() -> None:
    assert status() == 200
    assert status(host="LOCALHOST:3114") == 200
    assert status(authorization=f"bearer  {KEY} ") == 200
    assert status(origin="http://localhost:3114") == 200


@pytest.mark.parametrize(
    "shown", ["", KEY, "Bearer", "Bearer ", f"Basic {KEY}", f"Bearer {KEY[:-1]}", f"Bearer {KEY}k", "Bearer é"]
)
def test_anything_but_the_key_is_refused(shown: str) -> None:
    assert status(authorization=shown) == 401
    assert status(("authorization", f"Bearer {KEY}"), authorization=shown) == 401


@pytest.mark.parametrize(
    "host", ["", "evil.example", "evil.example:3114", "127.0.0.1", "127.0.0.1:3115", "localhost.evil"]
)
def test_another_host_is_refused_before_the_key_is_looked_at(host: str) -> None:
    assert status(host=host) == 421
    assert status(host=host, authorization="") == 421
    assert status(("host", "127.0.0.1:3114")) == 421


@pytest.mark.parametrize(
    "origin", ["null", "", "https://evil.example", "http://localhost:8080", "http://evil.example:3114"]
)
def test_a_page_of_another_origin_is_refused_with_the_key_too(origin: str) -> None:
    assert status(origin=origin) == 403


def test_a_key_is_made_once_and_only_its_user_can_read_it(tmp_path: Path) -> None:
    with ThreadPoolExecutor(8) as pool:
        keys = set(pool.map(lambda _: read_or_make(tmp_path), range(16)))
    assert len(keys) == 1
    assert len(keys.pop()) == 43
    assert (tmp_path / NAME).stat().st_mode & 0o777 == 0o600
    assert os.listdir(tmp_path) == [NAME]


@pytest.mark.parametrize(("content", "mode"), [("k" * 43, 0o644), ("k" * 8, 0o600), ("", 0o600), ("k" * 300, 0o600)])
def test_a_key_that_cannot_be_trusted_is_refused_with_the_way_out(tmp_path: Path, content: str, mode: int) -> None:
    (tmp_path / NAME).write_text(content)
    (tmp_path / NAME).chmod(mode)
    with pytest.raises(ValueError, match="remove it, and a new"):
        read_or_make(tmp_path)


def test_a_link_or_a_folder_is_no_key(tmp_path: Path) -> None:
    (tmp_path / "elsewhere").write_text("k" * 43)
    (tmp_path / NAME).symlink_to(tmp_path / "elsewhere")
    with pytest.raises(ValueError, match="cannot be read"):
        read_or_make(tmp_path)


def test_a_socket_that_other_machines_reach_is_refused(monkeypatch: pytest.MonkeyPatch) -> None:
    with socket.create_server(("0.0.0.0", 0)) as outer, socket.create_server(("127.0.0.1", 0)) as inner:
        monkeypatch.setenv("III_LISTEN_FDS", str(outer.fileno()))
        with pytest.raises(ValueError, match="of this machine alone"):
            loopback_socket("127.0.0.1", 3114).close()
        monkeypatch.setenv("III_LISTEN_FDS", f"{inner.fileno()},99")
        with loopback_socket("127.0.0.1", 3114) as taken:
            assert address_of(taken) == f"http://127.0.0.1:{inner.getsockname()[1]}"
