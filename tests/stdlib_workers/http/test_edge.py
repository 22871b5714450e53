"""What clients of all ages send and get, over raw sockets: nothing is lost without a word."""

from __future__ import annotations

import http.client
import json
import socket
import subprocess
import time
from collections.abc import Iterator
from threading import Thread

import pytest

from tests.support.live_project import BOUND
from tests.support.web_project import Web, read_all, web

WORKER = """
import asyncio
from iii.http import http

COOKIES = ["a=1", "b=2"]

def echo(request):
    return {"body": request["body"]}

def item(request):
    return {"body": request["path_params"]["id"]}

def answer(request):
    return {
        "status_code": 429,
        "headers": {"set-cookie": COOKIES, "retry-after": 5, "Connection": "keep-alive", "transfer-encoding": "x"},
        "body": 1,
    }

@http
async def parts(request, response):
    await response.headers({"content-type": request.query_params.get("kind", "text/plain"), "set-cookie": COOKIES})
    await response.write("one\\n")
    how = request.query_params.get("how")
    if how == "die":
        os._exit(9)
    if how == "raise":
        await asyncio.sleep(0.2)  # what was written is on its way: a failure before it would be the whole answer
        raise ValueError("the database is gone")
    if how == "silence":
        await asyncio.sleep(60)
    for _ in range(4 if how == "long" else 0):
        await asyncio.sleep(0.5)
        await response.write(".")
    await response.write("two\\n")

def strict(request):
    return {"body": 1}

STRICT = {"type": "object", "properties": {"body": {"type": "string"}, "headers": {
    "type": "object", "required": ["x-key"], "properties": {"authorization": {"pattern": "^Basic "}}}},
    "required": ["headers"], "not": {"properties": {"method": {"const": "DELETE"}}}}

for name, function, method, path, config in (
    ("echo", echo, "POST", "/x", {}), ("item", item, "GET", "/item/:id", {}), ("answer", answer, "GET", "/answer", {}),
    ("parts", parts, "GET", "/parts", {"stream": True}), ("put", echo, "PUT", "/x", {}),
):
    worker.register_function("app::" + name, function)
    worker.register_trigger({"type": "http", "function_id": "app::" + name,
                             "config": {"api_path": path, "http_method": method, **config}})
worker.register_function("app::strict", strict, request_format=STRICT)
for method in ("POST", "DELETE"):
    worker.register_trigger({"type": "http", "function_id": "app::strict",
                             "config": {"api_path": "/strict", "http_method": method}})
"""
CONFIG = """
default_timeout = "1s"
static = "public"
cors = { allowed_origins = ["http://app.example"] }
"""
ORIGIN = "http://app.example"


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    folder = tmp_path_factory.mktemp("edge")
    (folder / "public" / ".well-known").mkdir(parents=True)
    (folder / "public" / ".well-known" / "security.txt").write_text("Contact: us")
    (folder / "public" / "app.css").write_text("p {}")
    with web(folder, WORKER, CONFIG) as made:
        made.wait_for("/x", "/item/{id}", "/answer", "/parts", "/strict")
        yield made


def ask(running: Web, line: str, *lines: str, body: bytes = b"") -> tuple[str, dict[str, list[str]], bytes]:
    """Send one request and return status line, headers and what follows until the end."""
    close = (
        []
        if line.endswith("1.0") or any(line.lower().startswith("connection") for line in lines)
        else ["Connection: close"]
    )
    head = "\r\n".join([line, f"Host: 127.0.0.1:{running.port}", *close, *lines, "", ""])
    answer = running.send_raw(head.encode() + body)
    top, _, rest = answer.partition(b"\r\n\r\n")
    status, *fields = top.decode("latin-1").split("\r\n")
    headers: dict[str, list[str]] = {}
    for field in fields:
        name, _, value = field.partition(": ")
        headers.setdefault(name.lower(), []).append(value)
    return status, headers, rest


H2C = ("Connection: Upgrade, HTTP2-Settings", "Upgrade: h2c", "HTTP2-Settings: AAMAAABkAAQCAAAAAAIAAAAA")
JSON = "Content-Type: application/json"


