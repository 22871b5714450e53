"""Functions that get arguments, behind a real http worker: streams and clients that leave, statuses, sockets."""

from __future__ import annotations

import json
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest
from websockets.sync.client import connect

from tests.support.live_project import BOUND, ROOT
from tests.support.web_project import Web, web

WORKER = """
def bind(function_id, path, type="http", **config):
    arguments = config.pop("arguments", {})
    config = {"api_path": path, "payload": "arguments", "arguments": arguments, **config}
    worker.register_trigger({"type": type, "function_id": function_id, "config": config})

def error(status, message):
    return InvocationError("not_found", message, details={"http_status": status})

@worker.function("web::count")
def count(to: int, fail: bool = False):
    for number in range(to):
        yield {"number": number}
    if fail:
        raise error(404, "too late")

@worker.function("web::ticks")
async def ticks(size: int = 1):
    made = 0
    try:
        while True:
            made += 1
            yield "x" * size
    finally:
        say("closed after", made)

@worker.function("web::find")
def find(id: int) -> dict:
    if id == 0:
        raise error(404, "no such order")
    if id == 1:
        raise error(503, "come again")
    if id == 2:
        return worker.trigger("web::find", {"id": 0})
    return {"id": id}

@worker.function("web::talk")
def talk(event: str, room: str, data: str = ""):
    return f"{room}: {data}" if event == "message" else None

fail = {"in": "query", "type": "boolean"}
bind("web::count", "/count/{to}", arguments={"to": {"in": "path", "type": "integer"}, "fail": fail})
bind("web::ticks", "/ticks", arguments={"size": {"in": "query", "type": "integer"}}, stream=True)
bind("web::missing", "/missing")
worker.register_trigger({"type": "http", "function_id": "web::absent", "config": {"api_path": "/absent"}})
bind("web::find", "/find/{id}", arguments={"id": {"in": "path", "type": "integer"}})
bind(
    "web::talk",
    "/talk/{room}",
    "websocket",
    arguments={
        "event": {"in": "event", "name": "event", "required": True},
        "room": {"in": "path", "required": True},
        "data": {"in": "event", "name": "data"},
    },
)
"""


@pytest.fixture(scope="module")
def site(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    with web(tmp_path_factory.mktemp("site"), WORKER, command="dev") as made:
        made.wait_for("/count/{to}", "/ticks", "/find/{id}")
        yield made


def test_a_generator_streams_and_a_plain_function_does_not(site: Web) -> None:
    answer = site.ask("GET", "/count/2")
    assert answer.headers["content-type"] == "text/event-stream; charset=utf-8"
    assert answer.body == b'data: {"number":0}\n\ndata: {"number":1}\n\n'
    lines = site.ask("GET", "/count/300", headers={"accept": "application/x-ndjson"}).body.splitlines()
    assert [json.loads(line)["number"] for line in lines] == list(range(300))
    assert site.ask("GET", "/find/7").json == {"id": 7}
    assert site.ask("GET", "/count/x").status == 422


def test_a_stream_whose_function_fails_ends_without_its_end(site: Web) -> None:
    request = b"GET /count/1?fail=true HTTP/1.1\r\nHost: localhost:%d\r\nConnection: close\r\n\r\n" % site.port
    answer = site.send_raw(request)
    assert b'data: {"number":0}\n\n' in answer
    assert b"event: error" in answer
    assert b"too late" in answer
    assert not answer.endswith(b"0\r\n\r\n")
    assert site.ask("GET", "/count/0?fail=true").status == 404


@pytest.mark.parametrize("size", [1, 100_000])
def test_a_client_that_does_not_read_holds_the_generator_back_and_one_that_leaves_ends_it(site: Web, size: int) -> None:
    seen = len(site.project.lines)
    with socket.create_connection(("127.0.0.1", site.port), BOUND) as client:
        client.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
        client.sendall(b"GET /ticks?size=%d HTTP/1.1\r\nHost: localhost:%d\r\n\r\n" % (size, site.port))
        assert client.recv(4096).startswith(b"HTTP/1.1 200")
    (line,) = site.project.wait("closed after", after=seen)
    if size > 1:
        assert int(line.rpartition(" ")[2]) < 1000  # of 100 KB each: it did not run away from its client


def test_a_status_below_500_is_no_failure_and_one_above_is(site: Web) -> None:
    seen = len(site.project.lines)
    answer = site.ask("GET", "/find/0")
    assert (answer.status, answer.json["error"]) == (404, {"code": "not_found", "message": "no such order"})
    assert site.ask("GET", "/find/x").status == 422
    assert site.ask("GET", "/find/1").status == 503
    # Its own call failed: the status was for another request.
    assert site.ask("GET", "/find/2").status == 500
    site.project.wait("/find/2 500", after=seen)
    failures = site.project.wait("x web::find failed", count=2, after=seen)
    assert ["come again" in line for line in failures] == [True, False]
    assert "path.id" not in "\n".join(site.project.lines[seen:])


@pytest.mark.parametrize("name", ["missing", "absent"])
def test_a_failure_is_told_once_by_the_engine_whatever_it_is(site: Web, name: str) -> None:
    seen = len(site.project.lines)
    assert site.ask("GET", f"/{name}").status == 500
    site.project.wait(f"/{name} 500", after=seen)
    site.project.wait(f"web::{name} failed", after=seen)
    assert len(site.project.said("failed", seen)) == 1


def test_from_the_terminal_it_is_an_error_with_its_message(site: Web) -> None:
    command = [sys.executable, "-m", "cli.main", "trigger", "web::find", "id=0"]
    environment = {"PYTHONPATH": str(ROOT), "PATH": "/usr/bin:/bin"}
    done = subprocess.run(
        command, cwd=site.project.folder, env=environment, capture_output=True, text=True, check=False
    )
    assert done.returncode == 1
    assert "error: " in done.stderr
    assert "no such order" in done.stderr


def test_every_event_of_a_socket_gives_the_arguments_that_its_opening_had(site: Web) -> None:
    with connect(f"ws://127.0.0.1:{site.port}/talk/kitchen") as client:
        client.send("hello")
        assert client.recv(BOUND) == "kitchen: hello"


def test_a_route_with_a_wrong_mapping_is_refused_where_it_is_made(tmp_path: Path) -> None:
    wrong = 'bind("web::find", "/b/{nr}", arguments={"id": {"in": "path"}})\n'
    wrong += 'bind("web::find", "/c/{id}", arguments={"id": {"in": "pth"}})\n'
    with web(tmp_path, WORKER + wrong) as made:
        made.project.wait("the http trigger of web::find was refused: trigger_registration_failed", count=2)
        assert made.project.said("arguments.id is in the path, which has no such name: '/b/{nr}'")
        assert made.project.said('arguments.id: in must be "event" or "path"')
