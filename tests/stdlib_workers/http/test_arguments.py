"""Functions that get arguments of a request: what they are called with, what is refused, and how results are sent."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator, Callable
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iii import InvocationError, TriggerConfig
from stdlib_workers.http.items import EVENTS, LINES, TEXT, content_type_for, encode_item
from stdlib_workers.http.openapi import document_from
from stdlib_workers.http.replies import BadResult
from stdlib_workers.http.triggers import route_from
from tests.support.asgi_client import JSON_BODY, Answer, Site
from tests.support.live_project import BOUND

FORM = (b"content-type", b"application/x-www-form-urlencoded")
ARGUMENTS = {
    "id": {"in": "path", "type": "integer"},
    "order": {"in": "body", "required": True},
    "dry_run": {"in": "query", "type": "boolean"},
    "token": {"in": "header", "name": "X-Token"},
}


def config(path: str = "/orders/{id}", method: str = "POST", **more: Any) -> dict[str, Any]:
    given = {"payload": "arguments", "arguments": ARGUMENTS, "stream": False, **more}
    return {"api_path": path, "http_method": method, **given}


def site(function: Callable[[Any], Any] = lambda payload: payload, **more: Any) -> Site:
    made = Site({"f::f": function, "f::is_wanted": lambda _: True})
    made.routes.add(route_from(TriggerConfig("t1", "f::f", config(**more))))
    return made


def order(made: Site, body: Any = None, target: str = "/orders/7", *headers: tuple[bytes, bytes]) -> Answer:
    return made.ask(
        f"POST {target}", json.dumps({"item": "tea"} if body is None else body).encode(), [JSON_BODY, *headers]
    )


def test_the_function_gets_its_arguments_and_the_result_is_the_body() -> None:
    made = site(condition_function_id="f::is_wanted")
    answer = order(made, {"item": "tea"}, "/orders/7?dry_run=true", (b"x-token", b"t"))
    assert (answer.status, answer.headers["content-type"]) == (200, "application/json")
    assert answer.json == {"id": 7, "order": {"item": "tea"}, "dry_run": True, "token": "t"}
    condition, call = made.calls
    assert condition["payload"]["body"] == {"item": "tea"}
    assert 0 < call["timeout_ms"] <= 30_000


@pytest.mark.parametrize(
    ("result", "status", "answered"),
    [
        (None, None, (204, b"")),
        (None, 201, (201, b"")),
        ({"a": 1}, 201, (201, b'{"a":1}')),
        ({"status_code": 404, "body": "x"}, None, (200, b'{"status_code":404,"body":"x"}')),
        ("text", None, (200, b'"text"')),
        (False, None, (200, b"false")),
        (10**30, None, (200, b"1" + b"0" * 30)),
        ({"$iii": "response", "status_code": 202, "body": {"a": 1}}, 201, (202, b'{"a":1}')),
        ({"$iii": "response", "body": "x", "headers": {"content-type": "text/plain"}}, None, (200, b"x")),
        ({"$iii": "response", "status_code": 304}, None, (304, b"")),
        ({"$iii": "response"}, None, (200, b"")),
        ({"$iii": "response", "body_base64": "AP8="}, None, (200, b"\x00\xff")),
        ({"$iii": "other", "a": 1}, None, (200, b'{"$iii":"other","a":1}')),
        ("x", 204, (500, None)),
        ({"$iii": "response", "body_base64": "!"}, None, (500, None)),
        ({"$iii": "response", "status_code": 99}, None, (500, None)),
        ({"$iii": "response", "headers": {"a": "b\nc"}}, None, (500, None)),
    ],
)
def test_any_result_is_an_answer(result: Any, status: int | None, answered: tuple[int, bytes | None]) -> None:
    more = {} if status is None else {"status": status}
    answer = order(site(lambda _: result, **more))
    assert answer.status == answered[0]
    if answered[1] is None:
        assert answer.code == "invalid_response"
    else:
        assert answer.body == answered[1]
        assert int(answer.headers.get("content-length", 0)) == len(answered[1])


def test_a_whole_response_has_its_headers_and_cookies() -> None:
    headers = {"x-a": "1", "set-cookie": ["a=1", "b=2"], "content-type": "image/png"}
    answer = order(
        site(lambda _: {"$iii": "response", "headers": headers, "body_base64": base64.b64encode(b"x").decode()})
    )
    assert (answer.headers["x-a"], answer.headers["content-type"], answer.body) == ("1", "image/png", b"x")


def refusing(
    code: str, details: dict[str, Any], message: str = "no", stacktrace: str | None = None
) -> Callable[[Any], Any]:
    def function(_: Any) -> Any:
        raise InvocationError(code, message, "f::f", stacktrace, details=details)

    return function


def test_a_status_that_the_function_chose_is_the_answers() -> None:
    details = {"http_status": 404, "http_headers": {"x-a": "1"}, "order": 7}
    answer = order(site(refusing("not_found", details, "no such order")))
    assert (answer.status, answer.headers["x-a"]) == (404, "1")
    assert answer.json == {"error": {"code": "not_found", "message": "no such order", "details": {"order": 7}}}
    # A function that gets the request may say so as well.
    plain = Site({"f::f": refusing("not_found", {"http_status": 404})})
    plain.bind("GET /a")
    assert plain.ask("GET /a").status == 404


@pytest.mark.parametrize("status", [99, 200, 600, "404", True, None])
def test_what_is_no_status_of_an_error_is_a_500(status: Any) -> None:
    assert order(site(refusing("x", {"http_status": status}))).status == 500


def test_another_functions_status_is_a_500() -> None:
    assert order(site(refusing("not_found", {"http_status": 404}, stacktrace="Traceback"))).status == 500


@pytest.mark.parametrize(
    ("target", "body", "path"),
    [
        ("/orders/x", {}, "path.id"),
        ("/orders/7?dry_run=maybe", {}, "query.dry_run"),
    ],
)
def test_a_text_that_does_not_fit_is_a_422_and_the_function_is_not_called(target: str, body: Any, path: str) -> None:
    made = site()
    answer = order(made, body, target)
    assert (answer.status, answer.code) == (422, "invalid_payload")
    [mistake] = answer.json["error"]["details"]["mistakes"]
    assert mistake["path"] == path
    assert made.calls == []


def test_all_mistakes_are_told_together_and_a_missing_body_is_one() -> None:
    answer = site().ask("POST /orders/x?dry_run=maybe")
    mistakes = answer.json["error"]["details"]["mistakes"]
    assert [mistake["path"] for mistake in mistakes] == ["path.id", "body", "query.dry_run"]
    assert answer.json["error"]["message"].count("expected") == 3


@pytest.mark.parametrize("body", [b"{", b"\xff"])
def test_a_body_that_cannot_be_read_is_a_400(body: bytes) -> None:
    assert site().ask("POST /orders/7", body, [JSON_BODY]).status == 400


def test_what_the_schema_refuses_is_a_422_with_the_place_in_the_request() -> None:
    details = {"path": "order.quantity", "expected": "integer", "got": "x"}
    answer = order(site(refusing("invalid_payload", details, 'f::f: order.quantity must be an integer, got "x"')))
    assert answer.status == 422
    assert answer.json["error"]["message"] == 'body.quantity: expected an integer, got "x"'
    assert answer.json["error"]["details"]["mistakes"] == [
        {"path": "body.quantity", "expected": "an integer", "got": "x"}
    ]


def test_a_refused_header_is_not_repeated() -> None:
    details = {"path": "token", "expected": 3, "got": "geheim"}
    refused = refusing("invalid_payload", details, "f::f: token: 'geheim' is too long")
    assert b"geheim" not in order(site(refused), {}, "/orders/7", (b"x-token", b"geheim")).body


def test_a_wrong_cookie_and_a_secret_of_the_query_are_not_repeated_either() -> None:
    wanted = {"type": "integer", "required": True}
    arguments = {"n": {"in": "cookie", "name": "session", **wanted}, "api_key": {"in": "query", **wanted}}
    made = site(arguments=arguments, path="/a", method="GET")
    answer = made.ask("GET /a?api_key=geheim", headers=[(b"cookie", b"session=geheim; b=geheim")])
    assert answer.status == 422
    assert [each["path"] for each in answer.json["error"]["details"]["mistakes"]] == ["cookie.session", "query.api_key"]
    assert b"geheim" not in answer.body


def test_fields_of_a_form_have_their_types() -> None:
    arguments = {"n": {"in": "form", "type": "integer"}, "names": {"in": "form", "name": "name", "type": "array"}}
    made = site(arguments=arguments, path="/a")
    assert made.ask("POST /a", b"n=3&name=a&name=b", [FORM]).json == {"n": 3, "names": ["a", "b"]}
    assert made.ask("POST /a", b"n=x", [FORM]).status == 422


@pytest.mark.parametrize(
    ("wrong", "words"),
    [
        ({"arguments": {"id": {"in": "path", "name": "nr"}}}, "arguments.id is in the path, which has no such name"),
        ({"status": 404}, "status must be a whole number from 200 to 299, got 404"),
        ({"payload": "event", "status": 201}, 'status needs payload = "arguments"'),
        ({"payload": "arguemnts"}, "payload must be"),
    ],
)
def test_a_route_that_cannot_be_is_refused(wrong: dict[str, Any], words: str) -> None:
    with pytest.raises(ValueError, match=words):
        route_from(TriggerConfig("t1", "f::f", config(**wrong)))


# Items.


class Generator:
    """Stands for the SDK's `stream_async`: yields `items`, then raises `error` or gives `result`."""

    def __init__(self, *items: Any, error: InvocationError | None = None, result: Any = None) -> None:
        self.items, self.error, self.result = items, error, result
        self.is_closed = False

    async def __call__(self, request: Any, *, on_result: Callable[[Any], None]) -> AsyncIterator[Any]:
        self.request = request
        try:
            for item in self.items:
                yield item
            if self.error is not None:
                raise self.error
            if self.result is not None:
                on_result(self.result)
        finally:
            self.is_closed = True


