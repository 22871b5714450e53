"""The protocol of systemd: states told to its socket, its watchdog, and sockets that it has opened."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from iii.engine.boot.service_manager import FIRST_SOCKET, READY, ServiceManager
from tests.support.live_project import ROOT

BOUND = 30.0
NOBODY = str(2**30)  # more than any pid


class Manager:
    """A socket as systemd's, and what it was told."""

    def __init__(self, path: str) -> None:
        self.socket = socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM)
        self.socket.bind("\0" + path[1:] if path.startswith("@") else path)
        self.socket.settimeout(BOUND)
        self.path = path

    def next(self) -> str:
        """Return the next message."""
        return self.socket.recv(4096).decode()

    def until(self, state: str) -> list[str]:
        """Return the messages up to this one."""
        told = [self.next()]
        while told[-1] != state:
            told.append(self.next())
        return told


@pytest.fixture
def manager(tmp_path: Path) -> Iterator[Manager]:
    made = Manager(str(tmp_path / "notify"))
    yield made
    made.socket.close()


def test_without_a_manager_nothing_is_told_and_nothing_is_taken() -> None:
    environ = {"HOME": "/", "LISTEN_FDS": "2", "LISTEN_PID": NOBODY}
    warned: list[str] = []
    made = ServiceManager(environ, warned.append)
    made.notify(READY)
    made.report_unused()
    assert (environ, warned, made.watchdog_interval) == ({"HOME": "/"}, [], 0.0)
    assert made.socket_for("127.0.0.1", 1) is None


@pytest.mark.parametrize("kind", ["file", "abstract"])
def test_states_reach_the_manager_and_its_variables_nobody_else(tmp_path: Path, kind: str) -> None:
    path = str(tmp_path / "notify") if kind == "file" else f"@iii-test-{os.getpid()}"
    told = Manager(path)
    environ = {"NOTIFY_SOCKET": path, "WATCHDOG_USEC": "3000000", "WATCHDOG_PID": str(os.getppid())}
    made = ServiceManager(environ, pytest.fail)
    made.notify(READY)
    made.reloading()
    assert told.next() == READY
    assert re.fullmatch(r"RELOADING=1\nMONOTONIC_USEC=\d+", told.next())
    assert (environ, made.watchdog_interval) == ({}, 1.5)
    made.close()
    told.socket.close()


@pytest.mark.parametrize(("microseconds", "pid"), [("3000000", NOBODY), ("soon", ""), ("", "")])
def test_a_watchdog_that_is_not_meant_for_us_is_left_alone(manager: Manager, microseconds: str, pid: str) -> None:
    environ = {"NOTIFY_SOCKET": manager.path, "WATCHDOG_USEC": microseconds, "WATCHDOG_PID": pid}
    made = ServiceManager(environ, pytest.fail)
    assert made.watchdog_interval == 0.0
    made.close()


def test_a_manager_that_is_gone_is_said_once(tmp_path: Path) -> None:
    warned: list[str] = []
    made = ServiceManager({"NOTIFY_SOCKET": f"{tmp_path}/gone"}, warned.append)
    made.notify(READY)
    made.notify(READY)
    assert warned == [f"NOTIFY_SOCKET={tmp_path}/gone cannot be reached: No such file or directory"]


PASSED = """
import os, socket, sys
from iii.engine.boot.service_manager import ServiceManager
environ = dict(os.environ, LISTEN_PID=str(os.getpid()))
made = ServiceManager(environ, lambda text: print(text))
first = made.socket_for("localhost", int(sys.argv[1]))
assert first.getsockname() == ("127.0.0.1", int(sys.argv[1]))
first.close()
assert made.socket_for("127.0.0.1", int(sys.argv[1])) is not None
assert not [name for name in environ if name.startswith("LISTEN_")]
assert not os.get_inheritable(3)
made.report_unused()
"""