@pytest.mark.parametrize(
    ("framing", "body"),
    [("Content-Length: 7", b'{"a":1}'), ("Transfer-Encoding: chunked", b'3\r\n{"a\r\n4\r\n":1}\r\n0\r\n\r\n')],
)
def test_an_offer_to_upgrade_is_passed_over_and_the_body_is_served(running: Web, framing: str, body: bytes) -> None:
    head = "\r\n".join(["POST /x HTTP/1.1", f"Host: 127.0.0.1:{running.port}", *H2C, JSON, framing, "", ""]).encode()
    with socket.create_connection(("127.0.0.1", running.port), BOUND) as client:  # head and body are one packet each
        for _ in range(2):  # also on a connection that is used again
            client.sendall(head + body)
            answer = client.recv(65536)
            assert answer.startswith(b"HTTP/1.1 200 ")
            assert answer.endswith(b'{"a":1}')
        client.sendall(head)
        time.sleep(0.05)  # so that the body comes by itself
        client.sendall(body)
        assert client.recv(65536).endswith(b'{"a":1}')


@pytest.mark.parametrize(
    ("kind", "body", "value"),
    [
        ("application/xml", b"<a/>", "<a/>"),
        ("application/x-ndjson", b'{"a":1}\n', '{"a":1}\n'),
        ("text/csv; charset=iso-8859-1", b"\xe9,1", "é,1"),
        ("application/octet-stream", b"\x00\xff", "AP8="),
        ("application/x-unknown", b"hi", "aGk="),
        ("application/x-www-form-urlencoded", b"a=1", {"a": "1"}),
        ("text/plain", b"", None),
    ],
)
def test_a_function_gets_what_was_sent_whatever_it_is(running: Web, kind: str, body: bytes, value: object) -> None:
    status, _, content = ask(
        running, "POST /x HTTP/1.1", f"Content-Type: {kind}", f"Content-Length: {len(body)}", body=body
    )
    assert status == "HTTP/1.1 200 OK"
    got = json.loads(content)
    assert (got["content_base64"] if isinstance(got, dict) and "size" in got else got) == value


@pytest.mark.parametrize("offer", ["h2c", "h2c, websocket", "websocket/13"])
def test_whatever_is_offered_the_body_is_read(running: Web, offer: str) -> None:
    more = ("Connection: close, Upgrade", f"Upgrade: {offer}", "User-Agent: websocket", JSON, "Content-Length: 1")
    assert ask(running, "POST /x HTTP/1.1", *more, body=b"1")[2] == b"1"


def test_what_follows_a_body_is_no_header(running: Web) -> None:
    chunks = b'3\r\n"1"\r\n0\r\nX-Key: forged\r\nAuthorization: forged\r\n\r\n'
    status, _, body = ask(running, "POST /strict HTTP/1.1", JSON, "Transfer-Encoding: chunked", body=chunks)
    assert status == "HTTP/1.1 400 Bad Request"
    assert json.loads(body)["error"]["details"]["path"] == "headers.x-key"


def test_a_refusal_of_a_request_that_has_come_whole_leaves_its_connection(running: Web) -> None:
    head = f"POST /nowhere HTTP/1.1\r\nHost: 127.0.0.1:{running.port}\r\n{JSON}\r\nContent-Length: 3\r\n\r\n"
    with socket.create_connection(("127.0.0.1", running.port), BOUND) as client:
        for _ in range(2):
            client.sendall(head.encode() + b"[1]")
            answer = client.recv(65536)
            assert answer.startswith(b"HTTP/1.1 404 ")
            assert b"connection: close" not in answer


def test_an_identity_coding_is_none_however_it_is_written(running: Web) -> None:
    more = (JSON, "Content-Length: 1", "Content-Encoding: Identity")
    assert ask(running, "POST /x HTTP/1.1", *more, body=b"1")[2] == b"1"


@pytest.mark.parametrize("id", ["a|b", "a%7Cb", "a%7cb", "a^b"])
def test_a_path_is_taken_as_browsers_write_it(running: Web, id: str) -> None:
    status, _, body = ask(running, f"GET /item/{id} HTTP/1.1")
    assert (status, json.loads(body)) == ("HTTP/1.1 200 OK", id.replace("%7C", "|").replace("%7c", "|"))