def streaming(generator: Generator, **more: Any) -> Site:
    made = site(stream=True, **more) if "stream" not in more else site(**more)
    made.application.iterate = generator
    return made


ITEMS = ("a", {"n": 1}, {"$iii": "event", "data": "x\r\ny", "event": "tick", "id": "7", "retry": 100})


@pytest.mark.parametrize(
    ("accept", "content_type", "body"),
    [
        (b"*/*", EVENTS, b'data: a\n\ndata: {"n":1}\n\nevent: tick\nid: 7\nretry: 100\ndata: x\ndata: y\n\n'),
        (b"application/x-ndjson", LINES, b'"a"\n{"n":1}\n"x\\r\\ny"\n'),
        (b"text/plain", TEXT, b'a{"n":1}\nx\r\ny'),
    ],
)
def test_a_generator_streams_as_the_client_asks(accept: bytes, content_type: str, body: bytes) -> None:
    generator = Generator(*ITEMS)
    answer = order(streaming(generator), None, "/orders/7", (b"accept", accept))
    assert (answer.status, answer.headers["content-type"]) == (200, f"{content_type}; charset=utf-8")
    assert answer.headers["cache-control"] == "no-cache"
    assert "content-length" not in answer.headers
    assert answer.body == body
    assert generator.request["payload"] == {"id": 7, "order": {"item": "tea"}}
    assert generator.is_closed