def test_sockets_are_found_by_their_address_and_others_are_named() -> None:
    used, unused = socket.create_server(("127.0.0.1", 0)), socket.create_server(("127.0.0.1", 0))
    datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
    port, other = used.getsockname()[1], unused.getsockname()[1]
    null = os.open(os.devnull, os.O_RDONLY)
    fds = [used.fileno(), unused.fileno(), datagrams.fileno(), null]
    with starting([sys.executable, "-c", PASSED, str(port)], fds, {"LISTEN_FDS": "4"}) as process:
        said = process.communicate(timeout=BOUND)[0]
    assert process.returncode == 0, said
    assert said.splitlines() == [
        f"descriptor {FIRST_SOCKET + 2} of LISTEN_FDS is no listening TCP socket, and is not used",
        f"descriptor {FIRST_SOCKET + 3} of LISTEN_FDS is no socket: Socket operation on non-socket",
        f"the service manager has opened 127.0.0.1:{other}, and nothing in iii.toml listens there",
    ]
    for each in (used, unused, datagrams):
        each.close()
    os.close(null)


@contextmanager
def starting(
    command: list[str], fds: list[int], variables: dict[str, str], cwd: Path | None = None
) -> Iterator[subprocess.Popen[str]]:
    """Start a program as systemd does, with these descriptors from 3 on; LISTEN_PID is its own."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("III_")}
    moves = " ".join(f"{FIRST_SOCKET + number}<&{fd}" for number, fd in enumerate(fds))
    text = f'LISTEN_PID=$$ exec "$@" {moves}'
    process = subprocess.Popen(
        ["bash", "-c", text, "bash", *command],
        cwd=cwd,
        env={**kept, "PYTHONPATH": str(ROOT), **variables},
        pass_fds=fds,
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        yield process
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=BOUND)


def test_an_engine_under_a_manager_serves_on_its_sockets_and_tells_its_life(manager: Manager, tmp_path: Path) -> None:
    folder = tmp_path / "project"
    folder.mkdir()
    (folder / "iii.toml").write_text(
        '[engine]\nlisten = "off"\n[workers.http]\n[workers.app]\nrun = "app.py"\npass_env = "*"\n'
    )
    (folder / "app.py").write_text(
        "import os\nfrom iii import register_worker\nworker = register_worker()\n"
        'PREFIXES = ("NOTIFY_", "WATCHDOG_", "LISTEN_")\n'
        'names = lambda _: {"body": {"names": [name for name in os.environ if name.startswith(PREFIXES)]}}\n'
        'worker.register_function("app::names", names)\n'
        'worker.register_trigger({"type": "http", "function_id": "app::names", "config": {"api_path": "/names", '
        '"http_method": "GET"}})\n'
    )
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    with (folder / "iii.toml").open("a") as file:
        file.write(f"[workers.http.config]\nport = {port}\n")
    variables = {"NOTIFY_SOCKET": manager.path, "WATCHDOG_USEC": "200000"}
    command = [sys.executable, "-m", "cli.main"]
    with starting([*command, "start"], [listening.fileno()], {**variables, "LISTEN_FDS": "1"}, folder) as process:
        assert set(manager.until(READY)) <= {"WATCHDOG=1", READY}
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/names", timeout=BOUND) as response:
            assert json.load(response) == {"names": []}
        manager.until("WATCHDOG=1")
        for verb in ("stop", "start"):  # its socket is given back, and had once more
            subprocess.run([*command, "worker", verb, "http"], cwd=folder, env=environment(), check=True, timeout=BOUND)
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/names", timeout=BOUND) as response:
            assert json.load(response) == {"names": []}
        process.send_signal(signal.SIGTERM)
        manager.until("STOPPING=1")
        said = process.communicate(timeout=BOUND)[0]
    assert process.returncode == 0, said
    listening.close()


def environment() -> dict[str, str]:
    """Return ours, with nothing that points at another engine."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("III_")}
    return {**kept, "PYTHONPATH": str(ROOT)}
