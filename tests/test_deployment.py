"""The files of docs/how-to/deploy.md: units that systemd accepts, an image whose steps run, nginx before a project."""

from __future__ import annotations

import asyncio
import json
import os
import pwd
import re
import shutil
import signal
import socket
import ssl
import subprocess
import sys
import time
import urllib.error
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from websockets.asyncio.client import connect

from iii.engine.boot.service_manager import FIRST_SOCKET
from tests.support.live_project import ROOT, free_ports, project

TEXT = (ROOT / "docs/how-to/deploy.md").read_text(encoding="utf-8")
BOUND = 30.0
# Of 10; systemd calls what is below 2 "OK", its best word for a program that uses the network.
EXPOSURE = 2.0
SITE = """

@worker.get("/hello")
def hello(name: str = "you") -> dict[str, str]:
    return {"hello": name}

@worker.get("/count")
def count(to: int = 3):
    yield from range(to)

@worker.websocket("/rooms/{room}")
def talk(event: str, room: str = "", data: str = "") -> str | None:
    return f"{room}: {data}" if event == "message" else None
"""


def file_of(name: str) -> str:
    """Return a file of the page."""
    [text] = re.findall(rf"^\*\*{re.escape(name)}\*\*\n\n```\w+\n(.*?)^```$", TEXT, re.MULTILINE | re.DOTALL)
    return str(text)


def test_the_units_are_as_systemd_wants_them(tmp_path: Path) -> None:
    iii = tmp_path / ".venv/bin/iii"
    iii.parent.mkdir(parents=True)
    shutil.copy("/bin/true", iii)
    units = [tmp_path / name for name in ("shop.service", "shop.socket")]
    for unit in units:
        unit.write_text(file_of(unit.name).replace("/srv/shop", str(tmp_path)))
    done = subprocess.run(["systemd-analyze", "verify", *units], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout + done.stderr) == (0, "")
    command = ["systemd-analyze", "security", "--offline=true", "--no-pager", units[0]]
    rated = subprocess.run(command, capture_output=True, text=True, check=True)
    [exposure] = re.findall(r"Overall exposure level for shop\.service: ([\d.]+)", rated.stdout)
    assert float(exposure) < EXPOSURE


def test_the_settings_of_the_unit_leave_the_engine_what_it_needs() -> None:
    unit = file_of("shop.service")
    assert "MemoryDenyWriteExecute" not in unit  # Node compiles while it runs
    assert "ProcSubset" not in unit  # the metrics of processes are read there
    assert "@resources\n" not in unit.partition("SystemCallFilter=~")[2]


def environment(**more: str) -> dict[str, str]:
    """Return ours without what points at another engine, with `iii` and `python` of these tests first."""
    kept = {name: value for name, value in os.environ.items() if not name.startswith("III_")}
    path = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", "")])
    return {**kept, "PATH": path, "PYTHONPATH": str(ROOT), **more}


def get(url: str, context: ssl.SSLContext | None = None, **headers: str) -> tuple[int, str]:
    """Return status and body."""
    request = urllib.request.Request(url, headers=headers)
    try:
        with urllib.request.urlopen(request, timeout=BOUND, context=context) as response:
            return response.status, response.read().decode()
    except urllib.error.HTTPError as error:
        return error.code, error.read().decode()


@contextmanager
def stopped_at_the_end(process: subprocess.Popen[bytes]) -> Iterator[None]:
    try:
        yield
    finally:
        if process.poll() is None:
            process.send_signal(signal.SIGTERM)
            process.communicate(timeout=BOUND)


def write_shop(folder: Path, http: str) -> None:
    """Make a project with a route and a stream, and this config of its http worker."""
    toml = '[engine]\nlisten = "off"\n[workers.site]\nrun = "site_worker.py"\n[workers.http]\nafter = ["site"]\n'
    (folder / "iii.toml").write_text(f"{toml}[workers.http.config]\n{http}\n")
    (folder / "site_worker.py").write_text(f"from iii import register_worker\nworker = register_worker()\n{SITE}")


def test_no_connection_is_refused_while_the_service_restarts(tmp_path: Path) -> None:
    listening = socket.create_server(("127.0.0.1", 0))
    port = listening.getsockname()[1]
    write_shop(tmp_path, f"port = {port}")
    command = f"LISTEN_PID=$$ LISTEN_FDS=1 exec iii start {FIRST_SOCKET}<&{listening.fileno()}"

    def start() -> subprocess.Popen[bytes]:
        return subprocess.Popen(
            ["bash", "-c", command],
            cwd=tmp_path,
            env=environment(),
            pass_fds=[listening.fileno()],
            stdout=subprocess.PIPE,
        )

    with stopped_at_the_end(start()):
        assert get(f"http://127.0.0.1:{port}/hello?name=ada") == (200, '{"hello":"ada"}')
    # Between the two nobody accepts, and the kernel keeps who comes.
    waiting = socket.create_connection(("127.0.0.1", port))
    waiting.sendall(b"GET /hello HTTP/1.1\r\nhost: localhost:%d\r\nconnection: close\r\n\r\n" % port)
    with stopped_at_the_end(start()):
        waiting.settimeout(BOUND)
        assert waiting.recv(15) == b"HTTP/1.1 200 OK"
    waiting.close()
    listening.close()


def steps_of(dockerfile: str) -> list[tuple[str, str]]:
    """Return the instructions of a Dockerfile with what they say."""
    return [(line.partition(" ")[0], line.partition(" ")[2]) for line in dockerfile.splitlines() if line]