def test_what_is_no_generator_answers_with_its_result_as_ever() -> None:
    answer = order(streaming(Generator(result={"a": 1}), stream=None, status=201))
    assert (answer.status, answer.json) == (201, {"a": 1})
    assert order(streaming(Generator(), stream=None)).status == 204


def test_an_empty_generator_is_an_empty_stream() -> None:
    answer = order(streaming(Generator()))
    assert (answer.status, answer.body) == (200, b"")
    assert answer.headers["content-type"].startswith(EVENTS)


def test_an_error_before_the_first_item_is_an_answer() -> None:
    error = InvocationError("not_found", "no such order", details={"http_status": 404})
    assert order(streaming(Generator(error=error))).status == 404


@pytest.mark.parametrize("accept", [b"*/*", b"application/x-ndjson"])
def test_an_error_after_the_first_item_ends_the_answer_without_its_end(accept: bytes) -> None:
    generator = Generator("a", error=InvocationError("broken", "it broke"))
    answer = order(streaming(generator), None, "/orders/7", (b"accept", accept))
    assert answer.status == 200
    assert (b"event: error\ndata:" in answer.body) is (accept == b"*/*")
    assert not answer.is_complete
    assert generator.is_closed


def test_an_item_that_is_not_json_ends_the_answer_as_well() -> None:
    answer = order(streaming(Generator("a", {"x": {1, 2}})))
    assert b"event: error" in answer.body
    assert not answer.is_complete


