"""Requests and responses as streams, through channels: real sockets, a real engine."""

from __future__ import annotations

import http.client
import json
from collections.abc import Iterator

import pytest

from stdlib_workers.http.streaming import MAX_FILES
from tests.support.live_project import BOUND
from tests.support.web_project import Web, web

WORKER = """
from iii.http import http

gone = threading.Event()

@http
async def events(req, res):
    await res.status(201)
    await res.headers({"content-type": "text/event-stream", "x-user": req.path_params["user"]})
    await res.write("data: first\\n\\n")
    await worker.trigger_async("web::more", {})
    await res.write("data: second\\n\\n")

asked = threading.Event()

def more(_):
    asked.wait(20)

def let_go(_):
    asked.set()

@http
async def double(req, res):
    await res.headers({"content-type": "application/octet-stream"})
    async for chunk in req.request_body:
        await res.write(chunk.upper())

@http
async def result(req, res):
    await res.status(500)
    return {"status_code": 202, "body": {"got": req.body, "raw": (await req.request_body.read_all()).decode()}}

@http
async def empty(req, res):
    await res.status(204)

@http
async def crash(req, res):
    raise RuntimeError("boom")

@http
async def no_file(req, res):
    open("/no/such/file")

def endless(request):
    try:
        while True:
            request["response"].send(b"x" * 1000)
    except OSError:
        say("the client has gone")
        return None

@http
async def files(req, res):
    rows = req.body["f"] if isinstance(req.body["f"], list) else [req.body["f"]]
    sizes = [[row["filename"], row["size"], len(await row["content"].read_all())] for row in rows]
    return {"body": {"files": sizes, "title": req.body.get("title")}}

for function in (more, let_go):
    worker.register_function("web::" + function.__name__, function)
for function, path, method in ((events, "/events/:user", "GET"), (double, "/double", "POST"), (crash, "/crash", "GET"),
                               (no_file, "/no-file", "GET"),
                               (result, "/result", "POST"), (empty, "/empty", "GET"), (endless, "/endless", "GET"),
                               (files, "/files", "POST")):
    worker.register_function("web::" + function.__name__, function)
    worker.register_trigger({"type": "http", "function_id": "web::" + function.__name__,
                             "config": {"api_path": path, "http_method": method, "stream": True}})
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    toml = '[engine]\nlisten = "off"\n'  # streams need no listener of the engine
    with web(tmp_path_factory.mktemp("streams"), WORKER, 'default_timeout = "5s"', toml) as made:
        yield made


def test_events_arrive_as_they_are_written(running: Web) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=BOUND)
    connection.request("GET", "/events/ann")
    response = connection.getresponse()
    assert (response.status, response.getheader("content-type")) == (201, "text/event-stream")
    assert response.getheader("x-user") == "ann"
    assert response.readline() == b"data: first\n"
    running.project.call("web::let_go", {})
    assert response.read() == b"\ndata: second\n\n"
    connection.close()


def test_a_body_streams_through(running: Web) -> None:
    body = b"abcdefgh" * 100_000
    answer = running.ask("POST", "/double", body, {"content-type": "application/octet-stream"})
    assert (answer.status, answer.body) == (200, body.upper())


def form_of(*parts: tuple[str, bytes]) -> bytes:
    """A multipart form, each part given by its disposition and content."""
    head = b"--x\r\nContent-Disposition: form-data; "
    return b"".join(head + text.encode() + b"\r\n\r\n" + data + b"\r\n" for text, data in parts) + b"--x--\r\n"


MULTIPART = {"content-type": "multipart/form-data; boundary=x"}


def test_files_of_a_form_are_channels(running: Web) -> None:
    large = b"a" * 3_000_000
    form = form_of(
        ('name="title"', b"two"), ('name="f"; filename="a"', large), ('name="f"; filename="b"', b""), ('name="g"', b"")
    )
    answer = running.ask("POST", "/files", form, MULTIPART)
    assert (answer.status, answer.json) == (
        200,
        {"files": [["a", len(large), len(large)], ["b", 0, 0]], "title": "two"},
    )


@pytest.mark.parametrize(("count", "status"), [(MAX_FILES, 200), (MAX_FILES + 1, 413)])
def test_the_files_of_a_form_are_bounded(running: Web, count: int, status: int) -> None:
    form = form_of(*[('name="f"; filename="a"', b"x")] * count)
    assert running.ask("POST", "/files", form, MULTIPART).status == status


def test_a_result_wins_over_what_was_set_before_the_first_bytes(running: Web) -> None:
    answer = running.ask("POST", "/result", {"a": 1})
    assert (answer.status, answer.json) == (202, {"got": {"a": 1}, "raw": json.dumps({"a": 1})})


def test_a_stream_may_be_empty_or_fail(running: Web) -> None:
    assert (running.ask("GET", "/empty").status, running.ask("GET", "/empty").body) == (204, b"")
    crashed = running.ask("GET", "/crash")
    assert (crashed.status, crashed.json["error"]["message"]) == (500, "boom")
    # What the system says is no client that has gone.
    assert "No such file" in running.ask("GET", "/no-file").json["error"]["message"]


def test_a_function_learns_that_its_client_has_gone(running: Web) -> None:
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=BOUND)
    connection.request("GET", "/endless")
    response = connection.getresponse()
    assert response.read(5000) == b"x" * 5000
    response.close()
    connection.close()
    running.project.wait("the client has gone")
