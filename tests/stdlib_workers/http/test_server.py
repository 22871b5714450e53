"""The http worker in a real engine, over real sockets: routes come and go, hostile bytes are refused."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator

import pytest

from stdlib_workers.http import listening as limits
from tests.support.live_project import BOUND, ROOT
from tests.support.web_project import Web, read_all, web

WORKER = """
started = threading.Event()

def bind(function, path, method="GET", **config):
    worker.register_function("web::" + function.__name__, function)
    return worker.register_trigger({"type": "http", "function_id": "web::" + function.__name__,
                                    "config": {"api_path": path, "http_method": method, **config}})

def echo(request):
    return {"body": request}

def upload(request):
    return {"body": len(request["body"])}

def crash(request):
    raise RuntimeError("boom")

def die(request):
    os.kill(os.getpid(), signal.SIGKILL)

def number(request):
    return {"body": request["body"]["n"] + 1}

def late(request):
    threading.Event().wait(60)

async def wait(request):
    import asyncio
    say("waiting", request["path"])
    try:
        await asyncio.sleep(0.5 if request["path"] == "/wait" else 60)
        say("finished", request["path"])
    except asyncio.CancelledError:
        say("cancelled", request["path"])
        raise

def add_route(payload):
    global added
    added = bind(more, payload["path"])

def more(request):
    return {"body": "more"}

def drop_route(payload):
    added.unregister()

def add_conflict(payload):
    worker.register_trigger({"type": "http", "function_id": "web::echo", "config": {"api_path": "/echo/:other"}})

bind(echo, "/echo/:id")
bind(upload, "/upload", "POST")
bind(crash, "/crash")
bind(die, "/die")
bind(late, "/late")
bind(wait, "/wait")
worker.register_trigger({"type": "http", "function_id": "web::wait",
                         "config": {"api_path": "/wait/cancelled", "cancel": True}})
worker.register_function("web::number", number, request_format={
    "type": "object", "properties": {"body": {"type": "object", "properties": {"n": {"type": "number"}}}}})
worker.register_trigger({"type": "http", "function_id": "web::number",
                         "config": {"api_path": "/n", "http_method": "POST"}})
worker.register_trigger({"type": "http", "function_id": "web::nobody", "config": {"api_path": "/nobody"}})
for function in (add_route, drop_route, add_conflict):
    worker.register_function("web::" + function.__name__, function)
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    with web(tmp_path_factory.mktemp("web"), WORKER, 'default_timeout = "1s"') as made:
        yield made


def test_a_request_reaches_its_function_and_comes_back(running: Web) -> None:
    answer = running.ask("GET", "/echo/a%2Fb?q=1", headers={"X-One": "1"})
    assert answer.status == 200
    request = answer.json
    assert (request["path_params"], request["query_params"]) == ({"id": "a/b"}, {"q": "1"})
    assert request["headers"]["x-one"] == "1"


def test_h06_failures_have_their_statuses(running: Web) -> None:
    crashed = running.ask("GET", "/crash")
    assert (crashed.status, crashed.json["error"]["message"]) == (500, "boom")
    assert b"Traceback" not in crashed.body
    assert running.ask("GET", "/nobody").json["error"]["code"] == "function_not_found"
    assert crashed.json["error"]["details"]["call_id"]
    late = running.ask("GET", "/late")
    assert (late.status, late.json["error"]["code"]) == (504, "TIMEOUT")
    assert late.json["error"]["details"]["call_id"]
    refused = running.ask("POST", "/n", {"n": "two"})
    assert (refused.status, refused.json["error"]["code"]) == (400, "invalid_payload")
    assert "n" in refused.json["error"]["details"]["path"]
    assert running.ask("POST", "/n", {"n": 1}).json == 2


def test_h06_a_worker_that_dies_is_a_503(running: Web) -> None:
    died = running.ask("GET", "/die")
    assert (died.status, died.headers["retry-after"]) == (503, "1")
    assert died.json["error"]["details"]["call_id"]
    assert running.ask("GET", "/echo/1").status == 200


def test_a_route_is_there_with_its_registration_and_goes_with_it(running: Web) -> None:
    assert running.ask("GET", "/more").status == 404
    running.project.call("web::add_route", {"path": "/more"})
    assert _status_becomes(running, "/more", 200)
    running.project.call("web::drop_route", {})
    assert _status_becomes(running, "/more", 404)


def _status_becomes(running: Web, path: str, status: int) -> bool:
    """Whether the status is there before a second of requests is over; each waits for an answer."""
    return any(running.ask("GET", path).status == status for _ in range(100))


def test_a_conflict_is_told_to_its_binder_with_both_ids(running: Web) -> None:
    running.project.call("web::add_conflict", {})
    [line] = running.project.wait("conflicts with already-registered route")
    assert "GET /echo/:other of web::echo" in line
    assert "GET /echo/:id of web::echo" in line
    assert running.ask("GET", "/echo/1").json["path_params"] == {"id": "1"}


HEAD = b"POST /upload HTTP/1.1\r\nHost: localhost:%d\r\nContent-Type: text/plain\r\n"