class Endless(Generator):
    """Yields for ever; `pause` is awaited after each item."""

    def __init__(self, pause: Callable[[], Any]) -> None:
        super().__init__()
        self.pause = pause

    async def __call__(self, request: Any, *, on_result: Callable[[Any], None]) -> AsyncIterator[Any]:
        try:
            while True:
                yield "tick"
                await self.pause()
        finally:
            self.is_closed = True


@pytest.mark.parametrize("pause", [asyncio.Future, lambda: asyncio.sleep(0)], ids=["quiet", "busy"])
def test_a_client_that_leaves_ends_the_generator_at_once(pause: Callable[[], Any]) -> None:
    generator = Endless(pause)
    made = Site({}, {"default_timeout": "10m"})
    made.routes.add(route_from(TriggerConfig("t1", "f::f", config(stream=True))))
    made.application.iterate = generator

    async def scenario() -> None:
        leaves = asyncio.Event()
        answer = asyncio.ensure_future(made.ask_async("POST /orders/7", b"{}", [JSON_BODY], leaves=leaves))
        while len(made.sent) < 2:
            await asyncio.sleep(0)
        leaves.set()
        await asyncio.wait_for(answer, BOUND)

    asyncio.run(scenario())
    assert generator.is_closed


def test_a_generator_that_falls_silent_is_broken_off() -> None:
    class Silent(Generator):
        async def __call__(self, request: Any, *, on_result: Callable[[Any], None]) -> AsyncIterator[Any]:
            for item in self.items:
                yield item
            await asyncio.Future()

    for items, status in (((), 504), (("a",), 200)):
        made = Site({}, {"default_timeout": 20})
        made.routes.add(route_from(TriggerConfig("t1", "f::f", config(stream=True))))
        made.application.iterate = Silent(*items)
        answer = order(made)
        assert answer.status == status
        assert b"TIMEOUT" in answer.body


@pytest.mark.parametrize(
    ("accept", "content_type"),
    [
        ("", EVENTS),
        ("*/*", EVENTS),
        ("text/html, */*;q=0.1", EVENTS),
        ("image/png", EVENTS),
        ("application/jsonl", LINES),
        ("text/plain, application/x-ndjson;q=0.9", TEXT),
        ("text/plain;q=0.5, application/x-ndjson; q=0.9", LINES),
        ("application/x-ndjson;q=0, text/plain;q=0.001", TEXT),
        ("TEXT/PLAIN", TEXT),
        ("text/*", EVENTS),
        ("text/plain;q=2", TEXT),
        (";;,,", EVENTS),
    ],
)
def test_the_client_says_how_items_are_sent(accept: str, content_type: str) -> None:
    assert content_type_for(accept) == content_type


@given(st.text())
def test_any_accept_header_has_an_answer(accept: str) -> None:
    assert content_type_for(accept) in (EVENTS, LINES, TEXT)


@given(st.text(), st.text(), st.text())
def test_an_event_cannot_be_mistaken_for_two(data: str, name: str, id: str) -> None:
    text = encode_item({"$iii": "event", "data": data, "event": name, "id": id}, EVENTS).decode()
    assert text.endswith("\n\n")
    lines = text[:-2].replace("\r", "\n").split("\n")
    assert "" not in lines
    assert {line.partition(": ")[0] for line in lines} == {"event", "id", "data"}


