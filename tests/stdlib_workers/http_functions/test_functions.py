"""Functions behind a URL: what is sent, what an answer means, and all of it between a real engine and a real server."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import hmac
import json
import threading
import time
import uuid
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from iii import InvocationError
from stdlib_workers.egress.client import Response
from stdlib_workers.egress.rules import Rules
from stdlib_workers.http_functions.__main__ import HttpFunctions
from stdlib_workers.http_functions.invocation import (
    CallDetails,
    HttpInvocation,
    invocation_from,
    outcome_of,
    request_for,
    secret_of,
)
from tests.support.live_project import project

URL = "https://api.example/f"

# What a registration may say


def test_a_registration_is_read_with_the_defaults_of_the_contract() -> None:
    assert invocation_from({"url": URL, "headers": None}) == HttpInvocation(URL, "POST", 30_000, (), None)
    full = {"url": URL, "method": "PUT", "timeout_ms": 90_000, "headers": {"x-a": "b"}}
    auth = {"type": "api_key", "header": "x-key", "value_key": "KEY", "more": 1}
    read = invocation_from({**full, "auth": auth})
    assert read == HttpInvocation(
        URL, "PUT", 60_000, (("x-a", "b"),), {"type": "api_key", "header": "x-key", "value_key": "KEY"}
    )


@pytest.mark.parametrize("method", ["GET", "POST", "PUT", "PATCH", "DELETE"])
def test_every_method_sends_the_payload_as_its_body(method: str) -> None:
    invocation = invocation_from({"url": URL, "method": method})
    request = request_for(invocation, DELIVERY, {"n": 1}, "", 5.0)
    assert (request.method, request.url, request.body) == (method, URL, b'{"n":1}')


@pytest.mark.parametrize(
    ("fields", "word"),
    [
        ({"url": 5}, "url"),
        ({"method": "TRACE"}, "method"),
        ({"timeout_ms": 0}, "timeout_ms"),
        ({"timeout_ms": True}, "timeout_ms"),
        ({"timeout_ms": "5"}, "timeout_ms"),
        ({"headers": []}, "headers"),
        ({"headers": {"a b": "c"}}, "header names"),
        ({"headers": {"Host": "c"}}, "header names"),
        ({"headers": {"Transfer-Encoding": "chunked"}}, "header names"),
        ({"headers": {"x": "a\r\nb: c"}}, "header x"),
        ({"headers": {"x": 1}}, "header x"),
        ({"auth": "bearer"}, "auth.type"),
        ({"auth": {"type": "basic"}}, "auth.type"),
        ({"auth": {"type": "hmac"}}, "secret_key"),
        ({"auth": {"type": "api_key", "value_key": "K"}}, "header"),
        ({"auth": {"type": "api_key", "value_key": "K", "header": "content-length"}}, "header names"),
    ],
)
def test_a_wrong_registration_names_the_field(fields: dict[str, Any], word: str) -> None:
    with pytest.raises(InvocationError, match=word) as caught:
        invocation_from({"url": URL, **fields})
    assert caught.value.code == "invalid_invocation"


def test_a_header_that_may_be_a_secret_is_not_shown() -> None:
    with pytest.raises(InvocationError) as caught:
        invocation_from({"url": URL, "headers": {"authorization": "canary\n"}})
    assert "canary" not in str(caught.value)


# Requests

DELIVERY = CallDetails("shop::ship", "id-1", 1_700_000_000, "shop::order", "abc")


def headers_with(auth: dict[str, str] | None, environ: dict[str, str], **fields: Any) -> dict[str, str]:
    invocation = HttpInvocation(URL, auth=auth, **fields)
    request = request_for(invocation, DELIVERY, {"n": "ä"}, secret_of(invocation, environ), 5.0)
    assert request.body == '{"n":"ä"}'.encode()
    return dict(request.headers)


def test_a_request_tells_function_invocation_time_caller_and_trace() -> None:
    assert headers_with(None, {}, headers=(("x-a", "b"),)) == {
        "Content-Type": "application/json",
        "x-iii-Function-Path": "shop::ship",
        "x-iii-Invocation-ID": "id-1",
        "x-iii-Timestamp": "1700000000",
        "x-iii-Caller-Function": "shop::order",
        "x-iii-Trace-ID": "abc",
        "x-a": "b",
    }


def test_headers_of_the_registration_are_added_but_there_is_one_content_type_and_auth_comes_last() -> None:
    given = (("content-type", "application/cloudevents+json"), ("Authorization", "mine"))
    invocation = HttpInvocation(URL, headers=given, auth={"type": "bearer", "token_key": "KEY"})
    names = [name for name, _ in request_for(invocation, CallDetails("f::f", "id", 1), 1, "s3cret", 5.0).headers]
    contract = ["x-iii-Function-Path", "x-iii-Invocation-ID", "x-iii-Timestamp"]
    assert names == [*contract, "content-type", "Authorization", "Authorization"]


def test_the_three_kinds_of_auth() -> None:
    environ = {"KEY": "s3cret"}
    assert headers_with({"type": "bearer", "token_key": "KEY"}, environ)["Authorization"] == "Bearer s3cret"
    api_key = {"type": "api_key", "header": "x-key", "value_key": "KEY"}
    assert headers_with(api_key, environ)["x-key"] == "s3cret"
    signed = b"1700000000:" + base64.b64encode('{"n":"ä"}'.encode())
    expected = hmac.new(b"s3cret", signed, hashlib.sha256).hexdigest()
    signature = headers_with({"type": "hmac", "secret_key": "KEY"}, environ)["x-iii-Signature"]
    assert signature == f"sha256={expected}"


@pytest.mark.parametrize(
    ("auth", "code"),
    [
        ({"type": "hmac", "secret_key": "GONE"}, "secret_not_found"),
        ({"type": "bearer", "token_key": "GONE"}, "token_not_found"),
        ({"type": "api_key", "header": "x", "value_key": "GONE"}, "api_key_not_found"),
    ],
)
@pytest.mark.parametrize("environ", [{}, {"GONE": ""}, {"GONE": "a\nb"}])
def test_a_secret_that_is_not_there_has_a_code_of_its_own(auth: dict[str, str], code: str, environ: Any) -> None:
    with pytest.raises(InvocationError, match="GONE") as caught:
        secret_of(HttpInvocation(URL, auth=auth), environ)
    assert caught.value.code == code


# Answers


@pytest.mark.parametrize(
    ("status", "body", "result"),
    [
        (200, b'{"a":1}', {"a": 1}),
        (201, b"null", None),
        (204, b"", None),
        (302, b"<html>", None),
        (304, b"5", 5),
    ],
)
def test_what_counts_as_a_result(status: int, body: bytes, result: Any) -> None:
    assert outcome_of(Response(status, body)) == result


@pytest.mark.parametrize(
    ("status", "body", "code", "message"),
    [
        (200, b"<html>", "invalid_response", "HTTP 200 with a body that is not JSON"),
        (200, b"\xff", "invalid_response", "HTTP 200 with a body that is not JSON"),
        (200, b"[" * 100_000, "invalid_response", "HTTP 200 with a body that is not JSON"),
        (500, b"[" * 100_000, "http_error", "HTTP 500"),
        (400, b'{"error":{"code":"no_stock","message":"none left"}}', "no_stock", "none left"),
        (400, b'{"error":{"message":"none left"}}', "http_error", "none left"),
        (404, b'{"error":{}}', "http_error", "HTTP 404"),
        (500, b'{"error":"text"}', "http_error", "HTTP 500"),
        (500, b"[]", "http_error", "HTTP 500"),
        (503, b"", "http_error", "HTTP 503"),
    ],
)
def test_what_counts_as_a_failure(status: int, body: bytes, code: str, message: str) -> None:
    with pytest.raises(InvocationError) as caught:
        outcome_of(Response(status, body))
    assert (caught.value.code, caught.value.message) == (code, message)


# With a real server


def call(url: str, data: Any = None, environ: Any = None, rules: Rules | None = None, **fields: Any) -> Any:
    functions = HttpFunctions(rules or Rules(blocks_private=False, requires_https=False), environ or {})
    payload = {"function_id": "shop::ship", "invocation": {"url": url, **fields}, "data": data}
    return asyncio.run(functions.invoke({**payload, "caller_worker_id": "w-1"}))


def test_each_call_has_an_id_and_a_time_of_its_own() -> None:
    with api() as url:
        seen = [call(url, {"n": 1}) for _ in range(2)]
    ids = {uuid.UUID(one["headers"]["x-iii-Invocation-ID"]) for one in seen}
    assert len(ids) == 2
    assert all(abs(int(one["headers"]["x-iii-Timestamp"]) - time.time()) < 60 for one in seen)
    assert seen[0]["payload"] == {"n": 1, "_caller_worker_id": "w-1"}
    assert not {"x-iii-Caller-Function", "x-iii-Trace-ID"} & seen[0]["headers"].keys()


@pytest.mark.parametrize("data", [None, 5, "text", [1]])
def test_a_payload_that_is_no_object_is_sent_as_it_is(data: Any) -> None:
    with api() as url:
        assert call(url, data, method="GET")["payload"] == data


def test_an_answer_that_breaks_off_has_a_code_of_its_own() -> None:
    with api() as url, pytest.raises(InvocationError) as caught:
        call(f"{url}/broken")
    assert caught.value.code == "http_response_failed"


@pytest.mark.parametrize(
    ("url", "rules", "rule"),
    [
        ("https://127.0.0.1/", Rules(), "private"),
        ("http://203.0.113.1/", Rules(), "https"),
        ("https://203.0.113.1/", Rules(allowlist=("*.example",)), "allowlist"),
        ("https://", Rules(), "url"),
    ],
)
def test_where_a_request_may_go_is_asked_at_the_registration_and_at_each_call(
    url: str, rules: Rules, rule: str
) -> None:
    functions = HttpFunctions(rules, {})
    payload = {"function_id": "shop::ship", "invocation": {"url": url}}
    for function in (functions.check, functions.invoke):
        with pytest.raises(InvocationError) as caught:
            asyncio.run(function(payload))
        assert caught.value.code == "url_validation_failed"
        assert caught.value.details == {"reason": "egress_denied", "rule": rule}


def test_a_secret_that_is_not_set_is_refused_before_anything_is_sent() -> None:
    auth = {"type": "hmac", "secret_key": "GONE"}
    functions = HttpFunctions(Rules(), {})
    for function in (functions.check, functions.invoke):
        with pytest.raises(InvocationError) as caught:
            asyncio.run(function({"function_id": "shop::ship", "invocation": {"url": URL, "auth": auth}}))
        assert caught.value.code == "secret_not_found"


# With a real engine too


class Api(BaseHTTPRequestHandler):
    """Answers with what it was sent; `/fail` fails, `/broken` breaks off, `/moved` leads elsewhere.

    `/slow` waits for its client to leave.
    """

    def handle_all(self) -> None:
        body = self.rfile.read(int(self.headers["Content-Length"]))
        if self.path == "/slow":
            self.connection.settimeout(20)
            self.connection.recv(1)
            return
        if self.path == "/broken":
            self.wfile.write(b"HTTP/1.1 200 OK\r\nContent-Length: 9\r\n\r\n{")
            return
        status = {"/fail": 422, "/moved": 307}.get(self.path, 200)
        seen = {"method": self.command, "headers": dict(self.headers), "payload": json.loads(body)}
        answer = json.dumps({"error": {"code": "no_stock", "message": "none left"}} if status == 422 else seen).encode()
        self.send_response(status)
        self.send_header("Location", "/elsewhere")
        self.send_header("Content-Length", str(len(answer)))
        self.end_headers()
        self.wfile.write(answer)

    do_GET = do_POST = do_PUT = do_PATCH = do_DELETE = handle_all

    def log_message(self, *_: Any) -> None:
        pass


@contextmanager
def api() -> Iterator[str]:
    with ThreadingHTTPServer(("127.0.0.1", 0), Api) as server:
        thread = threading.Thread(target=server.serve_forever, args=(0.05,))
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}"
        finally:
            server.shutdown()
            thread.join(20)


TOML = """
[engine]
listen = "off"
[workers.http_functions]
env = { API_TOKEN = "canary-token" }
config.security = { block_private_ips = false, require_https = false }
[workers.shop]
run = "shop.py"
after = ["http_functions"]
"""
GUARDED = TOML.replace("block_private_ips = false, require_https = false", "require_https = false")

SHOP = """
from iii.http import HttpAuthBearer, HttpInvocationConfig

