"""What a request meets on its way, without sockets: host, origin, route, body, condition, middleware, function."""

from __future__ import annotations

import asyncio
import gc
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iii import InvocationError
from stdlib_workers.http.replies import JSON, hint_from, response_from
from stdlib_workers.http.requests import Request
from tests.support.asgi_client import HOST, JSON_BODY, Site

FORM = (b"content-type", b"application/x-www-form-urlencoded")


def site(result: Any = None, text: str = "GET /a", **fields: Any) -> Site:
    """One route whose function returns `result`."""
    made = Site({"f::f": lambda _: result})
    made.bind(text, **fields)
    return made


def fails(error: InvocationError, **config: Any) -> Site:
    def function(_: Any) -> Any:
        raise error

    made = Site({"f::f": function}, config)
    made.bind("GET /a")
    return made


def body_of(kind: bytes, body: bytes) -> Any:
    """What a function gets as body."""
    made = Site({"f::f": lambda payload: {"body": payload["body"]}})
    made.bind("POST /a")
    answer = made.ask("POST /a", body, [(b"content-type", kind)] if kind else [])
    return answer.json if answer.status == 200 else (answer.status, answer.code)


def test_a_function_gets_the_request_and_its_return_value_is_the_answer() -> None:
    made = site(
        {"status_code": 201, "headers": {"X-One": "1"}, "body": {"ok": True}}, "POST /users/:id", metadata={"m": 1}
    )
    answer = made.ask("POST /users/4%202?q=a&q=b+c", b'{"x": 1}', [JSON_BODY])
    assert (answer.status, answer.json, answer.headers["x-one"]) == (201, {"ok": True}, "1")
    [call] = made.calls
    payload = call["payload"]
    assert call["metadata"] == {"m": 1}
    assert 0 < call["timeout_ms"] <= 30_000
    fields = {"method", "path", "path_params", "query_params", "query_params_all", "headers", "body", "trigger"}
    assert set(payload) == fields
    assert payload["method"] == "POST"
    assert payload["path"] == "/users/:id"
    assert payload["path_params"] == {"id": "4 2"}
    assert payload["query_params"] == {"q": "b c"}
    assert payload["query_params_all"] == {"q": ["a", "b c"]}
    assert payload["body"] == {"x": 1}
    assert payload["headers"]["host"] == "localhost:3111"
    assert payload["trigger"] == {"type": "http", "path": "/users/:id", "method": "POST"}


@pytest.mark.parametrize("result", [{"body": 1}, {"status_code": "x"}])
@pytest.mark.parametrize("path", ["/a", "/b"])
def test_a_request_that_is_over_leaves_nothing_to_the_garbage_collector(result: Any, path: str) -> None:
    made = site(result, "POST /a")
    gc.collect()
    gc.disable()
    try:
        made.ask(f"POST {path}", b"{}", [JSON_BODY])
        assert [each for each in gc.get_objects() if isinstance(each, Request)] == []
    finally:
        gc.enable()


@pytest.mark.parametrize(
    ("result", "status", "kind", "body"),
    [
        ({"body": [1]}, 200, "application/json", b"[1]"),
        ({"status_code": 404}, 404, "application/json", b"{}"),
        ({"body": "hi"}, 200, "application/json", b'"hi"'),
        ({"body": None}, 200, "application/json", b"null"),
        ({"headers": {"content-type": "text/html"}, "body": "<p>"}, 200, "text/html", b"<p>"),
        ({"headers": {"Content-Type": "application/json"}, "body": "{}"}, 200, "application/json", b"{}"),
        ({"headers": {"content-type": "text/plain"}, "body": None}, 200, "text/plain", b""),
        ({"headers": {"content-type": "text/plain"}, "body": {"a": 1}}, 200, "text/plain", b'{"a":1}'),
        ({"headers": ["Content-Type: text/css", "X: y"], "body": "p{}"}, 200, "text/css", b"p{}"),
        ({"headers": {"x-number": 5, "x-null": None}}, 200, "application/json", b"{}"),
        ({"headers": ["no header", 5]}, 200, "application/json", b"{}"),
        ({"statusCode": 404, "body": 1}, 200, "application/json", b"1"),
        ("hi", 200, "application/json", b"{}"),
        ([1], 200, "application/json", b"{}"),
        (None, 200, "application/json", b"{}"),
    ],
)
def test_results_become_responses_as_the_contract_says(result: Any, status: int, kind: str, body: bytes) -> None:
    answer = site(result).ask("GET /a")
    assert (answer.status, answer.headers["content-type"], answer.body) == (status, kind, body)


