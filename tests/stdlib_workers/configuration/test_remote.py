"""The adapter `bridge` without an engine: what fails, and who hears of an event in which order."""

from __future__ import annotations

from typing import Any

import pytest

from iii import InvocationError, TriggerConfig
from stdlib_workers.configuration import remote as module
from stdlib_workers.configuration.events import CHECKS, Subscription, subscription_from
from stdlib_workers.configuration.remote import Remote

URL = "ws://10.0.0.5:49134"
EVENT = {"id": "app", "event_type": "configuration:updated", "new_value": 1}


class Caller:
    """Answers, or raises, what was set for a function; remembers what was called."""

    def __init__(self, **answers: Any) -> None:
        self.answers = answers
        self.called: list[Any] = []

    async def trigger_async(self, request: Any, payload: Any = None) -> Any:
        self.called.append((request["function_id"], request["payload"]))
        answer = self.answers.get(request["function_id"].rpartition("::")[2])
        if isinstance(answer, InvocationError):
            raise answer
        return answer


def binding(function_id: str, metadata: Any = None, **config: Any) -> Subscription:
    return subscription_from(TriggerConfig("", function_id, config, metadata))


def connected(there: Caller, here: Caller | None = None, bindings: Any = ()) -> Remote:
    remote = Remote(URL, bindings, here or Caller())
    remote.connected.set_result(there)  # type: ignore[arg-type]
    return remote


async def failure(remote: Remote, name: str, payload: Any) -> InvocationError:
    with pytest.raises(InvocationError) as caught:
        await remote.handler(name)(payload)
    return caught.value


async def test_without_the_other_engine_a_call_fails_after_its_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "CALL_MS", 1)
    remote = Remote(URL, (), Caller())
    error = await failure(remote, "get", {"id": "app"})
    assert (error.code, URL in error.message) == ("ADAPTER_ERROR", True)
    # The connection is waited for by the next call, too.
    monkeypatch.setattr(module, "CALL_MS", 20_000)
    remote.connected.set_result(Caller(get={"id": "app", "value": 1}))  # type: ignore[arg-type]
    assert await remote.handler("get")({"id": "app"}) == {"id": "app", "value": 1}


async def test_errors_of_the_other_side_keep_their_code_and_one_without_the_worker_says_so() -> None:
    missing = InvocationError("function_not_found", "no such function")
    error = await failure(connected(Caller(get=missing)), "get", {"id": "app"})
    assert (error.code, "`iii add configuration` there" in error.message) == ("ADAPTER_ERROR", True)
    refused = InvocationError("SCHEMA_INVALID", "app: no")
    error = await failure(connected(Caller(set=refused)), "set", {"id": "app", "value": 1})
    assert (error.code, error.message) == ("SCHEMA_INVALID", "app: no")


async def test_an_owner_here_is_asked_first_unless_variables_are_to_be_filled_in_there() -> None:
    here = Caller(check={"refused": {"code": "TOO_HIGH", "message": "no"}})
    there = Caller(set={})
    owner = binding("own::check", CHECKS, configuration_id="app")
    remote = connected(there, here, [owner])
    assert (await failure(remote, "set", {"id": "app", "value": 9})).code == "TOO_HIGH"
    assert there.called == []
    assert await remote.handler("set")({"id": "app", "value": "${LIMIT}"}) == {}
    assert await remote.handler("set")({"id": "other", "value": 9}) == {}
    assert here.called == [("own::check", {"check": 9})]


@pytest.mark.parametrize("payload", [None, 5, {}, {"id": 5, "value": 1}, {"id": "app"}])
async def test_a_payload_of_the_wrong_form_is_refused_before_anybody_is_asked(payload: Any) -> None:
    there = Caller()
    owner = binding("own::check", CHECKS, configuration_id="app")
    assert (await failure(connected(there, Caller(), [owner]), "set", payload)).code == "deserialization_error"
    assert there.called == []


async def test_global_bindings_hear_first_and_one_that_fails_keeps_it_from_nobody() -> None:
    here = Caller(broken=InvocationError("function_not_found", "away"), no=False)
    bindings = [
        binding("a::own", configuration_id="app"),
        binding("a::other", configuration_id="other"),
        binding("a::broken"),
        binding("a::deleted", event_types=["configuration:deleted"]),
        binding("a::blocked", condition_function_id="a::no"),
        binding("a::last"),
    ]
    await connected(Caller(), here, bindings).on_event(EVENT)
    assert here.called == [(f"a::{name}", EVENT) for name in ("broken", "no", "last", "own")]
