"""What is recorded of a request: its line in the log, and its span with OpenTelemetry's names for HTTP servers."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from iii import InvocationError
from stdlib_workers.http.access import AccessLog
from tests.support.asgi_client import Site

TRACE_ID, PARENT = "ab" * 16, "cd" * 8


def recorded(line: str, function: Any = lambda _: {}, traceparent: str = "") -> tuple[list[dict[str, Any]], Site]:
    """Ask once; return the spans that were sent, and the site that was asked."""
    spans: list[dict[str, Any]] = []

    async def ask() -> Site:
        made = Site({"f::f": function})
        made.bind("GET /users/:id")
        log = AccessLog(is_on=False, record_spans=spans.extend)
        made.application._log = log
        await made.ask_async(line, b"", [(b"traceparent", traceparent.encode())] if traceparent else [])
        log.flush()
        return made

    return spans, asyncio.run(ask())


def fail(_: Any) -> Any:
    raise InvocationError("my_code", "mine")


@pytest.mark.parametrize(
    ("line", "function", "name", "route", "status", "outcome"),
    [
        ("GET /users/7?token=secret", lambda _: {}, "GET /users/{id}", "/users/{id}", 200, "unset"),
        ("GET /users/7", lambda _: {"status_code": 404}, "GET /users/{id}", "/users/{id}", 404, "unset"),
        ("GET /users/7", lambda _: {"status_code": 503}, "GET /users/{id}", "/users/{id}", 503, "error"),
        ("GET /users/7", fail, "GET /users/{id}", "/users/{id}", 500, "error"),
        ("GET /nowhere", lambda _: {}, "GET", None, 404, "unset"),
        ("POST /users/7", lambda _: {}, "POST", None, 405, "unset"),
    ],
)
def test_a_span_says_method_route_and_status(
    line: str, function: Any, name: str, route: str | None, status: int, outcome: str
) -> None:
    ((span,), _) = recorded(line, function)
    attributes = span["attributes"]
    assert (span["name"], span["status"], attributes.get("http.route")) == (name, outcome, route)
    assert attributes["span.kind"] == "server"
    assert attributes["http.request.method"] == line.split(" ", maxsplit=1)[0]
    assert attributes["http.response.status_code"] == status
    assert attributes["url.path"] == line.split(" ")[1].split("?", maxsplit=1)[0]
    assert ("error.type" in attributes) == (outcome == "error")
    assert "secret" not in str(span)
    assert 0 <= span["end_time_unix_nano"] - span["start_time_unix_nano"] < 10**10


def test_the_calls_of_a_request_are_children_of_its_span() -> None:
    (span,), made = recorded("GET /users/7", traceparent=f"00-{TRACE_ID}-{PARENT}-01")
    assert (span["trace_id"], span["parent_span_id"], span["flags"]) == (TRACE_ID, PARENT, 1)
    assert made.calls[0]["trace"]["traceparent"] == f"00-{TRACE_ID}-{span['span_id']}-01"
    (span,), made = recorded("GET /users/7")
    assert (span["parent_span_id"], span["flags"]) == (None, 2)
    assert made.calls[0]["trace"]["traceparent"] == f"00-{span['trace_id']}-{span['span_id']}-02"


def test_a_trace_that_somebody_decided_not_to_record_is_not_sent() -> None:
    assert recorded("GET /users/7", traceparent=f"00-{TRACE_ID}-{PARENT}-00")[0] == []
