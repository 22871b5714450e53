"""What a worker logs is one JSON object a line, with the invocation it belongs to."""

from __future__ import annotations

import io
import json

import pytest

from iii import Logger
from iii.worker.context.invocation import CURRENT, InvocationContext


@pytest.mark.parametrize("level", ["debug", "info", "warn", "error"])
def test_a_log_line_is_one_json_object(level):
    stream = io.StringIO()
    getattr(Logger(service_name="shop", stream=stream), level)("two\nlines", {"n": {1}, "o": print})
    (line,) = stream.getvalue().splitlines()
    record = json.loads(line)
    assert (record["level"], record["message"], record["service"]) == (level, "two\nlines", "shop")
    assert record["data"]["n"] == [1]
    assert "time" in record
    assert "trace_id" not in record


def test_a_log_line_names_its_invocation():
    stream = io.StringIO()
    trace = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}
    token = CURRENT.set(InvocationContext({"function_id": "m::f", "invocation_id": "i1", **trace}))
    try:
        Logger(stream=stream).info("hi")
    finally:
        CURRENT.reset(token)
    record = json.loads(stream.getvalue())
    assert (record["function_id"], record["invocation_id"]) == ("m::f", "i1")
    assert record["trace_id"] == "4bf92f3577b34da6a3ce929d0e0e4736"