def test_a_header_may_come_twice_in_both_forms_and_numbers_are_texts() -> None:
    cookies = [(b"set-cookie", b"a=1"), (b"set-cookie", b"b=2"), JSON]
    for headers in (["Set-Cookie: a=1", "set-cookie:b=2", "no header", 5], {"Set-Cookie": ["a=1", "b=2"]}):
        assert response_from({"headers": headers}).raw_headers[1:] == cookies
    given = {"retry-after": 5, "x-half": 0.5, "x-yes": True, "x-null": None, "x-none": []}
    assert response_from({"headers": given}).raw_headers[1:-1] == [
        (b"retry-after", b"5"),
        (b"x-half", b"0.5"),
        (b"x-yes", b"true"),
    ]


def test_a_header_line_that_is_not_sent_is_told_to_its_author() -> None:
    assert "'no header', 5 is not sent" in str(hint_from({"headers": ["a: b", "no header", 5]}))
    assert hint_from({"headers": ["a: b"]}) is None
    assert hint_from({"headers": {"a": "b"}, "body": 1}) is None


@pytest.mark.parametrize(
    ("result", "hint"),
    [
        ({"status_code": 201, "bodyy": 1}, "of what it returned 'bodyy' is not sent; did you mean `body`?"),
        ({"body": 1, "statusCode": 201}, "of what it returned 'statusCode' is not sent; did you mean `status_code`?"),
        ({"body": 1, "more": 2}, "'more' is not sent; the keys of a response are status_code, headers and body"),
        ({"hello": "world"}, "the dict it returned is not sent; an http function returns status_code, headers, body"),
        ([1], "the list it returned is not sent"),
        ({}, "None"),
        (None, "None"),
        ({"status_code": 204, "headers": {}, "body": None}, "None"),
    ],
)
def test_what_is_not_sent_of_a_result_is_told_to_its_author(result: Any, hint: str) -> None:
    assert hint in str(hint_from(result))


@pytest.mark.parametrize("name", ["Connection", "keep-alive", "Transfer-Encoding", "upgrade", "TE", "trailer"])
def test_a_header_of_one_connection_is_the_servers_and_dropped(name: str) -> None:
    answer = site({"headers": {name: "chunked", "x": "y"}, "body": 1}).ask("GET /a")
    assert (answer.status, answer.headers["x"], answer.body) == (200, "y", b"1")
    assert name.lower() not in answer.headers


@pytest.mark.parametrize("length", ["1", "3"])
def test_a_length_is_the_servers_own(length: str) -> None:
    answer = site({"headers": {"Content-Length": length, "content-type": "text/plain"}, "body": "x"}).ask("GET /a")
    assert (answer.status, answer.headers["content-length"]) == (200, "1")


def test_of_repeated_headers_the_last_one_counts_and_bytes_are_kept() -> None:
    made = site({})
    made.ask("GET /a", b"", [(b"x-one", b"1"), (b"x-one", b"2"), (b"x-bytes", b"\xff")])
    headers = made.calls[0]["payload"]["headers"]
    assert (headers["x-one"], headers["x-bytes"]) == ("2", "\xff")


def test_the_path_is_the_pattern_as_it_was_registered() -> None:
    made = site({}, "GET users/{id}")
    assert made.ask("GET /users/1").status == 200
    payload = made.calls[0]["payload"]
    assert (payload["path"], payload["trigger"]["path"]) == ("users/{id}", "users/{id}")


@pytest.mark.parametrize(
    "result",
    [
        {"status_code": 99},
        {"status_code": 600},
        {"status_code": "200"},
        {"status_code": True},
        {"headers": {"x": "a\r\nset-cookie: b"}},
        {"headers": {"x\r\ny": "a"}},
        {"headers": {"x y": "a"}},
        {"headers": {"x": "é\u20ac"}},
        {"headers": {"x": {"a": 1}}},
        {"headers": {"x": ["a", {}]}},
        {"headers": "x: y"},
        {"status_code": 204, "body": "x"},
        {"headers": {"content-type": "text/plain"}, "body": "\ud800"},
        {"body": "\ud800"},
    ],
)
def test_h07_what_http_cannot_carry_is_a_500_with_a_clear_log(result: Any, capsys: pytest.CaptureFixture[str]) -> None:
    made = site(result)

    async def ask_and_flush() -> Any:
        answer = await made.ask_async("GET /a")
        made.application._log.flush()
        return answer

    answer = asyncio.run(ask_and_flush())
    assert (answer.status, answer.code) == (500, "invalid_response")
    assert set(answer.headers) == {"content-type", "traceparent", "x-request-id", "content-length"}
    log = capsys.readouterr().err
    assert "f::f returned no HTTP response" in log
    assert answer.json["error"]["error_id"] in log
    assert all(line.isprintable() for line in log.splitlines())


