"""The bridge's decisions: its configuration, and what becomes of calls and their errors."""

from __future__ import annotations

from typing import Any

import pytest

from iii import InvocationError
from stdlib_workers.bridge.functions import RemoteEngine, expose_handler, forward_handler, invoke, invoke_async
from stdlib_workers.bridge.options import BridgedFunction, options_from, worker_options
from stdlib_workers.values import OptionError
from tests.support.stand_ins import Callee

URL = "ws://10.0.0.2:49134"


class Connected(Callee):
    """The other engine, as the worker that is connected to it."""

    state = "connected"

    def get_connection_state(self) -> str:
        return self.state


def remote_with(worker: Connected | None) -> RemoteEngine:
    remote = RemoteEngine(URL)
    if worker is not None:
        remote.connected.set_result(worker)
    return remote


def test_all_options_are_read() -> None:
    options = options_from(
        {
            "url": URL,
            "token": "t",
            "name": "shop",
            "namespace": "n",
            "expose": [{"local_function": "a::f"}, {"local_function": "a::g", "remote_function": "shop::g"}],
            "forward": [
                {"local_function": "b::f", "remote_function": "f"},
                {"local_function": "b::g", "remote_function": "g", "timeout_ms": 5},
            ],
        }
    )
    assert options.expose == (BridgedFunction("a::f", "a::f"), BridgedFunction("a::g", "shop::g"))
    assert options.forward == (BridgedFunction("b::f", "f", 30_000), BridgedFunction("b::g", "g", 5))
    identity = worker_options(options)
    assert (identity.worker_name, identity.namespace) == ("shop", "n")
    assert identity.headers == {"Authorization": "Bearer t"}


def test_by_default_it_has_the_contracts_name_and_the_default_namespace() -> None:
    identity = worker_options(options_from({"url": URL}))
    assert (identity.worker_name, identity.namespace, identity.headers) == ("iii-bridge-client", "default", None)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({}, "url is missing: it must be the other engine's ws://host:port"),
        ({"url": "http://x"}, "ws://host:port"),
        ({"url": 7}, "must be the other engine"),
        ({"url": "ws://127.0.0.1:1/"}, "is this engine itself"),
        ({"url": URL, "service_id": "x"}, "unknown key `service_id`"),
        ({"url": URL, "expose": "a::f"}, "must be a list of tables"),
        ({"url": URL, "expose": ["a::f"]}, "expose\\[0\\] must be a table"),
        ({"url": URL, "expose": [{}]}, "local_function is missing"),
        ({"url": URL, "expose": [{"local_function": "a", "timeout_ms": 1}]}, "unknown key `timeout_ms`"),
        ({"url": URL, "forward": [{"local_function": "a"}]}, "remote_function is missing"),
        (
            {"url": URL, "forward": [{"local_function": "a", "remote_function": "b", "timeout_ms": 0}]},
            "timeout_ms must be a whole number from 1",
        ),
        ({"url": URL, "forward": [{"local_function": "a", "remote_function": r} for r in "xy"]}, "two functions are"),
        ({"url": URL, "expose": [{"local_function": n, "remote_function": "x"} for n in "ab"]}, "exposed as x"),
        (
            {
                "url": URL,
                "forward": [{"local_function": "a", "remote_function": "b"}],
                "expose": [{"local_function": "a", "remote_function": "c"}],
            },
            "would make a circle",
        ),
    ],
)
def test_a_wrong_option_is_an_error_that_says_what_to_do(config: dict[str, Any], message: str) -> None:
    with pytest.raises(OptionError, match=message):
        options_from(config, ("ws://127.0.0.1:1",))


async def test_a_forwarded_call_takes_payload_metadata_and_time_and_keeps_a_null() -> None:
    worker = Connected(far__f=lambda _: None)
    forward = forward_handler(BridgedFunction("near::f", "far::f", 7), remote_with(worker))
    assert await forward([1], {"m": 1}) is None
    assert worker.requests == [{"function_id": "far::f", "payload": [1], "metadata": {"m": 1}, "timeout_ms": 7}]


