"""Fault rows of the http worker that need a real engine: memory, raw bytes, statuses, ports that are taken, names."""

from __future__ import annotations

import http.client
import os
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from threading import Thread

import psutil
import pytest

from stdlib_workers.http.listening import HEAD_SECONDS
from stdlib_workers.http.requests import BODY_SECONDS
from tests.support.live_project import BOUND, Project
from tests.support.web_project import TOML, Web, read_all, web

WORKER = """
RESULTS = {
    "99": {"status_code": 99},
    "crlf": {"headers": {"x-a": "b\\r\\nset-cookie: c=d"}},
    "object": {"body": object()},
    "204": {"status_code": 204, "body": "not empty"},
}

def echo(request):
    return {"body": request}

def wrong(request):
    return RESULTS[request["path_params"]["which"]]

async def wait(request):
    import asyncio
    await asyncio.sleep(60)

for name, function, config in (
    ("echo", echo, {"api_path": "/echo/:id"}),
    ("post", echo, {"api_path": "/post", "http_method": "POST"}),
    ("wrong", wrong, {"api_path": "/wrong/:which"}),
    ("wait", wait, {"api_path": "/wait", "cancel": True}),
):
    worker.register_function("web::" + name, function)
    worker.register_trigger({"type": "http", "function_id": "web::" + name, "config": config})
"""
MIB = 1 << 20


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    with web(tmp_path_factory.mktemp("rows"), WORKER) as made:
        made.wait_for("/echo/{id}", "/post", "/wrong/{which}", "/wait")
        yield made


def head_of(running: Web, line: str, *lines: str) -> bytes:
    return "\r\n".join([f"{line} HTTP/1.1", f"Host: localhost:{running.port}", *lines, "", ""]).encode()