@pytest.mark.parametrize("result", ["hi", [1], {"sum": 3}])
def test_a_result_that_is_lost_is_told_to_its_author(result: Any, capsys: pytest.CaptureFixture[str]) -> None:
    made = site(result)

    async def ask_and_flush() -> None:
        await made.ask_async("GET /a")
        made.application._log.flush()

    asyncio.run(ask_and_flush())
    assert f"f::f: the {type(result).__name__} it returned is not sent" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("kind", "body", "value"),
    [
        (b"application/json", b'{"a": [1, 2.5, null]}', {"a": [1, 2.5, None]}),
        (b"application/json; charset=utf-8", b"[]", []),
        (b"application/problem+json", b"{}", {}),
        (b"application/json", b"", None),
        (b"application/json", b"123456789012345678901", 123456789012345678901),
        (b"application/json", b"{", (400, "invalid_json")),
        (b"application/json", b'{"a": NaN}', (400, "invalid_json")),
        (b"application/json", b'{"a": "\xff"}', (400, "invalid_body")),
        (b"application/json", b"[" * 65 + b"]" * 65, (400, "invalid_json")),
        (b"application/json", b"[" * 64 + b"]" * 64, json.loads("[" * 64 + "]" * 64)),
        (b"application/json", b"[" * 100_000, (400, "invalid_json")),
        (b"application/x-www-form-urlencoded", b"a=1&b=x+y&a=%C3%A9&c=", {"a": ["1", "é"], "b": "x y", "c": ""}),
        (b"application/x-www-form-urlencoded", b"a=%ff", (400, "invalid_body")),
        (b"application/x-www-form-urlencoded; charset=iso-8859-1", b"a=%e9&b=\xe9", {"a": "é", "b": "é"}),
        (b"application/x-www-form-urlencoded", b"a=%e9&_charset_=iso-8859-1", {"a": "é", "_charset_": "iso-8859-1"}),
        (b"application/x-www-form-urlencoded; charset=zlib", b"a=1", (415, "UNSUPPORTED_MEDIA_TYPE")),
        (b"application/x-www-form-urlencoded", b"&".join([b"a=1"] * 1001), (400, "invalid_body")),
        (b"application/x-www-form-urlencoded", b"a=" + b"%41" * 200_001, (413, "PAYLOAD_TOO_LARGE")),
        (b"text/plain", "hé".encode(), "hé"),
        (b"text/plain; charset=iso-8859-1", b"h\xe9", "hé"),
        (b"text/plain", b"h\xe9", (400, "invalid_body")),
        (b"text/plain; charset=zlib", b"x", (415, "UNSUPPORTED_MEDIA_TYPE")),
        (b"application/xml", b"<a/>", "<a/>"),
        (b"image/svg+xml", b"<svg/>", "<svg/>"),
        (b"application/x-ndjson", b'{"a":1}\n{"a":2}\n', '{"a":1}\n{"a":2}\n'),
        (b"text/csv; header=present", b"a,b\n", "a,b\n"),
        (
            b"application/octet-stream",
            b"\x00\xff",
            {"content_type": "application/octet-stream", "size": 2, "content_base64": "AP8="},
        ),
        (b"Image/PNG; x=y", b"hi", {"content_type": "image/png", "size": 2, "content_base64": "aGk="}),
        (b"application/json", b"[" + b"{}," * 200_000 + b"{}]", (400, "invalid_json")),
        (b"application/json", b'["' + b"{}," * 199_000 + b'"]', ["{}," * 199_000]),
        (b"application/json", b'["' + b'\\"[' * 100 + b'"]', ['"[' * 100]),
        (b"application/json", b"[" + b"[]," * 99 + b"[]]", [[]] * 100),
        (b"", b"x", (415, "UNSUPPORTED_MEDIA_TYPE")),
        (b"json", b"{}", (415, "UNSUPPORTED_MEDIA_TYPE")),
        (b"application/", b"{}", (415, "UNSUPPORTED_MEDIA_TYPE")),
        (b"a b/c", b"{}", (415, "UNSUPPORTED_MEDIA_TYPE")),
        (b"multipart/form-data", b"x", (400, "invalid_body")),
        (b"multipart/form-data; boundary=x", b"--x\r\nno", (400, "invalid_body")),
    ],
)
def test_h05_bodies_are_parsed_by_what_they_say_they_are(kind: bytes, body: bytes, value: Any) -> None:
    found = body_of(kind, body)
    assert (tuple(found) if isinstance(value, tuple) else found) == value