@pytest.mark.parametrize(
    "rest",
    [
        b"Content-Length: 3\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\nContent-Length: 3\r\n\r\nabc",
        b"Content-Length: 3\r\nContent-Length: 4\r\n\r\nabcd",
        b"Content-Length: 3\r\nContent-Length: 3\r\n\r\nabc",
        b"Content-Length: 3, 3\r\n\r\nabc",
        b"Content-Length: +3\r\n\r\nabc",
        b"Content-Length: 0x3\r\n\r\nabc",
        b"Content-Length: -1\r\n\r\n",
        b"Content-Length: 99999999999999999999999\r\n\r\n",
        b"Content-Length : 3\r\n\r\nabc",
        b" Content-Length: 3\r\n\r\nabc",
        b"X: a\r\n b\r\nContent-Length: 3\r\n\r\nabc",
        b"X: a\nContent-Length: 3\r\n\r\nabc",
        b"Content-Length: 3\n\nabc",
        b"Transfer-Encoding: chunked, identity\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: xchunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\nzz\r\nabc\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n3\nabc\r\n0\r\n\r\n",
        b"Transfer-Encoding: chunked\r\n\r\n3\r\nabcd\r\n0\r\n\r\n",
        b"X\x00Y: a\r\n\r\n",
        b"X: a\x00b\r\n\r\n",
        b"X: a\rb\r\n\r\n",
        b": a\r\n\r\n",
        b"X Y: a\r\n\r\n",
        b"Host: other\r\n\r\n",
    ],
)
def test_h03_what_two_servers_could_read_differently_is_a_400_and_the_end(running: Web, rest: bytes) -> None:
    follower = b"GET /echo/smuggled HTTP/1.1\r\nHost: localhost:%d\r\n\r\n" % running.port
    answer = running.send_raw(HEAD % running.port + rest + follower)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert answer.count(b"HTTP/1.1") == 1
    assert b"smuggled" not in answer


@pytest.mark.parametrize(
    "line",
    [
        b"GET echo HTTP/1.1",
        b"CONNECT localhost:1 HTTP/1.1",
        b"GET /echo/1 HTTP/9.9",
        b"GET /echo/1 x HTTP/1.1",
        b"FOO /echo/1 HTTP/1.1",
        b"get /echo/1 HTTP/1.1",
        b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03",
    ],
)
def test_a_request_line_that_is_none_is_a_400(running: Web, line: bytes) -> None:
    answer = running.send_raw(line + b"\r\nHost: localhost:%d\r\n\r\n" % running.port)
    assert answer.startswith(b"HTTP/1.1 400 ")
    assert b"connection: close" in answer


def test_a_target_in_absolute_form_names_the_host(running: Web) -> None:
    line = b"GET http://localhost:%d/echo/a?q=1 HTTP/1.1\r\nHost: ignored\r\nConnection: close\r\n\r\n" % running.port
    answer = running.send_raw(line)
    assert answer.startswith(b"HTTP/1.1 200 ")
    assert b'"query_params":{"q":"1"}' in answer
    assert b'"host":"localhost:%d"' % running.port in answer
    foreign = b"GET http://evil.test/echo/a HTTP/1.1\r\nHost: localhost:%d\r\nConnection: close\r\n\r\n"
    assert running.send_raw(foreign % running.port).startswith(b"HTTP/1.1 421 ")


def test_another_major_version_is_a_505(running: Web) -> None:
    answer = running.send_raw(b"GET /echo/1 HTTP/2.0\r\nHost: localhost:%d\r\n\r\n" % running.port)
    assert answer.startswith(b"HTTP/1.1 505 ")


@pytest.mark.parametrize(("over", "status"), [(-1, b"200"), (0, b"200"), (1, b"414")])
def test_h04_the_target_has_a_limit(running: Web, over: int, status: bytes) -> None:
    target = b"/echo/" + b"x" * (limits.MAX_TARGET - 6 + over)
    head = b"GET " + target + b" HTTP/1.1\r\nHost: localhost:%d\r\nConnection: close\r\n\r\n" % running.port
    assert running.send_raw(head).startswith(b"HTTP/1.1 " + status)


@pytest.mark.parametrize(("count", "status"), [(99, b"200"), (100, b"200"), (101, b"431")])
def test_h04_the_number_of_headers_has_a_limit(running: Web, count: int, status: bytes) -> None:
    more = b"".join(b"x-%d: a\r\n" % number for number in range(count - 2))
    head = b"GET /echo/1 HTTP/1.1\r\nHost: localhost:%d\r\nConnection: close\r\n" % running.port
    assert running.send_raw(head + more + b"\r\n").startswith(b"HTTP/1.1 " + status)