def have(name, path="", **fields):
    return worker.register_function(f"shop::{name}", HttpInvocationConfig("API" + path, **fields),
                                    description="Behind a URL", metadata={"tier": "gold"})

ship = have("ship", auth=HttpAuthBearer("API_TOKEN"), headers={"x-a": "b"})
for name in ("fail", "moved"):
    have(name, "/" + name)
have("slow", "/slow", timeout_ms=200)
have("put", method="PUT")
have("locked", auth=HttpAuthBearer("NOT_SET"))
worker.register_function("shop::down", HttpInvocationConfig("http://127.0.0.1:1/"))
worker.register_function("shop::order", lambda payload: worker.trigger("shop::ship", payload))
worker.register_function("shop::close", lambda _: ship.unregister())
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory) -> Iterator[Any]:
    folder = tmp_path_factory.mktemp("http_functions")
    with api() as url, project(folder, TOML, {"shop": SHOP.replace("API", url, 1)}) as made:
        made.wait("function shop::locked not registered")
        yield made


def test_a_call_is_a_request_and_the_answer_its_result(running) -> None:
    seen = running.call("shop::ship", {"n": 1})
    assert seen["method"] == "POST"
    assert seen["payload"].items() >= {"n": 1}.items()
    assert isinstance(seen["payload"]["_caller_worker_id"], str)
    headers = seen["headers"]
    assert headers["Authorization"] == "Bearer canary-token"
    assert (headers["x-a"], headers["x-iii-Function-Path"]) == ("b", "shop::ship")
    assert running.call("shop::put", [1])["payload"] == [1]
    assert running.call("shop::put", [1])["method"] == "PUT"