def test_h05_invalid_json_names_its_offset_in_bytes() -> None:
    answer = site({}, "POST /a").ask("POST /a", '{"é": x}'.encode(), [JSON_BODY])
    assert answer.json["error"]["details"] == {"offset": 7}


def test_a_multipart_form_has_fields_and_files() -> None:
    body = (
        b'--x\r\nContent-Disposition: form-data; name="a"\r\n\r\n1\r\n'
        b'--x\r\nContent-Disposition: form-data; name="f"; filename="a.txt"\r\nContent-Type: text/plain\r\n\r\nhi\r\n'
        b"--x--\r\n"
    )
    file = {"filename": "a.txt", "content_type": "text/plain", "size": 2, "content_base64": "aGk="}
    assert body_of(b"multipart/form-data; boundary=x", body) == {"a": "1", "f": file}


def multipart(*parts: bytes) -> bytes:
    """A body of parts, each with its headers."""
    return b"".join(b"--x\r\nContent-Disposition: form-data; " + part + b"\r\n" for part in parts) + b"--x--\r\n"


@pytest.mark.parametrize(
    ("kind", "parts", "value"),
    [
        (b"", [b'name="n"\r\n\r\nh\xc3\xa9'], {"n": "hé"}),
        (b"; charset=iso-8859-1", [b'name="n\xe9"\r\n\r\nh\xe9'], {"né": "hé"}),
        (
            b"",
            [b'name="n"\r\n\r\nh\xe9', b'name="_charset_"\r\n\r\niso-8859-1'],
            {"n": "hé", "_charset_": "iso-8859-1"},
        ),
        (b"", [b'name="n"; filename="\xc3\xa9"\r\n\r\n\xe9'], {"n": {"filename": "é", "content_base64": "6Q=="}}),
        (b"", [b'name="n"\r\n\r\nh\xe9'], "the field 'n' in the body is not UTF-8"),
        (b"", [b'name="n\xe9"\r\n\r\nh'], "the field name 'n\\xe9' in the body is not UTF-8"),
        (b"", [b'name="n"; filename="\xe9"\r\n\r\nh'], "the file name of 'n' in the body is not UTF-8"),
        (b"; charset=zlib", [b'name="n"\r\n\r\nh'], "the charset 'zlib' is not known; send UTF-8"),
        (b"", [b'name="_charset_"\r\n\r\nzlib'], "the charset 'zlib' is not known; send UTF-8"),
    ],
)
def test_a_multipart_form_is_read_in_the_charset_that_it_declares(kind: bytes, parts: list[bytes], value: Any) -> None:
    made = Site({"f::f": lambda payload: {"body": payload["body"]}})
    made.bind("POST /a")
    content_type = (b"content-type", b"multipart/form-data; boundary=x" + kind)
    answer = made.ask("POST /a", multipart(*parts), [content_type])
    if isinstance(value, str):
        assert (answer.status, answer.json["error"]["message"]) == (415 if "zlib" in value else 400, value)
        return
    for name, field in answer.json.items():
        assert field == value[name] if isinstance(field, str) else value[name].items() <= field.items()


def test_s25_a_body_with_a_coding_is_not_unpacked() -> None:
    answer = site({}, "POST /a").ask("POST /a", b"x", [JSON_BODY, (b"content-encoding", b"gzip")])
    assert answer.status == 415


@pytest.mark.parametrize(("size", "status"), [(99, 200), (100, 200), (101, 413)])
def test_a_body_over_the_limit_is_refused(size: int, status: int) -> None:
    made = Site({"f::f": lambda _: {}}, {"max_body": 100})
    made.bind("POST /a")
    assert made.ask("POST /a", b"x" * size, [(b"content-type", b"text/plain")]).status == status