def test_lists_and_numbers_are_headers_and_those_of_the_connection_are_the_servers(running: Web) -> None:
    status, headers, body = ask(running, "GET /answer HTTP/1.1")
    assert (status, body) == ("HTTP/1.1 429 Too Many Requests", b"1")
    assert (headers["set-cookie"], headers["retry-after"]) == (["a=1", "b=2"], ["5"])
    assert headers["connection"] == ["close"]
    assert "transfer-encoding" not in headers


def test_an_old_client_gets_no_chunks(running: Web) -> None:
    status, headers, body = ask(running, "GET /parts HTTP/1.0")
    assert "transfer-encoding" not in headers
    assert (status.split(" ", 1)[1], body) == ("200 OK", b"one\ntwo\n")
    status, headers, body = ask(running, "POST /x HTTP/1.0", JSON, "Content-Length: 3", body=b"[1]")
    assert (status.split(" ", 1)[1], headers["content-length"], body) == ("200 OK", ["3"], b"[1]")


def test_an_old_client_says_how_long_its_body_is(running: Web) -> None:
    status, _, body = ask(running, "POST /x HTTP/1.0", JSON, body=b"[1]")
    assert (status, json.loads(body)["error"]["code"]) == ("HTTP/1.1 411 Length Required", "LENGTH_REQUIRED")
    assert ask(running, "POST /x HTTP/1.0")[2] == b"null"


def test_a_stream_has_its_cookies_and_its_end(running: Web) -> None:
    _, headers, body = ask(running, "GET /parts HTTP/1.1")
    assert headers["set-cookie"] == ["a=1", "b=2"]
    assert body == b"4\r\none\n\r\n4\r\ntwo\n\r\n0\r\n\r\n"


def test_only_silence_ends_a_stream_that_is_longer_than_a_request_may_take(running: Web) -> None:
    began = time.monotonic()
    assert ask(running, "GET /parts?how=long HTTP/1.1")[2].endswith(b"two\n\r\n0\r\n\r\n")
    assert time.monotonic() - began > 1.5  # the timeout of requests is 1 s


@pytest.mark.parametrize(("how", "why"), [("raise", "database is gone"), ("silence", "sent anything for 1 s")])
def test_a_stream_that_fails_ends_without_its_end_and_is_told(running: Web, how: str, why: str) -> None:
    status, _, body = ask(running, f"GET /parts?how={how} HTTP/1.1")
    assert (status, body) == ("HTTP/1.1 200 OK", b"4\r\none\n\r\n")
    assert running.project.wait(f"broken off: {'TIMEOUT' if how == 'silence' else 'invocation_failed'}")
    # The engine tells of a handler that raises, once; of silence nobody but the http worker can know.
    assert len([line for line in running.project.lines if why in line]) == (1 if how == "silence" else 2)


def test_a_stream_whose_process_dies_ends_without_its_end(running: Web) -> None:
    assert ask(running, "GET /parts?how=die HTTP/1.1")[2] == b"4\r\none\n\r\n"
    running.wait_for("/parts")


def test_an_event_stream_that_fails_says_so_first(running: Web) -> None:
    body = ask(running, "GET /parts?how=raise&kind=text/event-stream HTTP/1.1")[2]
    assert not body.endswith(b"0\r\n\r\n")
    chunks = body.split(b"\r\n")[1::2]
    assert chunks[0] == b"one\n"
    event = chunks[1]
    assert event.startswith(b"event: error\ndata: {")
    assert json.loads(event.split(b"data: ")[1])["error"]["message"] == "the database is gone"


def test_an_old_client_sees_a_failure_as_a_reset(running: Web) -> None:
    with socket.create_connection(("127.0.0.1", running.port), BOUND) as client:
        client.sendall(b"GET /parts?how=raise HTTP/1.0\r\nHost: 127.0.0.1:%d\r\n\r\n" % running.port)
        with pytest.raises(ConnectionResetError):
            read_all(client)


