"""The same requests from every kind of client: a raw socket, one of HTTP/1.0, curl, and a page in Chromium (slow)."""

from __future__ import annotations

import json
import subprocess
from base64 import b64encode
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from tests.support.browser import Page, open_page
from tests.support.live_project import BOUND
from tests.support.web_project import Web, web

WORKER = """
import asyncio
from iii.http import http

def echo(request):
    return {"body": [request["body"]]}

def item(request):
    return {"body": request["path_params"]["id"]}

def cookies(request):
    return {"headers": {"set-cookie": ["a=1", "b=2"], "x-number": 5, "Connection": "keep-alive"}, "body": 1}

@http
async def parts(request, response):
    await response.headers({"content-type": request.query_params.get("kind", "text/plain")})
    await response.write("one\\n")
    for _ in range(3 if "long" in request.query_params else 0):
        await asyncio.sleep(0.5)
        await response.write(".")
    await asyncio.sleep(0.2)  # what was written is on its way: a failure before it would be the whole answer
    if "fail" in request.query_params:
        raise ValueError("the database is gone")
    await response.write("two\\n")

for name, function, method, path, config in (
    ("echo", echo, "POST", "/echo", {}), ("item", item, "GET", "/item/:id", {}),
    ("cookies", cookies, "GET", "/cookies", {}), ("parts", parts, "GET", "/parts", {"stream": True}),
):
    worker.register_function("web::" + name, function)
    worker.register_trigger({"type": "http", "function_id": "web::" + name,
                             "config": {"api_path": path, "http_method": method, **config}})
"""
CONFIG = 'static = "public"\ndefault_timeout = "1s"'
# Status and body of the answer; None for one that is not whole.
Answer = tuple[int, bytes | None]
Ask = Callable[..., Answer]


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Web]:
    folder = tmp_path_factory.mktemp("clients")
    (folder / "public" / ".well-known").mkdir(parents=True)
    (folder / "public" / ".well-known" / "security.txt").write_text("Contact: us")
    (folder / "public" / "index.html").write_text("<!doctype html><title>Ours</title>")
    with web(folder, WORKER, CONFIG) as made:
        made.wait_for("/echo", "/item/{id}", "/cookies", "/parts")
        yield made


@pytest.fixture(scope="module")
def page(running: Web, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Page]:
    with open_page(f"http://127.0.0.1:{running.port}/", tmp_path_factory.mktemp("browser")) as made:
        made.wait("document.readyState == 'complete' && document.title", "Ours")
        yield made


def by_socket(running: Web, method: str, path: str, kind: str | None, body: bytes, version: str = "1.1") -> Answer:
    lines = [f"{method} {path} HTTP/{version}", f"Host: 127.0.0.1:{running.port}"]
    lines += ["Connection: close"] if version == "1.1" else []
    lines += [f"Content-Length: {len(body)}"] if body or method == "POST" else []
    lines += [f"Content-Type: {kind}"] if kind is not None else []
    try:
        answer = running.send_raw("\r\n".join([*lines, "", ""]).encode() + body)
    except ConnectionResetError:
        return 200, None
    head, _, content = answer.partition(b"\r\n\r\n")
    names = head.lower()
    if b"\r\ntransfer-encoding: chunked" in names:
        assert version == "1.1"
        is_whole = content.endswith(b"0\r\n\r\n")
        content = b"".join(content.split(b"\r\n")[1::2])
        return int(head.split()[1]), content if is_whole else None
    return int(head.split()[1]), content


def by_old_client(running: Web, *request: Any) -> Answer:
    return by_socket(running, *request, version="1.0")


def by_curl(running: Web, method: str, path: str, kind: str | None, body: bytes) -> Answer:
    # `Content-Type:` without a value takes away the one that curl would send.
    sent = ["--data-binary", "@-", "-H", f"Content-Type: {kind}" if kind is not None else "Content-Type:"]
    command = ["curl", "-s", "-g", "--path-as-is", "-w", "%{stderr}%{http_code}", "-X", method]
    command += [*(sent if method == "POST" else []), f"http://127.0.0.1:{running.port}{path}"]
    done = subprocess.run(command, input=body, capture_output=True, timeout=BOUND, check=False)
    return int(done.stderr), None if done.returncode else done.stdout


FETCH = """
(async () => {
  const {method, path, kind, body} = %s
  const sent = method === 'POST' ? Uint8Array.from(atob(body), (letter) => letter.charCodeAt(0)) : undefined
  const answer = await fetch(path, {method, body: sent, headers: kind === null ? {} : {'content-type': kind}})
  const text = await answer.text().catch(() => null)
  return [answer.status, text]
})()
"""


def by_page(page: Page, method: str, path: str, kind: str | None, body: bytes) -> Answer:
    request = {"method": method, "path": path, "kind": kind, "body": b64encode(body).decode()}
    status, text = page.value(FETCH % json.dumps(request))
    return status, None if text is None else text.encode()


@pytest.fixture(params=["socket", "old client", "curl", pytest.param("page", marks=pytest.mark.slow)])
def ask(running: Web, request: pytest.FixtureRequest) -> Ask:
    """Send `(method, path, kind, body)` with one kind of client; return status and body."""
    if request.param == "page":
        made = request.getfixturevalue("page")
        return lambda *asked: by_page(made, *asked)
    client = {"socket": by_socket, "old client": by_old_client, "curl": by_curl}[request.param]
    return lambda *asked: client(running, *asked)


