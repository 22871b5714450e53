"""The baggage of a call names its function, and keeps what else is in it."""

from __future__ import annotations

from typing import Any

import pytest

from iii.engine.tracing.trace_context import MAX_BAGGAGE, baggage_for
from tests.support.routing import Net


@pytest.mark.parametrize(
    ("before", "after"),
    [
        (None, "iii.function.id=a::b"),
        ("", "iii.function.id=a::b"),
        ("tenant=acme", "tenant=acme,iii.function.id=a::b"),
        ("iii.function.id=x::y", "iii.function.id=a::b"),
        ("k=1;p=2, iii.function.id = x::y ,z=%20", "k=1;p=2,z=%20,iii.function.id=a::b"),
        (",,", "iii.function.id=a::b"),
    ],
)
def test_the_entry_of_the_function_is_replaced_and_others_stay(before: str | None, after: str) -> None:
    assert baggage_for("a::b", before) == after


def test_an_id_that_would_break_the_list_is_encoded() -> None:
    assert baggage_for('a,b;c"é%', None) == "iii.function.id=a%2Cb%3Bc%22%C3%A9%25"


def test_baggage_that_is_full_is_left_as_it_is() -> None:
    full = "k=" + "x" * (MAX_BAGGAGE - 2)
    assert baggage_for("a::b", full) == full


TRACE = {"traceparent": "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"}


@pytest.mark.parametrize("more", [{}, {"namespace": "default"}])
@pytest.mark.parametrize(
    ("sent", "got"),
    [
        (TRACE, {**TRACE, "baggage": "iii.function.id=f"}),
        ({"baggage": "k=1"}, {"baggage": "k=1,iii.function.id=f"}),
        ({**TRACE, "baggage": "iii.function.id=g"}, {**TRACE, "baggage": "iii.function.id=f"}),
        ({}, {}),
    ],
)
def test_calls_with_a_trace_tell_their_callee(sent: dict[str, Any], got: dict[str, Any], more: dict[str, Any]) -> None:
    net = Net()
    worker = net.peer("worker")
    net.register(worker, "f")
    net.call(net.peer("caller"), "f", **sent, **more)
    call = net.one(worker)
    assert {key: call[key] for key in ("traceparent", "baggage") if key in call} == got


def test_an_enqueued_job_carries_the_id_of_its_function() -> None:
    net = Net()
    queue = net.peer("queue")
    net.register(queue, "engine::queue::enqueue")
    net.call(net.peer("caller"), "jobs::run", action={"type": "enqueue", "queue": "q"}, **TRACE)
    assert net.one(queue)["data"]["baggage"] == "iii.function.id=jobs::run"
