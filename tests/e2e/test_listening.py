"""A worker that listens on the engine's socket: nobody is refused while one process takes over from another."""

from __future__ import annotations

import os
import socket
from collections import Counter
from pathlib import Path
from threading import Event, Thread

import pytest

from tests.support.live_project import BOUND, Project

SERVER = """
import socket, subprocess
listening = socket.socket(fileno=int(os.environ["III_LISTEN_FDS"]))
is_leaving = threading.Event()

def serve():
    listening.settimeout(0.02)
    while not is_leaving.is_set():
        try:
            client, _ = listening.accept()
        except OSError:
            continue  # nobody has come, or a sibling was faster
        client.settimeout(5)
        with client:
            client.recv(100)
            client.sendall(b"%d" % os.getpid())

thread = threading.Thread(target=serve)

def stop(seconds):
    is_leaving.set()
    thread.join()

def children(_):
    names = subprocess.run(["ls", "-l", "/proc/self/fd"], stdout=subprocess.PIPE).stdout.decode()
    return "socket:" in names.split("->", 3)[-1]

worker.before_stop(stop)
worker.register_function("app::children", children)
thread.start()
"""
NODE = """
const http = require("node:http");
const server = http.createServer((_, answer) => answer.end(`node ${process.pid}`));
server.listen({ fd: Number(process.env.III_LISTEN_FDS) });
process.on("SIGTERM", () => server.close(() => process.exit(0)));
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as probe:
        port: int = probe.getsockname()[1]
        return port


def ask(port: int) -> bytes:
    with socket.create_connection(("127.0.0.1", port), BOUND) as client:
        client.sendall(b"GET / HTTP/1.0\r\n\r\n")
        return client.recv(1000)


@pytest.mark.parametrize("instances", [1, 2])
def test_nobody_is_refused_while_a_worker_is_replaced(tmp_path: Path, instances: int) -> None:
    port = free_port()
    toml = f'[engine]\nlisten = "off"\n[workers.app]\nrun = "app.py"\ninstances = {instances}\n'
    made = Project(tmp_path, toml + f'listen = "127.0.0.1:{port}"\n', {"app": SERVER})
    made.start()
    answers: Counter[bytes] = Counter()
    ended = Event()

    def load() -> None:
        while not ended.is_set():
            try:
                answers[ask(port)] += 1
            except OSError as error:
                answers[repr(error).encode()] += 1

    threads = [Thread(target=load) for _ in range(3)]
    try:
        for thread in threads:
            thread.start()
        for _ in range(5):
            made.call("engine::workers::restart", {"name": "app"})
        ended.set()
        for thread in threads:
            thread.join(BOUND)
        assert all(answer.isdigit() for answer in answers), answers
        assert len(answers) > instances  # several processes have answered
        assert made.call("app::children") is False
    finally:
        ended.set()
        made.stop()
    with pytest.raises(ConnectionRefusedError):
        ask(port)


def test_a_program_of_another_language_listens_on_the_descriptor(tmp_path: Path) -> None:
    port = free_port()
    (tmp_path / "server.js").write_text(NODE)
    toml = f'[engine]\nlisten = "off"\n[workers.js]\nrun = "node server.js"\nlisten = "127.0.0.1:{port}"\n'
    made = Project(tmp_path, toml, {})
    made.start()
    try:
        first = ask(port)
        assert b"node " in first
        made.call("engine::workers::restart", {"name": "js"})
        second = ask(port)
        assert b"node " in second
        assert first.rsplit(b" ", 1) != second.rsplit(b" ", 1)
    finally:
        made.stop()


def test_a_worker_that_is_stopped_or_has_failed_holds_no_port(tmp_path: Path) -> None:
    port = free_port()
    toml = f'[engine]\nlisten = "off"\n[workers.app]\nrun = "app.py"\nlisten = "127.0.0.1:{port}"\n'
    made = Project(tmp_path, toml, {"app": SERVER})
    made.start()
    try:
        assert ask(port).isdigit()
        made.call("engine::workers::stop", {"name": "app"})
        with socket.create_server(("127.0.0.1", port)):
            rows = made.call("engine::workers::start", {"name": "app"})
            assert "failed" in str(rows)
            assert str(os.getpid()) in made.wait(f"port {port} is taken by")[0]
        made.call("engine::workers::restart", {"name": "app"})
        assert ask(port).isdigit()
    finally:
        made.stop()