def test_h02_large_and_lying_bodies_are_refused_and_cost_no_memory(running: Web) -> None:
    process = psutil.Process(running.project.pid_of("http"))
    running.ask("POST", "/post", b"x" * MIB, {"content-type": "text/plain"})
    before = process.memory_info().rss
    kind = "Content-Type: application/octet-stream"
    over = running.send_raw(head_of(running, "POST /post", kind, f"Content-Length: {10 * MIB + 1}"))
    assert over.startswith(b"HTTP/1.1 413 ")
    # More than was promised is read as the next request, which it is not.
    lied = running.send_raw(
        head_of(running, "POST /post", "Content-Type: text/plain", "Content-Length: 2") + b"ab\x00\x01"
    )
    assert b"HTTP/1.1 400 " in lied
    chunk = b"40000\r\n" + b"x" * (MIB // 4) + b"\r\n"
    for _ in range(3):
        with socket.create_connection(("127.0.0.1", running.port), BOUND) as client:
            client.sendall(head_of(running, "POST /post", kind, "Transfer-Encoding: chunked") + chunk * 41)
            assert read_all(client).startswith(b"HTTP/1.1 413 ")
    assert process.memory_info().rss - before < 48 * MIB


def test_h05_what_a_body_is_must_be_said_and_true(running: Web) -> None:
    wrong = running.ask("POST", "/post", b'{"a": }', {"content-type": "application/json"})
    assert (wrong.status, wrong.json["error"]["details"]) == (400, {"offset": 6})
    assert running.ask("POST", "/post", b"{}", {"content-type": "nonsense"}).status == 415
    assert running.ask("POST", "/post", b"{}").status == 415
    assert running.ask("POST", "/post", b"", {"content-type": "application/json"}).json["body"] is None


@pytest.mark.parametrize("which", ["99", "crlf", "object", "204"])
def test_h07_a_result_that_is_no_response_injects_nothing(running: Web, which: str) -> None:
    answer = running.send_raw(head_of(running, f"GET /wrong/{which}", "Connection: close"))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 500 ")
    assert b"set-cookie" not in answer.lower()
    assert b"HTTP/1.1" not in body
    assert b"Traceback" not in answer
    assert running.project.wait("web::wrong")


def test_h08_the_engine_has_nothing_in_flight_for_clients_that_left(running: Web) -> None:
    clients = [socket.create_connection(("127.0.0.1", running.port), BOUND) for _ in range(10)]
    for client in clients:
        client.sendall(head_of(running, "GET /wait"))
    assert calls_in_flight(running, 10)
    for client in clients:
        client.close()
    assert calls_in_flight(running, 0)


def calls_in_flight(running: Web, wanted: int) -> bool:
    """Whether the handler's worker has that many calls, within the bound."""
    deadline = time.monotonic() + BOUND
    with running.project.connect() as connection:
        while time.monotonic() < deadline:
            workers = connection.call("engine::workers::list")["workers"]
            if next(row["active_invocations"] for row in workers if row["name"] == "web") == wanted:
                return True
    return False


@pytest.mark.parametrize(
    ("line", "status", "id"),
    [
        ("GET /echo/a", 200, "a"),
        ("HEAD /echo/a", 200, None),
        ("OPTIONS /echo/a", 204, None),
        ("DELETE /echo/a", 405, None),
        ("TRACE /echo/a", 405, None),
        ("PROPFIND /echo/a", 405, None),
        ("BREW /echo/a", 400, None),
        ("GET /echo/a%2fb", 200, "a/b"),
        ("GET /echo/a%2Fb", 200, "a/b"),
        ("GET /echo/%E2%82%AC", 200, "€"),
        ("GET /echo/a+b", 200, "a+b"),
        ("GET /echo/a;b=c", 200, "a;b=c"),
        ("GET /echo/%00", 400, None),
        ("GET /echo/a%0d%0ab", 400, None),
        ("GET /echo/%c0%af", 400, None),
        ("GET /echo/%e0%80%af", 400, None),
        ("GET /echo/%zz", 400, None),
        ("GET /echo/a\\b", 400, None),
        ("GET /echo/../echo/a", 400, None),
        ("GET /echo/%2e%2e", 400, None),
        ("GET /echo/..%2fa", 400, None),
        ("GET /./echo/a", 400, None),
        ("GET //echo/a", 404, None),
        ("GET /echo//a", 404, None),
        ("GET /echo/a/", 404, None),
        ("GET /echo/", 404, None),
        ("GET /ECHO/a", 404, None),
    ],
)
def test_h09_a_path_is_the_same_for_the_table_and_the_handler(
    running: Web, line: str, status: int, id: str | None
) -> None:
    answer = running.send_raw(head_of(running, line, "Connection: close"))
    head, _, body = answer.partition(b"\r\n\r\n")
    assert head.startswith(b"HTTP/1.1 %d " % status), answer
    if status == 405:
        assert b"\r\nallow: GET, HEAD, OPTIONS" in head
    if id is None:
        assert b"path_params" not in body
    else:
        assert f'"path_params":{{"id":"{id}"}}'.encode() in body


def test_h14_a_named_port_that_is_taken_ends_the_http_worker_with_a_clear_line(tmp_path: Path) -> None:
    with socket.create_server(("127.0.0.1", 0)) as holder:
        port = holder.getsockname()[1]
        toml = '[engine]\nlisten = "off"\n' + TOML.format(config="").replace("port = 0", f"port = {port}")
        made = Project(tmp_path, toml, {"web": WORKER})
        made.start()
        try:
            line, *_ = made.wait(f"port {port} is taken by ")
            assert f"(pid {os.getpid()}); stop it, or name another port" in line
            # Nothing would change by trying again, and the rest goes on.
            made.wait("run `iii worker restart http` to try again")
            rows = {row["name"]: row for row in made.call("engine::workers::list")["workers"]}
            assert rows["http"]["state"] == "failed"
            assert made.call("web::echo", {"a": 1}) == {"body": {"a": 1}}
            assert not made.said("Traceback")
        finally:
            made.stop()


def test_h15_localhost_answers_whichever_address_a_client_tries_first(tmp_path: Path) -> None:
    with web(tmp_path, WORKER, 'host = "localhost"') as running:
        # `localhost` may be ::1 first: a client goes on to the next address.
        connection = http.client.HTTPConnection("localhost", running.port, timeout=BOUND)
        connection.request("GET", "/echo/1")
        assert connection.getresponse().status == 200
        connection.close()
        # A name is what its addresses are, also for the generation that takes the socket over.
        running.project.call("engine::workers::restart", {"name": "http"})
        running.project.wait("~ ready again")
        assert running.ask("GET", "/echo/1").status == 200
        assert len({line.rpartition(":")[2] for line in running.project.wait("http://", count=2)}) == 1


def test_h15_an_address_that_this_machine_has_not_is_named(tmp_path: Path) -> None:
    # From the range for documents: nobody has it, with IPv6 or without.
    toml = '[engine]\nlisten = "off"\n' + TOML.format(config='host = "2001:db8::1"').replace("port = 0", "port = 3111")
    made = Project(tmp_path, toml, {"web": WORKER})
    made.start()
    try:
        line, *_ = made.wait("cannot listen on")
        assert "[2001:db8::1]:3111: " in line
        assert not made.said("Traceback")
    finally:
        made.stop()


@pytest.mark.slow
@pytest.mark.timeout(180)
def test_h01_200_slow_clients_are_told_on_time_and_slow_nobody_down(running: Web) -> None:
    begin, told = time.monotonic(), {}
    starts = (head_of(running, "GET /echo/a")[:-2], head_of(running, "POST /post", "Content-Length: 9") + b"a")

    def stall(number: int) -> None:
        with socket.create_connection(("127.0.0.1", running.port), 2 * BODY_SECONDS) as client:
            client.sendall(starts[number % 2])
            told[number] = (read_all(client)[:12], time.monotonic() - begin)

    stalled = [Thread(target=stall, args=(number,)) for number in range(200)]
    for thread in stalled:
        thread.start()
    times = []
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=BOUND)
    while any(thread.is_alive() for thread in stalled):
        asked = time.monotonic()
        connection.request("GET", "/echo/a")
        assert connection.getresponse().read()
        times.append(time.monotonic() - asked)
        stalled[0].join(0.01) if stalled[0].is_alive() else stalled[1].join(0.01)
    connection.close()
    assert {answer for answer, _ in told.values()} == {b"HTTP/1.1 408"}
    for number, (_, seconds) in told.items():
        limit = BODY_SECONDS if number % 2 else HEAD_SECONDS
        assert limit <= seconds < limit + 5
    p99 = sorted(times)[len(times) * 99 // 100]
    print(f"{len(times)} requests beside 200 slow clients: p99 {p99 * 1000:.1f} ms")
    assert p99 < 0.1
