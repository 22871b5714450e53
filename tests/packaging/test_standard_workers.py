"""The plain install on a fresh machine: a virtual environment with the wheel alone runs every standard worker."""

from __future__ import annotations

import json
import re
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from urllib.request import urlopen

import pytest

from iii.engine.config.project import STANDARD_WORKERS
from tests.support.installed import BOUND, run, running
from tests.support.live_project import free_ports

# Ports of its own, so that several runs fit on one machine; and the plain HTTP of this test is no public address.
CONFIGS = {
    "http": "[workers.http.config]\nport = HTTP\n",
    "stream": "[workers.stream.config]\nport = 0\n",
    "observability": "[workers.observability.config]\nprometheus = { port = 0 }\n",
    "console": "[workers.console.config]\nport = 0\n",
    "mcp": '[workers.mcp.config]\nport = 0\ntools = ["hello::*"]\n',
    "http_functions": "[workers.http_functions.config.security]\nblock_private_ips = false\nrequire_https = false\n",
}
ENGINE = '\n[engine]\nlisten = "127.0.0.1:0"\n'
SHOP = """
from iii import register_worker
from iii.http import HttpInvocationConfig

worker = register_worker()
worker.register_function("shop::parcel", HttpInvocationConfig("http://127.0.0.1:PORT/"))
worker.register_function("shop::page", lambda request: {"body": request["query_params"]})
worker.register_trigger({"type": "http", "function_id": "shop::page", "config": {"api_path": "/page"}})
"""
CALLS = {
    "state": ("state::set scope=s key=k value=7", '"new_value": 7'),
    "stream": ("stream::set stream_name=n group_id=g item_id=i data={}", '"new_value": {}'),
    "queue": ("hello::greet name=Ada --enqueue default", '"messageReceiptId"'),
    "flow": ("flow::list", '"runs": []'),
    "pubsub": ("publish topic=t data=1", ""),
    "cron": ("cron::list", '{"jobs": []}'),
    "http": ("http::openapi", '"/page"'),
    "bridge": ('bridge.invoke function_id=hello::greet data={"name":"Ada"}', "Hello, Ada."),
    "http_functions": ("shop::parcel", '{"sent": true}'),
    "mcp": ("mcp::tools", '"hello__greet": "hello::greet"'),
    "console": ("console::about", '"read_only": false'),
    "observability": ("engine::metrics::list", '"invocations"'),
    "configuration": ("configuration::get id=queue", '"value": {}'),
}


class Parcels(BaseHTTPRequestHandler):
    """A function behind a URL."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers["content-length"]))
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.end_headers()
        self.wfile.write(b'{"sent": true}')

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@contextmanager
def parcels() -> Iterator[int]:
    """Serve a function behind a URL; the context is its port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), Parcels) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.timeout(BOUND)
def test_a_fresh_environment_runs_every_standard_worker(tmp_path: Path, wheel: Path) -> None:
    run(sys.executable, "-m", "venv", tmp_path / "env", cwd=tmp_path)
    run(
        tmp_path / "env/bin/python",
        "-m",
        "pip",
        "-q",
        "--disable-pip-version-check",
        "install",
        wheel,
        cwd=tmp_path,
    )
    iii = tmp_path / "env/bin/iii"
    here, there = tmp_path / "here", tmp_path / "there"
    for project in (here, there):
        project.mkdir()
        run(iii, "init", cwd=project)
    (there / "iii.toml").write_text((there / "iii.toml").read_text() + ENGINE)
    with parcels() as port, running(iii, there) as said_there:
        run(iii, "add", *STANDARD_WORKERS, cwd=here)
        toml = (here / "iii.toml").read_text().replace('url = ""', f'url = "{address_in(said_there)}"')
        for name, config in CONFIGS.items():
            toml = toml.replace(f"[workers.{name}]\n", config)
        toml = toml.replace("HTTP", str(free := free_ports("http")["http"]))
        (here / "iii.toml").write_text(toml + ENGINE + '[workers.shop]\nrun = "shop.py"\n')
        (here / "shop.py").write_text(SHOP.replace("PORT", str(port)))
        assert f"{len(STANDARD_WORKERS) + 2} workers" in run(iii, "check", cwd=here).stdout
        with running(iii, here) as said:
            assert "ready in" in said.splitlines()[-1]
            assert "but not" not in said, said
            assert " failed: " not in said, said
            rows = json.loads(run(iii, "ps", "--json", cwd=here).stdout)["workers"]
            states = {row["name"]: (row["state"], row["last_exit"], row["last_error"]) for row in rows}
            assert states == dict.fromkeys((*STANDARD_WORKERS, "hello", "shop"), ("ready", None, None))
            checks = json.loads(run(iii, "doctor", "--json", cwd=here).stdout)["checks"]
            assert {check["state"] for check in checks} == {"ok"}, checks
            answers = {name: run(iii, "trigger", *call.split(), cwd=here).stdout for name, (call, _) in CALLS.items()}
            with urlopen(f"http://127.0.0.1:{free}/page?a=1", timeout=BOUND) as page:
                assert json.load(page) == {"a": "1"}
    assert answers.keys() == set(STANDARD_WORKERS)
    for name, (call, expected) in CALLS.items():
        assert expected in answers[name], call


def address_in(said: str) -> str:
    """Return the address for SDKs that `iii dev` has named."""
    found = re.search(r"\bws://127\.0\.0\.1:\d+", said)
    assert found, said
    return found[0]