def test_a_handler_calls_such_a_function_like_any_other_and_is_named(running) -> None:
    assert running.call("shop::order", {})["headers"]["x-iii-Caller-Function"] == "shop::order"


def failure(running: Any, function_id: str) -> InvocationError:
    with pytest.raises(InvocationError) as caught:
        running.call(function_id, {})
    return caught.value


def test_failures_have_the_codes_of_the_contract(running) -> None:
    error = failure(running, "shop::fail")
    assert (error.code, error.message.endswith("none left")) == ("no_stock", True)
    assert failure(running, "shop::down").code == "http_request_failed"
    assert failure(running, "shop::slow").code == "http_request_failed"


def test_a_redirect_is_not_followed(running) -> None:
    assert running.call("shop::moved", {})["headers"]["x-iii-Function-Path"] == "shop::moved"


def test_a_function_whose_secret_is_not_set_is_not_registered_and_the_log_says_why(running) -> None:
    error = failure(running, "shop::locked")
    assert error.code == "function_not_found"
    assert running.said("token_not_found")


def test_such_functions_are_listed_as_their_workers(running) -> None:
    rows = running.call("engine::functions::list", {"prefix": "shop::ship"})["functions"]
    assert rows == [
        {
            "function_id": "shop::ship",
            "namespace": "default",
            "worker_name": "shop",
            "description": "Behind a URL",
            "metadata": {"tier": "gold"},
        }
    ]


