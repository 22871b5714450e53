"""What pages of another origin do in a real browser: preflights, an upload, events across reloads. Needs Chromium."""

from __future__ import annotations

import functools
import hashlib
import json
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from tests.support.browser import Page, open_page
from tests.support.live_project import Project
from tests.support.web_project import QUIET, Web

WORKER = """
import asyncio, base64, hashlib
from iii.http import http

VERSION = 1

def put(request):
    return {"body": {"method": request["method"], "got": request["body"], "kind": request["headers"]["content-type"]}}

def upload(request):
    form = request["body"]
    content = base64.b64decode(form["file"].pop("content_base64"))
    return {"body": {"note": form["note"], "file": form["file"], "sha256": hashlib.sha256(content).hexdigest()}}

@http
async def count(request, response):
    await response.headers({"content-type": "text/event-stream"})
    await response.write("retry: 100\\n\\n")
    number = int(request.headers.get("last-event-id", "0"))
    while True:
        number += 1
        await response.write(f"id: {number}\\ndata: {number} {VERSION}\\n\\n")
        await asyncio.sleep(0.02)

for name, function, method, config in (
    ("put", put, "PUT", {}), ("upload", upload, "POST", {}), ("count", count, "GET", {"stream": True}),
):
    worker.register_function("web::" + name, function)
    worker.register_trigger({"type": "http", "function_id": "web::" + name,
                             "config": {"api_path": "/" + name, "http_method": method, **config}})
"""
TOML = """
[workers.http]
drain_timeout = "1s"
[workers.http.config]
port = 0
static = "public"
cors = { allowed_origins = ["ORIGIN"] }
[workers.web]
run = "web.py"
drain_timeout = "1s"
"""
PAGE = "<!doctype html><title>Another site</title><input type=file>"
# Not the empty page that a browser begins with, which is complete as well.
LOADED = "document.readyState == 'complete' && document.title == 'Another site'"
FOLLOW = """
seen = []; opened = 0; failed = [];
events = new EventSource(%s);
events.onopen = () => opened++;
events.onmessage = (event) => seen.push(event.data.split(' ').map(Number));
events.onerror = (event) => { if (event.data) failed.push(JSON.parse(event.data).error.code) };
0
"""


class Quiet(SimpleHTTPRequestHandler):
    """Files of a folder, without a line for each."""

    def log_message(self, *_: object) -> None:
        """Keep quiet."""


@contextmanager
def foreign_site(folder: Path) -> Iterator[str]:
    """Serve a page of another origin; the context is that origin."""
    folder.mkdir()
    (folder / "index.html").write_text(PAGE)
    handler = functools.partial(Quiet, directory=str(folder))
    with ThreadingHTTPServer(("127.0.0.1", 0), handler) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join()


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Web, str]]:
    """A project, and the origin that its CORS lists."""
    folder = tmp_path_factory.mktemp("pages")
    (folder / "public").mkdir()
    (folder / "public" / "app.css").write_text("p {}")
    with foreign_site(folder / "foreign") as origin:
        made = Project(folder, QUIET + TOML.replace("ORIGIN", origin), {"web": WORKER})
        made.start("dev")
        try:
            web = Web(made)
            web.wait_for("/put", "/upload", "/count")
            yield web, origin
        finally:
            made.stop()


@pytest.fixture
def page(running: tuple[Web, str], tmp_path: Path) -> Iterator[Page]:
    with open_page(running[1], tmp_path / "browser") as made:
        made.wait(LOADED, wanted=True)
        yield made


pytestmark = [pytest.mark.slow, pytest.mark.timeout(180)]


def fetched(page: Page, url: str, options: str = "{}") -> Any:
    """Return status and text of what a page fetches, or the name of what it meets instead."""
    return page.value(
        f"fetch({json.dumps(url)}, {options}).then(async (it) => [it.status, await it.text()], (error) => error.name)"
    )


def test_a_page_of_a_listed_origin_puts_json(running: tuple[Web, str], page: Page) -> None:
    web, _ = running
    options = "{method: 'PUT', headers: {'content-type': 'application/json'}, body: JSON.stringify({a: ['é', 1]})}"
    status, text = fetched(page, f"http://127.0.0.1:{web.port}/put", options)
    assert (status, json.loads(text)) == (200, {"method": "PUT", "got": {"a": ["é", 1]}, "kind": "application/json"})
    assert web.project.wait("OPTIONS /put 200")  # the browser has asked first


def test_a_file_is_fetched_after_its_preflight(running: tuple[Web, str], page: Page) -> None:
    web, _ = running
    assert fetched(page, f"http://127.0.0.1:{web.port}/app.css", "{headers: {'x-asked-by': 'page'}}") == [200, "p {}"]
    assert web.project.wait("OPTIONS /app.css 200")


def test_a_page_of_an_origin_that_is_not_listed_gets_nothing(running: tuple[Web, str], tmp_path: Path) -> None:
    web, _ = running
    with foreign_site(tmp_path / "foreign") as origin, open_page(origin, tmp_path / "browser") as page:
        page.wait(LOADED, wanted=True)
        for path, options in (("/put", "{method: 'PUT', body: '1'}"), ("/app.css", "{}")):
            assert fetched(page, f"http://127.0.0.1:{web.port}{path}", options) == "TypeError"


def test_a_page_uploads_a_file(running: tuple[Web, str], page: Page, tmp_path: Path) -> None:
    web, _ = running
    file = tmp_path / "naïve name.bin"
    file.write_bytes(bytes(range(256)) * 8192)  # 2 MiB
    page.choose_file("input", file)
    page.value("form = new FormData(); form.append('note', 'é'); 0")
    page.value("form.append('file', document.querySelector('input').files[0])")
    status, text = fetched(page, f"http://127.0.0.1:{web.port}/upload", "{method: 'POST', body: form}")
    facts = {"filename": file.name, "content_type": "application/octet-stream", "size": file.stat().st_size}
    digest = hashlib.sha256(file.read_bytes()).hexdigest()
    assert (status, json.loads(text)) == (200, {"note": "é", "file": facts, "sha256": digest})


def test_events_go_on_where_a_reload_has_cut_them(running: tuple[Web, str], page: Page) -> None:
    web, _ = running
    page.value(FOLLOW % json.dumps(f"http://127.0.0.1:{web.port}/count"))
    page.wait("seen.length > 3", wanted=True)
    source = web.project.folder / "web.py"
    source.write_text(source.read_text().replace("VERSION = 1", "VERSION = 2"))
    web.project.wait("changed: reloaded")
    page.wait("seen.at(-1)[1]", 2)
    assert page.value("opened") == 2
    web.project.call("engine::workers::restart", {"name": "http"})
    web.project.wait("~ ready again")
    page.wait("opened", 3)
    count = page.value("seen.length")
    page.wait(f"seen.length > {count}", wanted=True)
    seen = page.value("seen")
    assert [number for number, _ in seen] == list(range(1, len(seen) + 1))
    print(f"{len(seen)} events over {page.value('opened')} connections, told of {page.value('failed')}")