@pytest.mark.parametrize(
    ("error", "status", "code", "retries"),
    [
        (InvocationError("invocation_failed", "boom", stacktrace="Traceback"), 500, "invocation_failed", False),
        (InvocationError("function_not_found", "no f::f"), 500, "function_not_found", False),
        (InvocationError("TIMEOUT", "late"), 504, "TIMEOUT", False),
        (InvocationError("overloaded", "full"), 503, "overloaded", True),
        (InvocationError("invocation_stopped", "killed"), 503, "invocation_stopped", True),
        (InvocationError("worker_unavailable", "backing off"), 503, "worker_unavailable", True),
        (InvocationError("TIMEOUT", "an inner call's", stacktrace="Traceback"), 500, "TIMEOUT", False),
        (InvocationError("my_code", "mine"), 500, "my_code", False),
    ],
)
def test_h06_a_failed_call_has_its_status_and_no_traceback(
    error: InvocationError, status: int, code: str, retries: bool
) -> None:
    error.invocation_id = "call-1"
    answer = fails(error).ask("GET /a")
    assert (answer.status, answer.code, "retry-after" in answer.headers) == (status, code, retries)
    assert answer.json["error"]["details"] == {"call_id": "call-1"}
    assert answer.json["error"]["error_id"] == answer.headers["x-request-id"]
    assert b"Traceback" not in answer.body


def test_a_payload_that_the_schema_refuses_is_a_400_with_the_path() -> None:
    details = {"path": "$.body.a", "expected": "number", "got": "two"}
    answer = fails(InvocationError("invalid_payload", "$.body.a must be a number", details=details)).ask("GET /a")
    assert (answer.status, answer.json["error"]["details"]) == (400, details)


def test_only_false_blocks_a_condition() -> None:
    for verdict in (None, True, 0, "", {}, []):
        made = Site({"f::f": lambda _: {"body": 1}, "f::c": lambda _, verdict=verdict: verdict})
        made.bind("GET /a", condition="f::c", namespace="n")
        assert made.ask("GET /a").status == 200
        assert [call["namespace"] for call in made.calls] == ["n", "n"]
    made = Site({"f::f": lambda _: {}, "f::c": lambda _: False})
    made.bind("GET /a", condition="f::c")
    answer = made.ask("GET /a")
    assert (answer.status, answer.code, answer.json["skipped"]) == (422, "CONDITION_NOT_MET", True)
    assert [call["function_id"] for call in made.calls] == ["f::c"]


def test_a_condition_sees_what_the_function_gets_but_no_channels() -> None:
    made = Site({"f::f": lambda _: {}, "f::c": lambda _: True})
    made.bind("POST /a", condition="f::c")
    made.ask("POST /a?q=1", b'{"x": 1}', [JSON_BODY])
    condition, function = made.calls
    assert condition["payload"] == function["payload"]


@pytest.mark.parametrize("asked", ["f::c", "m::m"])
def test_a_condition_or_middleware_that_fails_is_a_500_with_its_code(asked: str) -> None:
    def fail(_: Any) -> Any:
        raise InvocationError("my_code", "mine")

    made = Site({"f::f": lambda _: {}, "f::c": lambda _: True, "m::m": lambda _: None, asked: fail})
    made.bind("GET /a", condition="f::c", middleware=("m::m",))
    answer = made.ask("GET /a")
    assert (answer.status, answer.code) == (500, "my_code")
    assert answer.json["error"]["error_id"] == answer.headers["x-request-id"]
    assert "f::f" not in [call["function_id"] for call in made.calls]


def test_a_request_is_asked_about_in_the_contracts_order() -> None:
    made = Site(
        {name: lambda _: None for name in ("g::g", "f::c", "r::r", "f::f")}, {"middleware": [{"function_id": "g::g"}]}
    )
    made.bind("POST /a", condition="f::c", middleware=("r::r",), namespace="n")
    assert made.ask("POST /a", b"{}", [JSON_BODY]).status == 200
    assert [call["function_id"] for call in made.calls] == ["g::g", "f::c", "r::r", "f::f"]
    assert {call["namespace"] for call in made.calls} == {"n"}
    made.calls.clear()
    # The body is read between the middleware of all routes and the condition.
    assert made.ask("POST /a", b"{", [JSON_BODY]).status == 400
    assert [call["function_id"] for call in made.calls] == ["g::g"]


@pytest.mark.parametrize("said", [None, {}, {"action": "modify", "response": {"status_code": 500}}, "respond", []])
def test_middleware_that_does_not_respond_lets_the_request_pass(said: Any) -> None:
    made = Site({"f::f": lambda _: {"status_code": 201}, "m::m": lambda _: said})
    made.bind("GET /a", middleware=("m::m",))
    assert made.ask("GET /a").status == 201