@pytest.mark.parametrize("line", ["OPTIONS /x HTTP/1.1", "OPTIONS /app.css HTTP/1.1"])
def test_a_preflight_is_answered_once_also_for_a_file(running: Web, line: str) -> None:
    asked = (f"Origin: {ORIGIN}", "Access-Control-Request-Method: PUT", "Access-Control-Request-Headers: content-type")
    status, headers, _ = ask(running, line, *asked)
    assert status == "HTTP/1.1 200 OK"
    assert headers["access-control-allow-origin"] == [ORIGIN]
    (methods,) = headers["access-control-allow-methods"]
    assert {"GET", "PUT"} <= set(methods.split(", "))
    assert headers["access-control-allow-headers"] == ["content-type"]
    assert headers["vary"][0].startswith("Origin")


@pytest.mark.parametrize("path", ["/item/1", "/app.css", "/nowhere"])
def test_what_a_cache_keeps_is_of_one_origin(running: Web, path: str) -> None:
    assert ask(running, f"GET {path} HTTP/1.1")[1]["vary"] == ["Origin"]
    assert ask(running, f"GET {path} HTTP/1.1", f"Origin: {ORIGIN}")[1]["access-control-allow-origin"] == [ORIGIN]


def test_well_known_files_are_served(running: Web) -> None:
    assert ask(running, "GET /.well-known/security.txt HTTP/1.1")[2] == b"Contact: us"


@pytest.mark.parametrize("line", ["POST /strict HTTP/1.1", "DELETE /strict HTTP/1.1"])
@pytest.mark.parametrize("more", [(), ("X-Key: 1",)])
def test_a_refusal_repeats_no_credentials(running: Web, line: str, more: tuple[str, ...]) -> None:
    secrets = ("Authorization: Bearer s3cret", "Cookie: session=s3cret")
    status, _, body = ask(running, line, *secrets, *more)
    assert status == "HTTP/1.1 400 Bad Request"
    assert json.loads(body)["error"]["code"] == "invalid_payload"
    assert b"s3cret" not in body


def test_nobody_waits_for_a_body_of_millions_of_values(running: Web) -> None:
    answers: list[tuple[str, object, bytes]] = []
    bomb = b"[" + b"{}," * 3_400_000 + b"{}]"
    more = (JSON, f"Content-Length: {len(bomb)}")
    sending = Thread(target=lambda: answers.append(ask(running, "POST /x HTTP/1.1", *more, body=bomb)))
    connection = http.client.HTTPConnection("127.0.0.1", running.port, timeout=BOUND)
    sending.start()
    while sending.is_alive():
        connection.request("GET", "/item/1")
        assert connection.getresponse().read() == b'"1"'
    connection.close()
    ((status, _, body),) = answers
    assert (status, json.loads(body)["error"]["code"]) == ("HTTP/1.1 400 Bad Request", "invalid_json")


def test_a_large_body_arrives_whole(running: Web) -> None:
    text = "line\n" * 400_000
    body = json.dumps(text).encode()
    got = ask(running, "POST /x HTTP/1.1", JSON, f"Content-Length: {len(body)}", body=body)[2]
    assert json.loads(got) == text


def test_curl_gets_what_it_asks_for(running: Web) -> None:
    url = f"http://127.0.0.1:{running.port}"

    def curl(*arguments: str) -> str:
        return subprocess.run(
            ["curl", "-s", *arguments], check=True, capture_output=True, text=True, timeout=BOUND
        ).stdout

    assert curl("--http2", "-H", JSON, "-d", '{"a":1}', f"{url}/x") == '{"a":1}'
    assert curl("--http1.0", f"{url}/parts") == "one\ntwo\n"
    assert json.loads(curl("-F", "f=@/dev/null;filename=a.bin", f"{url}/x"))["f"]["filename"] == "a.bin"
    assert (
        curl("-H", "Expect: 100-continue", "-H", "Content-Type: text/plain", "-d", "x" * 2000, f"{url}/x")
        == f'"{"x" * 2000}"'
    )
    failed = subprocess.run(["curl", "-s", f"{url}/parts?how=raise"], check=False, capture_output=True, timeout=BOUND)
    assert failed.returncode == 18  # the transfer is not whole
