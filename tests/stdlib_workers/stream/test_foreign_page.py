"""S03, S05 to S07: a page of another origin, in a real browser, tries everything and reaches nothing.

Needs Chromium.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import pytest

from tests.support.browser import open_page
from tests.support.live_project import ROOT, free_ports, project

WAYS = 20  # of one name and one port, in the page
SPY = """
def hit(data):
    with open("hits", "a") as hits:
        hits.write(f"{data}\\n")
    return {"status_code": 200, "body": {"secret": 1}}
worker.register_function("spy::hit", hit)
worker.register_function("spy::auth", lambda data: hit(data) and {})
for method in ("POST", "PUT"):
    config = {"api_path": "spy", "http_method": method}
    worker.register_trigger({"type": "http", "function_id": "spy::hit", "config": config})
"""
TOML = """
[engine]
listen = "127.0.0.1:GATEWAY"
[[engine.listeners]]
port = GUARDED
rbac = { auth_function_id = "spy::auth", expose_functions = ["*"] }
[workers.spy]
run = "spy.py"
[workers.stream.config]
port = STREAM
[workers.http.config]
port = HTTP
"""


class Quiet(SimpleHTTPRequestHandler):
    """Serves files and writes no log."""

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def served(folder: Path) -> Iterator[int]:
    """Serve a folder to the browser from an origin that is not the project's; yield the port."""
    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Quiet, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield server.server_port
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.slow
@pytest.mark.timeout(300)
@pytest.mark.parametrize("host", ["127.0.0.1", "localhost", "rebound.test"])
def test_s03_a_page_of_another_origin_tries_everything_and_reaches_nothing(tmp_path: Path, host: str) -> None:
    ports = free_ports("gateway", "guarded", "stream", "http")
    toml = TOML
    for name, port in ports.items():
        toml = toml.replace(name.upper(), str(port))
    with project(tmp_path, toml, {"spy": SPY}) as running, served(ROOT / "tests" / "support") as port:
        query = "&".join(f"{name}={number}" for name, number in ports.items())
        url = f"http://{host}:{port}/foreign_page.html?{query}"
        rules = "--host-resolver-rules=MAP rebound.test 127.0.0.1"
        with open_page(url, tmp_path / "browser", rules) as page:
            page.wait("window.isOver", True)
            assert page.value("tried") == 5 * len(ports) * WAYS
            assert json.loads(page.value("JSON.stringify(reached)")) == []
        workers = {row["name"] for row in running.call("engine::workers::list")["workers"]}
        assert workers == {"spy", "stream", "http"}
        assert not (tmp_path / "hits").exists()
        running.call("spy::hit", {})
        assert (tmp_path / "hits").read_text() == "{}\n"