@pytest.mark.parametrize(
    ("response", "status", "kind", "body"),
    [
        (None, 200, "application/json", b"null"),
        ({}, 200, "application/json", b"null"),
        ({"status_code": 403, "body": "no"}, 403, "application/json", b'"no"'),
        ({"headers": {"content-type": "text/plain"}, "body": "no"}, 200, "text/plain", b"no"),
    ],
)
def test_what_middleware_responds(response: Any, status: int, kind: str, body: bytes) -> None:
    made = Site({"m::m": lambda _: {"action": "respond", "response": response}})
    made.bind("GET /a", middleware=("m::m",))
    answer = made.ask("GET /a")
    assert (answer.status, answer.headers["content-type"], answer.body) == (status, kind, body)


def test_middleware_is_asked_in_order_and_may_answer_itself() -> None:
    said = {"action": "respond", "response": {"status_code": 401, "body": {"no": 1}, "headers": {"x": "y"}}}
    functions = {name: lambda _: {"action": "continue"} for name in ("g::1", "g::2", "r::1", "f::f")}
    rows = [{"function_id": "g::2", "priority": 2}, {"function_id": "g::1", "priority": 1}]
    made = Site({**functions, "r::2": lambda _: said}, {"middleware": rows})
    made.bind("GET /:id", middleware=("r::1", "r::2"))
    answer = made.ask("GET /7")
    assert (answer.status, answer.json, answer.headers["x"]) == (401, {"no": 1}, "y")
    assert [call["function_id"] for call in made.calls] == ["g::1", "g::2", "r::1", "r::2"]
    event = made.calls[0]["payload"]
    assert event["phase"] == "preHandler"
    assert event["context"] == {}
    assert set(event["request"]) == {"path_params", "query_params", "headers", "method"}


def test_middleware_that_is_late_is_a_504_of_its_own() -> None:
    def late(_: Any) -> Any:
        raise InvocationError("TIMEOUT", "late")

    made = Site({"f::f": lambda _: {}, "m::m": late})
    made.bind("GET /a", middleware=("m::m",))
    answer = made.ask("GET /a")
    assert (answer.status, answer.code) == (504, "MIDDLEWARE_TIMEOUT")


def test_unbound_paths_and_methods_say_so() -> None:
    made = site({}, "GET /a")
    assert (made.ask("GET /b").status, made.ask("GET /b").code) == (404, "NOT_FOUND")
    assert set(made.ask("GET /b").json["error"]) == {"code", "message"}
    answer = made.ask("POST /a")
    assert (answer.status, answer.code, answer.headers["allow"]) == (405, "METHOD_NOT_ALLOWED", "GET, HEAD, OPTIONS")
    assert made.ask("GET /health").status == 404
    options = made.ask("OPTIONS /a")
    assert (options.status, options.headers["allow"], options.body) == (204, "GET, HEAD, OPTIONS", b"")
    assert made.ask("OPTIONS /b").status == 404


def test_a_route_may_ask_for_options_and_head_itself() -> None:
    made = Site({"f::f": lambda payload: {"status_code": 201, "headers": {"x-method": payload["method"]}}})
    made.bind("OPTIONS /a")
    made.bind("HEAD /a")
    for method in ("OPTIONS", "HEAD"):
        answer = made.ask(f"{method} /a")
        assert (answer.status, answer.headers["x-method"]) == (201, method)


def test_head_is_get_without_its_body() -> None:
    answer = site({"body": "abc"}).ask("HEAD /a")
    assert (answer.status, answer.headers["content-length"]) == (200, "5")  # the body is uvicorn's to leave out


@pytest.mark.parametrize("path", ["/%00", "/%c0%af", "/../a", "/%2e%2e/a", "/%zz"])
def test_h09_a_path_that_can_be_read_in_two_ways_is_a_400(path: str) -> None:
    assert site({}, "GET /*rest").ask(f"GET {path}").status == 400


@pytest.mark.parametrize(
    ("host", "status"),
    [
        (b"localhost:3111", 200),
        (b"LOCALHOST:3111", 200),
        (b"127.0.0.1:3111", 200),
        (b"[::1]:3111", 200),
        (b"evil.test:3111", 421),
        (b"evil.test", 421),
        (b"0.0.0.0:3111", 421),
        (b"localhost", 421),
        (b"localhost:80", 421),
        (b"localhost:3111.evil.test", 421),
        (b"", 421),
        (None, 400),
    ],
)
def test_s05_on_loopback_only_our_own_names_are_hosts(host: bytes | None, status: int) -> None:
    assert site({}).ask("GET /a", host=(b"host", host) if host is not None else None).status == status


