"""Requests, files, responses, events and errors of http as values: what they hold, refuse, and are on the wire."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from iii import Event, File, HttpError, Request, Response
from iii.worker.codec.codec import Codec


def wire(value: Any) -> Any:
    return json.loads(Codec().encode(value))


def test_a_response_is_marked_and_keeps_what_it_is_given() -> None:
    assert wire(Response({"a": 1}, status=201, headers={"X-A": "1"})) == {
        "$iii": "response",
        "status_code": 201,
        "headers": {"x-a": "1"},
        "body": {"a": 1},
    }
    assert wire(Response()) == {"$iii": "response", "status_code": 200, "headers": {}}
    assert wire(Response("hi"))["headers"] == {"content-type": "text/plain; charset=utf-8"}
    assert wire(Response("<p>", content_type="text/html"))["headers"] == {"content-type": "text/html"}
    assert wire(Response("a", headers={"Content-Type": "text/csv"}))["headers"] == {"content-type": "text/csv"}
    assert wire(Response(b"\x00\xff")) == {
        "$iii": "response",
        "status_code": 200,
        "headers": {"content-type": "application/octet-stream"},
        "body_base64": "AP8=",
    }


def test_cookies_are_headers_of_their_own() -> None:
    response = Response().set_cookie("session", "s1", max_age=60, httponly=True, samesite="none").delete_cookie("old")
    assert wire(response)["headers"]["set-cookie"] == [
        "session=s1; Path=/; SameSite=None; Max-Age=60; Secure; HttpOnly",
        "old=; Path=/; SameSite=Lax; Max-Age=0",
    ]
    other = Response(headers={"set-cookie": "a=1"}).set_cookie("b", domain="example.com", secure=True)
    assert wire(other)["headers"]["set-cookie"] == ["a=1", "b=; Path=/; SameSite=Lax; Domain=example.com; Secure"]
    assert Response.redirect("/x", status=303).headers == {"location": "/x"}
    assert repr(Response(status=404)) == "<Response 404>"


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Response(status=99), "from 200 to 599, not 99"),
        (lambda: Response(status=True), "from 200 to 599, not True"),
        (lambda: Response(headers={"a": "b\r\nc: d"}), r"a header cannot hold '\\r'"),
        (lambda: Response(headers={"a\n": "b"}), r"a header cannot hold '\\n'"),
        (lambda: Response(headers={"a": ["b", 5]}), "a header is made of texts, not of 5"),  # type: ignore[list-item]
        (lambda: Response(content_type="text/html\r\nx: y"), r"a header cannot hold '\\r'"),
        (lambda: Response.redirect("/\r\nset-cookie: a=b"), r"a header cannot hold '\\r'"),
        (lambda: Response().set_cookie("a", "b; Path=/evil"), "a cookie cannot hold ';'"),
        (lambda: Response().set_cookie("a b"), "'a b' is no name of a cookie"),
        (lambda: Response().set_cookie(""), "'' is no name of a cookie"),
        (lambda: Response().set_cookie("a", domain="b\n"), r"a cookie cannot hold '\\n'"),
        (lambda: Event(id="a\nb"), "the name and the id of an event cannot hold"),
        (lambda: Event(retry=-1), "retry is a number of milliseconds, not -1"),
        (lambda: HttpError(200), "from 400 to 599, not 200"),
    ],
)
def test_what_http_cannot_carry_is_refused_where_it_is_made(make: Any, said: str) -> None:
    with pytest.raises(ValueError, match=said):
        make()


def test_a_file_becomes_a_response_with_its_type(tmp_path: Path) -> None:
    page = tmp_path / "page.html"
    page.write_bytes(b"<p>")
    response = Response.file(page)
    assert (response.body, response.headers) == (b"<p>", {"content-type": "text/html"})
    response = Response.file(page, filename='a "b"\r\n.html', content_type="text/plain")
    assert response.headers["content-disposition"] == "attachment; filename*=UTF-8''a%20%22b%22%0D%0A.html"
    with pytest.raises(OSError, match="nothing"):
        Response.file(tmp_path / "nothing")


def test_a_file_that_no_response_can_hold_is_refused(tmp_path: Path) -> None:
    large = tmp_path / "large"
    with large.open("wb") as opened:
        opened.truncate(12 * 1024 * 1024)
    with pytest.raises(ValueError, match="static folder, or send it through a channel"):
        Response.file(large)


def test_an_event_has_what_it_was_given_and_its_data_may_be_null() -> None:
    assert wire(Event({"n": 1}, event="tick", id="7", retry=100)) == {
        "$iii": "event",
        "data": {"n": 1},
        "event": "tick",
        "id": "7",
        "retry": 100,
    }
    assert wire(Event()) == {"$iii": "event", "data": None}
    assert repr(Event(event="tick")) == "<Event tick>"


def test_an_error_has_its_statuss_words_or_its_own() -> None:
    error = HttpError(404, "no such order", headers={"retry-after": "1"}, details={"id": 7})
    assert (error.status, error.code, error.message) == (404, "not_found", "no such order")
    assert error.details == {"id": 7, "http_status": 404, "http_headers": {"retry-after": "1"}}
    assert (HttpError(418).code, HttpError(418).message) == ("im_a_teapot", "I'm a Teapot")
    assert (HttpError(499).code, HttpError(409, code="paid").code) == ("error", "paid")


def test_a_request_is_what_the_event_says() -> None:
    request = Request.model_validate(
        {
            "method": "POST",
            "path": "/orders/{id}",
            "path_params": {"id": "7"},
            "query_params": {"a": "2"},
            "query_params_all": {"a": ["1", "2"]},
            "headers": {"cookie": 'a=1; b="2"; broken; c=x=y'},
            "body": {"n": 1},
        }
    )
    assert (request.method, request.path_params, request.query_params_all) == ("POST", {"id": "7"}, {"a": ["1", "2"]})
    assert request.cookies == {"a": "1", "b": "2", "c": "x=y"}
    assert repr(request) == "<Request POST /orders/{id}>"
    empty = Request.model_validate({})
    assert (empty.method, empty.path, empty.headers, empty.cookies, empty.body) == ("GET", "", {}, {}, None)
    with pytest.raises(ValueError, match="not an object"):
        Request.model_validate(5)


def test_a_file_is_its_decoded_content() -> None:
    file = File.model_validate({"filename": "a.txt", "content_type": "text/plain", "content_base64": "aGk="})
    assert (file.filename, file.content_type, file.content, file.size) == ("a.txt", "text/plain", b"hi", 2)
    assert repr(file) == "<File 'a.txt', 2 bytes>"
    assert File.model_validate({"content_base64": ""}).content == b""


@pytest.mark.parametrize("value", [5, {}, {"content_base64": 5}, {"content_base64": "?"}, {"content_base64": "aGk"}])
def test_what_is_no_file_is_refused(value: Any) -> None:
    with pytest.raises(ValueError, match=r"."):
        File.model_validate(value)
