"""Conditions of the engine's own trigger types: only an explicit `false` blocks, and what fails is told."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest

from iii.engine.routing.events import Notice
from tests.support.harness import Client, Engine

BIND = {"type": "registertrigger", "trigger_type": "engine::workers-available", "function_id": "ears::hear"}


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine() as running:
        yield running


@pytest.fixture
def ears(engine: Engine) -> Iterator[Client]:
    with engine.client() as client:
        client.register("ears::hear", "ears::ask")
        client.say_who("ears")
        client.sync()
        yield client


def bind(ears: Client, condition: Any = "ears::ask") -> None:
    ears.send({**BIND, "id": "b", "config": {"condition_function_id": condition}, "metadata": {"m": 1}})
    ears.sync()


def asked(ears: Client, engine: Engine) -> dict[str, Any]:
    """Let a worker come; return the call of the condition."""
    with engine.client() as other:
        other.say_who("other")
        other.sync()
        return ears.expect("invokefunction", function_id="ears::ask")


def answer(ears: Client, call: dict[str, Any], **fields: Any) -> None:
    id = call["invocation_id"]
    ears.send({"type": "invocationresult", "invocation_id": id, "function_id": "ears::ask", **fields})
    ears.sync()


def heard(ears: Client) -> list[Any]:
    ears.sync()  # what the engine does at the end of the turn that has answered before comes ahead of this answer
    return [message for message in ears.seen if message.get("function_id") == "ears::hear"]


@pytest.mark.parametrize("fields", [{"result": None}, {}, {"result": 0}, {"result": ""}, {"result": {"a": 1}}])
def test_anything_but_false_lets_the_event_through(engine: Engine, ears: Client, fields: dict[str, Any]) -> None:
    bind(ears)
    call = asked(ears, engine)
    assert call["metadata"] == {"m": 1}
    assert call["data"]["event"].startswith("worker_")
    answer(ears, call, **fields)
    fired = ears.expect("invokefunction", function_id="ears::hear")
    assert (fired["data"], fired["metadata"]) == (call["data"], {"m": 1})


def test_false_blocks(engine: Engine, ears: Client) -> None:
    bind(ears)
    answer(ears, asked(ears, engine), result=False)
    assert heard(ears) == []


def test_a_condition_that_fails_blocks_and_is_told(engine: Engine, ears: Client) -> None:
    bind(ears)
    answer(ears, asked(ears, engine), error={"code": "broken", "message": "no idea"})
    assert heard(ears) == []
    (notice,) = [event for event in engine.events if isinstance(event, Notice)]
    assert "ears::hear was not called: its condition failed: broken: no idea" in notice.text


def test_a_condition_that_is_not_there_blocks_and_is_told(engine: Engine, ears: Client) -> None:
    bind(ears, "ears::nothing")
    with engine.client() as other:
        other.say_who("other")
        other.sync()
    engine.until(lambda: any("its condition failed" in getattr(event, "text", "") for event in engine.events))
    ears.sync()
    assert heard(ears) == []


def test_what_was_unbound_while_its_condition_ran_is_not_called(engine: Engine, ears: Client) -> None:
    bind(ears)
    call = asked(ears, engine)
    ears.send({"type": "unregistertrigger", "id": "b"})
    answer(ears, call, result=True)
    assert heard(ears) == []
    engine.until(lambda: not engine.builtins._bindings)


def test_a_condition_that_is_no_id_is_refused(ears: Client) -> None:
    bind(ears, 5)
    error = ears.expect("triggerregistrationresult", id="b")["error"]
    assert error["code"] == "trigger_registration_failed"
    assert "condition_function_id must be the id of a function, got 5" in error["message"]