def test_s05_two_hosts_are_none() -> None:
    assert site({}).ask("GET /a", b"", [HOST]).status == 400


@pytest.mark.parametrize(
    ("method", "headers", "status"),
    [
        ("GET", {"origin": "http://localhost:3111"}, 200),
        ("POST", {"origin": "http://localhost:3111"}, 200),
        ("GET", {"origin": "http://evil.test"}, 403),
        ("POST", {"origin": "null"}, 403),
        ("POST", {"origin": "http://localhost:3111.evil.test"}, 403),
        ("POST", {"origin": "http://localhost:3000"}, 403),
        ("POST", {"sec-fetch-site": "cross-site"}, 403),
        ("POST", {"sec-fetch-site": "same-origin"}, 200),
        ("GET", {"sec-fetch-site": "cross-site"}, 200),
        ("OPTIONS", {"origin": "http://evil.test", "access-control-request-method": "POST"}, 403),
    ],
)
def test_s06_s07_a_page_of_another_origin_calls_nothing(method: str, headers: dict[str, str], status: int) -> None:
    made = site({}, "GET /a")
    made.bind("POST /a")
    answer = made.ask(f"{method} /a", b"", [(name.encode(), value.encode()) for name, value in headers.items()])
    assert answer.status == status
    assert len(made.calls) == (status == 200)
    assert not any(name.startswith("access-control") for name in answer.headers)


def test_a_listed_origin_is_answered_by_name() -> None:
    made = Site({"f::f": lambda _: {}}, {"cors": {"allowed_origins": ["https://app.test"]}})
    made.bind("POST /a")
    origin = (b"origin", b"https://app.test")
    answer = made.ask("POST /a", b"", [origin])
    assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, "https://app.test")
    asked = [origin, (b"access-control-request-method", b"POST"), (b"access-control-request-headers", b"x-a")]
    preflight = made.ask("OPTIONS /a", b"", asked)
    assert preflight.status == 200
    assert "POST" in preflight.headers["access-control-allow-methods"]
    assert preflight.headers["access-control-allow-headers"] == "x-a"
    failed = made.ask("GET /none", b"", [origin])
    assert (failed.status, failed.headers["access-control-allow-origin"]) == (404, "https://app.test")
    assert made.ask("POST /a", b"", [(b"origin", b"https://other.test")]).status == 403


@pytest.mark.parametrize("cors", [{}, {"allowed_origins": []}, {"allowed_origins": ["https://a.test", "*"]}])
def test_cors_without_a_list_or_with_a_star_lets_any_origin_in_without_credentials(cors: dict[str, Any]) -> None:
    made = Site({"f::f": lambda _: {}}, {"cors": cors})
    made.bind("POST /a")
    origin = (b"origin", b"https://any.test")
    answer = made.ask("POST /a", b"", [origin])
    assert (answer.status, answer.headers["access-control-allow-origin"]) == (200, "*")
    asked = [origin, (b"access-control-request-method", b"POST"), (b"access-control-request-headers", b"x-a")]
    preflight = made.ask("OPTIONS /a", b"", asked)
    assert preflight.headers["access-control-allow-headers"] == "x-a"
    assert "access-control-allow-credentials" not in {*answer.headers, *preflight.headers}


def test_cors_allows_the_methods_that_are_listed() -> None:
    made = Site({"f::f": lambda _: {}}, {"cors": {"allowed_methods": ["get", "put"]}})
    made.bind("POST /a")
    asked = [(b"origin", b"https://a.test"), (b"access-control-request-method", b"PUT")]
    assert made.ask("OPTIONS /a", b"", asked).headers["access-control-allow-methods"] == "GET, PUT"


def test_requests_over_the_limit_are_told_to_come_again() -> None:
    async def crowd() -> list[Any]:
        release = asyncio.Event()

        async def slow(_: Any) -> Any:
            await release.wait()
            return {}

        made = Site({"f::f": slow}, {"concurrency_request_limit": 2})
        made.bind("GET /a")
        waiting = [asyncio.ensure_future(made.ask_async("GET /a")) for _ in range(2)]
        while made.application.in_flight < 2:
            await asyncio.sleep(0)
        third = await made.ask_async("GET /a")
        release.set()
        answers = [third, *await asyncio.gather(*waiting), await made.ask_async("GET /a")]
        assert made.application.in_flight == 0
        return answers

    refused, *served = asyncio.run(crowd())
    assert (refused.status, refused.code, refused.headers["retry-after"]) == (503, "overloaded", "1")
    assert [answer.status for answer in served] == [200, 200, 200]