def test_the_steps_of_the_image_make_a_project_that_runs_and_is_healthy(tmp_path: Path) -> None:
    """As a script, in a folder that stands for the image's /app. Not run here: FROM, useradd, and pip's download."""
    port = free_ports("http")["http"]
    context, image = tmp_path / "context", tmp_path / "image"
    context.mkdir()
    image.mkdir()
    write_shop(context, f'port = {port}\nhost = "${{HTTP_HOST:-127.0.0.1}}"')
    (context / "requirements.txt").write_text("iii-engine\n")
    steps = steps_of(file_of("Dockerfile"))
    assert sum(name in ("RUN", "COPY") for name, _ in steps) <= 4  # each is a layer
    variables, user = environment(), ""
    for name, said in steps:
        if name == "COPY":
            *sources, target = [word for word in said.split() if not word.startswith("--")]
            for source in sources:
                copy = shutil.copytree if (context / source).is_dir() else shutil.copy
                copy(context / source, image / target, **({"dirs_exist_ok": True} if copy is shutil.copytree else {}))
        elif name == "RUN" and said.startswith("pip install"):
            pip = [sys.executable, "-m", "pip", "--quiet", "--disable-pip-version-check", *said.split()[1:]]
            # What this environment has already is what the image gets.
            subprocess.run([*pip, "--no-index", "--no-deps"], cwd=image, env=variables, check=True)
        elif name == "ENV":
            variables.update([said.split("=", 1)])
        elif name == "USER":
            user = said
    assert user not in ("", "root")
    check, start = (
        json.loads(said.partition("CMD ")[2] or said) for name, said in steps if name in ("HEALTHCHECK", "CMD")
    )
    check = [word.replace("3111", str(port)) for word in check]
    assert start == ["iii", "start"]
    engine = subprocess.Popen(start, cwd=image, env=variables, stdout=subprocess.PIPE)
    with stopped_at_the_end(engine):
        assert engine.stdout is not None
        for line in engine.stdout:
            if b"ready in" in line:
                break
        checked = subprocess.run(check, env=variables, capture_output=True, text=True, timeout=BOUND, check=False)
        assert checked.returncode == 0, checked.stderr
    assert subprocess.run(check, env=variables, capture_output=True, check=False).returncode != 0


def accepts(port: int) -> bool:
    """Whether somebody listens there."""
    with socket.socket() as probe:
        return probe.connect_ex(("127.0.0.1", port)) == 0


@contextmanager
def nginx(folder: Path, port: int, tls: int) -> Iterator[ssl.SSLContext]:
    """Run nginx with the page's file on a free port, with a certificate of its own; yield what trusts that."""
    openssl = "openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:prime256v1 -nodes -days 1 -subj /CN=shop.example"
    names = ["-addext", "subjectAltName=DNS:shop.example", "-keyout", "privkey.pem", "-out", "fullchain.pem"]
    subprocess.run([*openssl.split(), *names], cwd=folder, capture_output=True, check=True)
    site = file_of("nginx.conf").replace("127.0.0.1:3111", f"127.0.0.1:{port}").replace("listen 443", f"listen {tls}")
    site = site.replace("/etc/letsencrypt/live/shop.example", str(folder))
    bodies = "".join(
        f"{kind}_temp_path {folder}/{kind};" for kind in ("client_body", "proxy", "fastcgi", "uwsgi", "scgi")
    )
    user = f"user {pwd.getpwuid(os.getuid()).pw_name};" if os.getuid() == 0 else ""
    (folder / "nginx.conf").write_text(
        f"{user} daemon off; pid {folder}/nginx.pid; error_log stderr; worker_processes 1;"
        f"events {{}} http {{ access_log off; {bodies} {site} }}"
    )
    process = subprocess.Popen(["nginx", "-c", folder / "nginx.conf"], stdout=subprocess.PIPE)
    with stopped_at_the_end(process):
        until = time.monotonic() + BOUND
        while not accepts(tls):
            assert process.poll() is None
            assert time.monotonic() < until
            time.sleep(0.02)  # nginx says nothing when it is ready
        yield ssl.create_default_context(cafile=str(folder / "fullchain.pem"))


@pytest.mark.skipif(shutil.which("nginx") is None, reason="nginx is not installed")
def test_nginx_in_front_passes_requests_streams_and_sockets_on_over_tls(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    ports = free_ports("http", "tls")
    folder = tmp_path / "shop"
    folder.mkdir()
    write_shop(folder, f'port = {ports["http"]}\nhosts = ["shop.example"]')
    toml, site = (folder / "iii.toml").read_text(), {"site_worker": SITE}
    resolve = socket.getaddrinfo
    monkeypatch.setattr(socket, "getaddrinfo", lambda host, *rest, **more: resolve("127.0.0.1", *rest, **more))
    url = f"https://shop.example:{ports['tls']}"
    with project(folder, toml, site), nginx(tmp_path, ports["http"], ports["tls"]) as trusted:
        assert get(f"{url}/hello?name=ada", trusted) == (200, '{"hello":"ada"}')
        assert [get(f"{url}{path}", trusted)[0] for path in ("/healthz", "/readyz", "/docs")] == [404] * 3
        status, events = get(f"{url}/count", trusted, accept="text/event-stream")
        assert (status, re.findall(r"^data: (.*)$", events, re.MULTILINE)) == (200, ["0", "1", "2"])

        async def talk() -> str | bytes:
            address = f"wss://shop.example:{ports['tls']}/rooms/tea"
            origin = "https://shop.example"
            async with connect(address, ssl=trusted, origin=origin, proxy=None) as connection:  # type: ignore[arg-type]
                await connection.send("hello")
                return await connection.recv()

        assert asyncio.run(talk()) == "tea: hello"