def test_half_a_surrogate_pair_stops_no_stream() -> None:
    for kind in (EVENTS, TEXT):
        assert encode_item("\ud800", kind)
    with pytest.raises(BadResult):
        encode_item({1}, LINES)


# The document.

SCHEMA = {
    "type": "object",
    "properties": {
        "id": {"type": "integer", "maximum": 9},
        "order": {"$ref": "#/$defs/Order"},
        "dry_run": {"type": "boolean", "default": False},
        "token": {"type": "string"},
    },
    "required": ["id", "order"],
    "$defs": {"Order": {"type": "object", "properties": {"item": {"type": "string"}}}},
}


def operation(request: Any = SCHEMA, response: Any = None, method: str = "post", **more: Any) -> dict[str, Any]:
    route = route_from(TriggerConfig("t1", "f::f", config(method=method, **more)))
    functions = {"f::f": {"request_schema": request, "response_schema": response}}
    [path] = document_from("t", [route], functions)["paths"].values()
    found: dict[str, Any] = path[method]
    return found


def test_the_document_has_parameters_body_and_answers_from_the_same_data() -> None:
    found = operation(response={"type": "object"}, status=201)
    assert found["operationId"] == "f_f"
    rows = {(row["in"], row["name"]): row for row in found["parameters"]}
    assert rows["path", "id"]["schema"] == {"type": "integer", "maximum": 9}
    assert rows["path", "id"]["required"] is True
    assert rows["query", "dry_run"]["required"] is False
    assert rows["header", "X-Token"]["schema"] == {"type": "string"}
    assert found["requestBody"]["required"] is True
    assert found["requestBody"]["content"]["application/json"]["schema"] == {"$ref": "#/components/schemas/f.f.Order"}
    assert set(found["responses"]) == {"201", "400", "422", "default"}


def test_keys_of_a_body_and_fields_of_a_form_are_its_properties() -> None:
    keys = {
        "id": {"in": "path"},
        "item": {"in": "query_or_body", "required": True},
        "n": {"in": "body", "name": "count"},
    }
    properties = {"item": {"type": "string"}, "n": {"type": "integer"}}
    body = operation({"properties": properties}, arguments=keys)["requestBody"]
    assert body["content"]["application/json"]["schema"] == {
        "type": "object",
        "properties": {"item": {"type": "string"}, "count": {"type": "integer"}},
        "required": ["item"],
        "additionalProperties": False,
    }
    form = {"id": {"in": "path"}, "photo": {"in": "file", "required": True}, "n": {"in": "form"}}
    content = operation({"properties": properties}, arguments=form)["requestBody"]["content"]
    assert content["multipart/form-data"]["schema"]["properties"]["photo"] == {"type": "string", "format": "binary"}


@pytest.mark.parametrize(
    ("response", "statuses"),
    [
        (None, {"200", "204"}),
        ({"type": "null"}, {"204"}),
        ({"type": "object"}, {"200"}),
        ({"type": ["object", "null"]}, {"200", "204"}),
        ({"anyOf": [{"type": "object"}, {"type": "null"}]}, {"200", "204"}),
        ({"anyOf": [{"type": "object"}, {"properties": {"$iii": {"const": "response"}}}]}, {"200", "2XX"}),
        ({"properties": {"$iii": {"const": "response"}}}, {"2XX"}),
        (7, {"200", "204"}),
        ({"type": 7, "anyOf": "x"}, {"200"}),
    ],
)
def test_the_statuses_of_a_result_are_those_of_its_schema(response: Any, statuses: set[str]) -> None:
    found = operation(response=response)["responses"]
    assert set(found) == statuses | {"400", "422", "default"}
    for answer in found.values():
        assert answer["description"]


def test_a_generators_answer_is_a_stream_of_three_kinds() -> None:
    content = operation(response={"type": "array"}, stream=True)["responses"]["200"]["content"]
    assert set(content) == {EVENTS, LINES, TEXT}