def test_all_calls_of_a_request_are_one_trace() -> None:
    made = Site({"f::f": lambda _: {}, "f::c": lambda _: True})
    made.bind("GET /a", condition="f::c")
    given = {"traceparent": f"00-{'ab' * 16}-{'cd' * 8}-01", "baggage": "user=1"}
    answer = made.ask("GET /a", b"", [(name.encode(), value.encode()) for name, value in given.items()])
    (trace,) = {call["trace"]["traceparent"] for call in made.calls}
    # The calls are children of the request's own span, and that is one of the client's.
    assert trace[:36] == given["traceparent"][:36]
    assert trace != given["traceparent"]
    assert {call["trace"]["baggage"] for call in made.calls} == {"user=1"}
    assert answer.headers["traceparent"] == trace
    made.ask("GET /a", b"", [(b"traceparent", f"00-{'0' * 32}-{'cd' * 8}-01".encode())])
    made.ask("GET /a")
    new = [call["trace"]["traceparent"] for call in made.calls[2:]]
    assert (new[0], new[2]) == (new[1], new[3])
    assert len({trace[3:35] for trace in new} - {"0" * 32}) == 2


def test_a_request_keeps_its_id_if_that_is_harmless() -> None:
    made = site({})
    assert made.ask("GET /a", b"", [(b"x-request-id", b"r-1")]).headers["x-request-id"] == "r-1"
    minted = made.ask("GET /a", b"", [(b"x-request-id", b"\x1b[31m")]).headers["x-request-id"]
    assert len(minted) == 32


def test_s18_s19_the_log_names_function_status_and_time_but_no_query(capsys: pytest.CaptureFixture[str]) -> None:
    made = site({})

    async def ask_and_flush() -> None:
        await made.ask_async("GET /a?token=secret")
        await made.ask_async("GET /%1b[31m\u202e")
        made.application._log.flush()

    asyncio.run(ask_and_flush())
    served, refused = capsys.readouterr().err.splitlines()
    assert served.startswith("GET /a 200 f::f ")
    assert served.endswith(" ms")
    assert refused.isascii()
    assert "secret" not in served


@given(
    st.binary(max_size=200),
    st.sampled_from([b"application/json", b"multipart/form-data; boundary=x", FORM[1], b"text/plain"]),
)
def test_any_body_is_parsed_or_refused(body: bytes, kind: bytes) -> None:
    found = body_of(kind, body)
    assert not (isinstance(found, tuple) and found[0] >= 500)


@given(
    st.text(max_size=60), st.text(max_size=30), st.dictionaries(st.text(max_size=9), st.text(max_size=9), max_size=3)
)
def test_any_head_gets_an_answer(path: str, query: str, headers: dict[str, str]) -> None:
    made = site({}, "GET /*rest")
    given = [
        (name.lower().encode("utf-8", "replace"), value.encode("utf-8", "replace")) for name, value in headers.items()
    ]
    target = "/" + path.encode("utf-8", "replace").decode("latin-1").replace("?", "")
    answer = made.ask(f"GET {target}?{query.encode('utf-8', 'replace').decode('latin-1')}", b"", given)
    assert answer.status in (200, 400, 403, 404, 415, 421)


def test_what_a_function_says_of_origins_itself_is_not_said_twice() -> None:
    own = {"access-control-allow-origin": "*", "vary": "cookie", "x-request-id": "mine", "content-type": "text/plain"}
    made = Site({"f::f": lambda _: {"headers": own}}, {"cors": {}})
    made.bind("OPTIONS /a")
    sent: list[Any] = []

    async def send(message: Any) -> None:
        sent.append(message)

    async def receive() -> Any:
        return await asyncio.Future()

    head = {"type": "http", "http_version": "1.1", "method": "OPTIONS", "raw_path": b"/a", "query_string": b""}
    asyncio.run(made.application({**head, "headers": [HOST, (b"origin", b"https://a.test")]}, receive, send))
    names = [name for name, _ in sent[0]["headers"]]
    assert [value for name, value in sent[0]["headers"] if name == b"vary"] == [b"cookie, Origin"]
    assert (names.count(b"access-control-allow-origin"), names.count(b"x-request-id")) == (1, 1)