def test_calls_wait_while_the_worker_restarts(running) -> None:
    running.call("engine::workers::restart", {"name": "http_functions"})
    assert running.call("shop::put", 5)["payload"] == 5


def test_secrets_are_in_no_log(running) -> None:
    assert running.said("canary-token") == []
    logs = running.folder / ".iii" / "logs"
    assert [path for path in logs.rglob("*.log") if "canary-token" in path.read_text()] == []


def test_what_is_unregistered_is_gone(tmp_path) -> None:
    with api() as url, project(tmp_path, TOML, {"shop": SHOP.replace("API", url, 1)}) as made:
        made.call("shop::close")
        assert failure(made, "shop::ship").code == "function_not_found"


def test_addresses_of_this_machine_are_refused_unless_allowed(tmp_path) -> None:
    with api() as url, project(tmp_path, GUARDED, {"shop": SHOP.replace("API", url, 1)}) as made:
        (line,) = made.wait("function shop::ship not registered")
        assert "url_validation_failed" in line
        assert "127.0.0.1" in line
        error = failure(made, "shop::ship")
        assert error.code == "function_not_found"


def test_an_allowed_network_may_be_reached(tmp_path) -> None:
    toml = GUARDED.replace("{ require", '{ allowed_networks = ["127.0.0.1"], require')
    with api() as url, project(tmp_path, toml, {"shop": SHOP.replace("API", url, 1)}) as made:
        assert made.call("shop::put", 5)["payload"] == 5