@pytest.mark.parametrize(("over", "status"), [(-1, b"200"), (0, b"200"), (1, b"431")])
def test_h04_the_size_of_the_headers_has_a_limit(running: Web, over: int, status: bytes) -> None:
    known = {b"Host": b"localhost:%d" % running.port, b"Connection": b"close"}
    rest = limits.MAX_HEADERS - sum(len(name) + len(value) for name, value in known.items()) - len(b"x")
    known[b"x"] = b"a" * (rest + over)
    lines = b"".join(b"%s: %s\r\n" % pair for pair in known.items())
    assert running.send_raw(b"GET /echo/1 HTTP/1.1\r\n" + lines + b"\r\n").startswith(b"HTTP/1.1 " + status)


def test_h04_a_header_that_never_ends_is_cut_off(running: Web) -> None:
    head = b"GET /echo/1 HTTP/1.1\r\nx: " + b"a" * (limits.MAX_TARGET + limits.MAX_HEADERS + 1)
    assert running.send_raw(head).startswith(b"HTTP/1.1 431 ")


def test_h02_a_body_over_the_limit_is_refused_without_reading_it(running: Web) -> None:
    head = HEAD % running.port + b"Content-Length: %d\r\n\r\n" % ((10 << 20) + 1)
    assert running.send_raw(head).startswith(b"HTTP/1.1 413 ")


def test_h02_chunks_without_end_are_cut_off_at_the_limit(running: Web) -> None:
    chunk = b"10000\r\n" + b"x" * 65536 + b"\r\n"
    head = HEAD % running.port + b"Transfer-Encoding: chunked\r\n\r\n"
    with socket.create_connection(("127.0.0.1", running.port), BOUND) as connection:
        connection.sendall(head + chunk * 161)
        assert read_all(connection).startswith(b"HTTP/1.1 413 ")


def test_a_client_that_leaves_early_leaves_nothing_behind(running: Web) -> None:
    head = HEAD % running.port + b"Content-Length: 10\r\n\r\nabc"
    assert running.send_raw(head, then_end=True) == b""
    running.project.wait("POST /upload 499 web::upload")


@pytest.mark.parametrize(("path", "status"), [("/wait", "200"), ("/wait/cancelled", "499")])
def test_h08_a_function_is_cancelled_with_its_client_only_if_it_asked(running: Web, path: str, status: str) -> None:
    outcome = "finished" if status == "200" else "cancelled"
    with socket.create_connection(("127.0.0.1", running.port), BOUND) as connection:
        connection.sendall(b"GET %s HTTP/1.1\r\nHost: localhost:%d\r\n\r\n" % (path.encode(), running.port))
        assert running.project.wait(f"waiting {path}")
    assert running.project.wait(f"{outcome} {path}")
    assert running.project.wait(f"GET {path} {status} ")


def test_requests_in_one_packet_are_answered_in_order(running: Web) -> None:
    one = b"GET /echo/%d HTTP/1.1\r\nHost: localhost:" + b"%d\r\n" % running.port
    data = b"".join(one % number + b"\r\n" for number in range(3)) + one % 3 + b"Connection: close\r\n\r\n"
    answer = running.send_raw(data)
    assert [answer.find(b'"id":"%d"' % number) > 0 for number in range(4)] == [True] * 4
    assert answer.count(b"HTTP/1.1 200") == 4


def test_what_cannot_be_read_is_refused_after_the_answer_before_it(running: Web) -> None:
    answer = running.send_raw(b"GET /echo/1 HTTP/1.1\r\nHost: localhost:%d\r\n\r\nnonsense\r\n\r\n" % running.port)
    first, second = answer.find(b"HTTP/1.1 200"), answer.find(b"HTTP/1.1 400")
    assert 0 == first < second


def test_an_upgrade_that_nobody_asked_us_for_is_an_ordinary_request(running: Web) -> None:
    head = b"GET /echo/1 HTTP/1.1\r\nHost: localhost:%d\r\nConnection: upgrade\r\nUpgrade: h2c\r\n\r\n" % running.port
    answer = running.send_raw(head + b"GET /echo/smuggled HTTP/1.1\r\n\r\n")
    assert answer.count(b"HTTP/1.1 200") == 1
    assert b"smuggled" not in answer


def test_the_document_is_served_and_printed(running: Web) -> None:
    document = running.ask("GET", "/openapi.json").json
    number = document["paths"]["/n"]["post"]["requestBody"]["content"]["application/json"]["schema"]
    assert number["properties"] == {"n": {"type": "number"}}
    command = [sys.executable, "-m", "cli.main", "openapi"]
    environment = os.environ | {"PYTHONPATH": str(ROOT)}
    printed = subprocess.run(
        command, cwd=running.project.folder, env=environment, stdout=subprocess.PIPE, check=True, timeout=BOUND
    )
    assert json.loads(printed.stdout)["paths"] == document["paths"]
    assert b"web::number" in running.ask("GET", "/docs").body


def test_a_new_generation_takes_the_socket_and_no_request_is_refused(running: Web) -> None:
    with running.project.connect() as connection:
        for generation in (2, 3, 4):
            connection.call("engine::workers::restart", {"name": "http"})
            for number in range(30):
                assert running.ask("GET", f"/echo/{number}").status == 200
            running.project.wait("~ ready again", count=generation - 1)
    assert all(line.endswith(f":{running.port}") for line in running.project.wait("http://", count=4))