def base64_of(kind: str, body: bytes) -> dict[str, Any]:
    return {"content_type": kind, "size": len(body), "content_base64": b64encode(body).decode()}


FORM = b"--x\r\nContent-Disposition: form-data; name=%s\r\n\r\n%s\r\n--x--\r\n"
FILE = b'"f"; filename="a.bin"\r\nContent-Type: application/x-own'
BODIES: list[tuple[str | None, bytes, Any]] = [
    ("application/json", b'{"a": [1, null]}', {"a": [1, None]}),
    ("application/json", b"null", None),  # the one body that is null
    ("application/json; charset=utf-8", b'"\xc3\xa9"', "é"),
    ("application/vnd.api+json", b"[]", []),
    ("application/json", b"{", 400),
    ("application/json", b'"\xe9"', 400),
    ("text/plain", b"h\xc3\xa9", "hé"),
    ("text/plain; charset=iso-8859-1", b"h\xe9", "hé"),
    ("text/plain; charset=utf-16", "hé".encode("utf-16"), "hé"),
    ("text/plain", b"h\xe9", 400),
    ("text/plain; charset=nonsense", b"h", 415),
    ("text/html", b"<p>", "<p>"),
    ("text/csv", b"a,b\n", "a,b\n"),
    ("application/xml", b"<a/>", "<a/>"),
    ("image/svg+xml", b"<svg/>", "<svg/>"),
    ("application/x-ndjson", b"1\n2\n", "1\n2\n"),
    ("application/yaml", b"a: 1", "a: 1"),
    ("application/x-www-form-urlencoded", b"a=1&b=%C3%A9&a=", {"a": ["1", ""], "b": "é"}),
    ("application/x-www-form-urlencoded; charset=iso-8859-1", b"a=%E9", {"a": "é"}),
    ("application/x-www-form-urlencoded", b"a=%E9", 400),
    ("multipart/form-data; boundary=x", FORM % (b'"a"', b"h\xc3\xa9"), {"a": "hé"}),
    ("multipart/form-data; boundary=x; charset=iso-8859-1", FORM % (b'"a"', b"h\xe9"), {"a": "hé"}),
    ("multipart/form-data; boundary=x", FORM % (b'"a"', b"h\xe9"), 400),
    (
        "multipart/form-data; boundary=x",
        FORM % (FILE, b"\xff"),
        {"f": {"filename": "a.bin", **base64_of("application/x-own", b"\xff")}},
    ),
    ("multipart/form-data", b"x", 400),
    ("application/octet-stream", b"\x00\xff", base64_of("application/octet-stream", b"\x00\xff")),
    ("image/png", b"\x89PNG", base64_of("image/png", b"\x89PNG")),
    ("application/x-unknown", b"hi", base64_of("application/x-unknown", b"hi")),
    ("nonsense", b"hi", 415),
    (None, b"hi", 415),
    *((kind, b"", None) for kind in ("application/json", "text/plain", "application/xml", "application/octet-stream")),
    *((kind, b"", None) for kind in ("application/x-www-form-urlencoded", "multipart/form-data; boundary=x", None)),
]


@pytest.mark.parametrize(("kind", "body", "value"), BODIES)
def test_a_function_gets_what_was_sent_or_the_client_is_told(
    ask: Ask, kind: str | None, body: bytes, value: Any
) -> None:
    status, content = ask("POST", "/echo", kind, body)
    assert content is not None
    if type(value) is int:
        assert (status, bool(json.loads(content)["error"]["message"])) == (value, True)
    else:
        assert (status, json.loads(content)) == (200, [value])


@pytest.mark.parametrize(
    ("path", "body"),
    [
        ("/item/a|b", b'"a|b"'),
        ("/item/a^b", b'"a^b"'),
        ("/item/%E2%82%AC", '"€"'.encode()),
        ("/.well-known/security.txt", b"Contact: us"),
        ("/parts", b"one\ntwo\n"),
        ("/parts?long", b"one\n...two\n"),  # longer than a request may take: only silence ends a stream
        ("/parts?fail", None),
        ("/parts?fail&kind=text/event-stream", None),
    ],
)
def test_every_client_gets_the_whole_answer_or_sees_that_it_is_not(ask: Ask, path: str, body: bytes | None) -> None:
    assert ask("GET", path, None, b"") == (200, body)


@pytest.mark.slow
def test_a_page_has_every_cookie_of_an_answer(page: Page) -> None:
    assert page.value("fetch('/cookies').then((it) => it.headers.get('x-number'))") == "5"
    assert sorted(page.value("document.cookie").split("; ")) == ["a=1", "b=2"]


def test_a_client_that_takes_the_server_for_a_proxy_is_served(running: Web) -> None:
    url = f"http://127.0.0.1:{running.port}"
    command = ["curl", "-s", "--noproxy", "", "-x", url, "-H", "Content-Encoding: Identity", f"{url}/item/1"]
    assert subprocess.run(command, capture_output=True, timeout=BOUND, check=True).stdout == b'"1"'
