"""S10, S12, S18: what another user of the machine can do with a running project: nothing.

Needs root to be another user. Without it the same attempts are made as ourselves with a wrong token, and the modes of
the files stand for what the kernel would refuse; test_socket_table.py has the kernel's table with a foreign row.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support.dev_project import Project, free_port, running_project
from tests.support.harness import BOUND

NOBODY = 65534
TOML = """
[engine]
listen = "127.0.0.1:0"
[[engine.listeners]]
port = GUARDED
[workers.state]
[workers.stream.config]
port = STREAM
"""
# Imports first, as root: another user may not be able to read the interpreter's own folder.
ATTEMPTS = """
import encodings.idna, json, os, socket, sys
facts = json.load(sys.stdin)
if facts["uid"] is not None:
    os.setgroups([])
    os.setgid(facts["uid"])
    os.setuid(facts["uid"])

def attempt(action):
    try:
        return action()
    except OSError as error:
        return type(error).__name__

def shake_hands(port):
    with socket.create_connection(("127.0.0.1", port), timeout=facts["bound"]) as plain:
        lines = [f"GET {facts['path']} HTTP/1.1", f"Host: 127.0.0.1:{port}", "Upgrade: websocket"]
        lines += ["Connection: Upgrade", "Sec-WebSocket-Version: 13", "Sec-WebSocket-Key: AAAAAAAAAAAAAAAAAAAAAA=="]
        lines += [*facts["headers"], "", ""]
        plain.sendall("\\r\\n".join(lines).encode())
        return plain.recv(4096).split()[1].decode()

def connect(path):
    with socket.socket(socket.AF_UNIX) as unix:
        unix.connect(path)
    return "connected"

def look(path):
    if os.path.isdir(path):
        return os.listdir(path)
    return open(path, "rb").read(1).hex()

print(json.dumps({
    "ports": {name: attempt(lambda: shake_hands(port)) for name, port in facts["ports"].items()},
    "socket": attempt(lambda: connect(facts["socket"])),
    "files": {path: attempt(lambda: look(path)) for path in facts["files"]},
}))
"""


@pytest.fixture(scope="module")
def project() -> Iterator[Project]:
    """A project in a folder that everybody may enter, made under the most careless umask."""
    folder = Path(tempfile.mkdtemp(prefix="iii-open-"))
    folder.chmod(0o755)
    ports = {"GUARDED": free_port(), "STREAM": free_port()}
    text = TOML
    for name, port in ports.items():
        text = text.replace(name, str(port))
    (folder / "iii.toml").write_text(text)
    old = os.umask(0)
    try:
        with running_project(folder) as running:
            os.umask(old)
            running.ports = {name.lower(): port for name, port in ports.items()}
            running.ports["gateway"] = int(running.facts["url"].rpartition(":")[2])
            yield running
    finally:
        os.umask(old)
        shutil.rmtree(folder)


def files_of(project: Project) -> list[Path]:
    """Return everything the engine has made, the folder itself first."""
    made = project.folder / ".iii"
    return [made, *sorted(path for path in made.rglob("*") if not path.is_socket())]


def attempted(project: Project, uid: int | None, path: str = "/", *headers: str) -> dict[str, Any]:
    """Try everything as a user (None: as we are) and return what came of it."""
    facts = {
        "uid": uid,
        "bound": BOUND,
        "path": path,
        "headers": headers,
        "ports": project.ports,
        "socket": project.facts["socket"],
        "files": list(map(str, files_of(project))),
    }
    done = subprocess.run(
        [sys.executable, "-c", ATTEMPTS],
        input=json.dumps(facts),
        stdout=subprocess.PIPE,
        text=True,
        check=True,
        cwd="/",
    )
    outcome: dict[str, Any] = json.loads(done.stdout)
    return outcome


def test_s12_another_user_reaches_neither_a_port_nor_the_socket_nor_a_file(project: Project) -> None:
    everyone = dict.fromkeys(project.ports, "401")
    if os.getuid() == 0:
        outcome = attempted(project, NOBODY)
        assert outcome["socket"] == "PermissionError"
        assert set(outcome["files"].values()) == {"PermissionError"}
    else:
        outcome = attempted(project, None, "/", "Authorization: Bearer wrong")
    assert outcome["ports"] == everyone


def test_s12_we_ourselves_reach_all_of_it_and_so_does_another_user_with_the_token(project: Project) -> None:
    everyone = dict.fromkeys(project.ports, "101")
    ours = attempted(project, None)
    assert (ours["ports"], ours["socket"]) == (everyone, "connected")
    assert "PermissionError" not in map(str, ours["files"].values())
    token = (project.folder / ".iii/run/token").read_text().strip()
    other = NOBODY if os.getuid() == 0 else None
    assert attempted(project, other, "/", f"Authorization: Bearer {token}")["ports"] == everyone


def test_s10_everything_the_engine_makes_is_ours_alone_whatever_the_umask(project: Project) -> None:
    modes = {path: stat.S_IMODE(path.lstat().st_mode) for path in files_of(project)}
    assert len(modes) > 5
    loose = {str(path): oct(mode) for path, mode in modes.items() if mode != (0o700 if path.is_dir() else 0o600)}
    assert loose == {}
    assert stat.S_IMODE(Path(project.facts["socket"]).lstat().st_mode) == 0o600


@pytest.mark.parametrize("form", ["query", "header", "subprotocol"])
def test_s18_a_token_in_an_address_is_refused_and_no_token_is_in_any_log(project: Project, form: str) -> None:
    token = (project.folder / ".iii/run/token").read_text().strip()
    path, headers = "/", [f"Authorization: Bearer {token}x"]
    if form == "query":
        path, headers = f"/?token={token}", []
    elif form == "subprotocol":
        headers = [f"Sec-WebSocket-Protocol: iii.token.{token}"]
    assert attempted(project, None, path, *headers)["ports"] == dict.fromkeys(project.ports, "401")
    told = "".join(project.lines).encode()
    told += b"".join(path.read_bytes() for path in files_of(project) if path.is_file() and path.name != "token")
    assert token.encode() not in told