async def test_an_exposed_call_takes_payload_and_metadata_and_a_missing_result_is_a_null() -> None:
    local = Callee(near__f=lambda _: None)
    expose = expose_handler(BridgedFunction("near::f", "shop::f"), local)
    assert await expose({"n": 1}, {"m": 1}) is None
    assert await expose(None, None) is None
    first, second = local.requests
    assert first == {"function_id": "near::f", "payload": {"n": 1}, "metadata": {"m": 1}, "timeout_ms": 30_000}
    assert second == {"function_id": "near::f", "payload": None, "timeout_ms": 30_000}


async def test_errors_of_functions_keep_their_code_both_ways() -> None:
    def fail(_: Any) -> Any:
        raise InvocationError("mine", "text", details={"a": 1})

    for handler in (
        forward_handler(BridgedFunction("x", "f::f"), remote_with(Connected(f__f=fail))),
        expose_handler(BridgedFunction("f::f", "x"), Callee(f__f=fail)),
    ):
        with pytest.raises(InvocationError) as caught:
            await handler({}, None)
        assert (caught.value.code, caught.value.message, caught.value.details) == ("mine", "text", {"a": 1})


async def test_invoke_returns_the_result_and_wraps_whatever_goes_wrong() -> None:
    worker = Connected(far__f=lambda data: data)
    remote = remote_with(worker)
    assert await invoke(remote, {"function_id": "far::f", "data": 3}) == 3
    assert await invoke(remote, {"function_id": "far::f"}) is None
    assert await invoke(remote, {"function_id": "far::f", "data": {}, "timeout_ms": 5}) == {}
    assert worker.requests == [
        {"function_id": "far::f", "payload": 3, "timeout_ms": 30_000},
        {"function_id": "far::f", "payload": None, "timeout_ms": 30_000},
        {"function_id": "far::f", "payload": {}, "timeout_ms": 5},
    ]
    with pytest.raises(InvocationError) as caught:
        await invoke(remote, {"function_id": "no::such"})
    assert caught.value.code == "bridge_error"
    assert caught.value.message.startswith("function_not_found: ")
    assert caught.value.details["code"] == "function_not_found"


@pytest.mark.parametrize("payload", [None, {}, {"function_id": 3}, {"function_id": "f", "timeout_ms": "1"}])
async def test_a_payload_that_does_not_fit_is_refused(payload: Any) -> None:
    for function in (invoke, invoke_async):
        with pytest.raises(InvocationError) as caught:
            await function(remote_with(Connected()), payload)
        assert caught.value.code == "deserialization_error"


async def test_invoke_async_is_a_void_call() -> None:
    worker = Connected(far__f=lambda _: 1)
    assert await invoke_async(remote_with(worker), {"function_id": "far::f", "data": 1}) is None
    (request,) = worker.requests
    assert request["action"].type == "void"
    assert "timeout_ms" not in request


async def test_without_a_connection_a_call_waits_for_one_until_its_time_is_up() -> None:
    for worker in (None, Connected(f=timed_out)):
        if worker is not None:
            worker.state = "reconnecting"
        with pytest.raises(InvocationError, match=f"f: no engine answered at {URL} for 10 ms") as caught:
            await forward_handler(BridgedFunction("x", "f", 10), remote_with(worker))({}, None)
        assert caught.value.code == "bridge_error"


async def test_a_function_that_is_too_slow_is_not_blamed_on_the_connection() -> None:
    with pytest.raises(InvocationError) as caught:
        await forward_handler(BridgedFunction("x", "f", 10), remote_with(Connected(f=timed_out)))({}, None)
    assert caught.value.code == "TIMEOUT"


def timed_out(_: Any) -> Any:
    raise InvocationError("TIMEOUT", "too slow")
