"""The config of a trigger as a route, and what a function may say on its response's channel. Pure."""

from __future__ import annotations

import asyncio
from threading import Event, Thread
from typing import Any

import pytest

from stdlib_workers.http.routes import Conflict, Route, Routes
from stdlib_workers.http.streaming import status_and_headers_from
from stdlib_workers.http.triggers import HttpTriggers, route_from
from tests.support.live_project import BOUND
from tests.support.stand_ins import binding


async def test_a_path_that_is_given_up_is_free_for_whoever_asks_next() -> None:
    """The engine is asked about a binding that has gone; the next one waits for the answer."""
    asked = asyncio.Event()
    routes = Routes()

    async def is_superseded() -> bool:
        await asked.wait()
        return False

    triggers = HttpTriggers(routes, is_superseded)
    first, second = (binding("f::f", {"api_path": "/a"}, id=id) for id in ("1", "2"))
    await triggers.register_trigger(first)
    with pytest.raises(Conflict, match=r"trigger 2.*trigger 1"):
        await triggers.register_trigger(second)
    going, coming = (
        asyncio.ensure_future(work) for work in (triggers.unregister_trigger(first), triggers.register_trigger(second))
    )
    await asyncio.sleep(0)
    asked.set()
    await asyncio.gather(going, coming)
    assert [found.id for found in routes] == ["2"]


async def test_a_route_stays_when_a_successor_has_got_its_binding() -> None:
    routes = Routes()

    async def is_superseded() -> bool:
        return True

    triggers = HttpTriggers(routes, is_superseded)
    await triggers.register_trigger(binding("f::f", {"api_path": "/a"}, id="1"))
    await triggers.unregister_trigger(binding("f::f", {"api_path": "/a"}, id="1"))
    assert len(routes) == 1


async def test_a_burst_of_routes_is_there_when_it_has_been_waited_for() -> None:
    routes = Routes()

    async def is_superseded() -> bool:
        return False

    triggers = HttpTriggers(routes, is_superseded)
    paths = ["/a", *(f"/{number}" for number in range(300)), "/a"]
    bindings = [binding("f::f", {"api_path": path}, id=str(number)) for number, path in enumerate(paths)]
    waiting = asyncio.ensure_future(asyncio.to_thread(triggers.wait_for, [each.id for each in bindings], BOUND))
    answers = await asyncio.gather(*map(triggers.register_trigger, bindings), return_exceptions=True)
    await waiting
    assert (set(answers[:-1]), type(answers[-1])) == ({None}, Conflict)
    assert [route.id for route in routes] == [each.id for each in bindings[:-1]]


def test_routes_are_found_while_another_thread_changes_the_table() -> None:
    routes = Routes()
    routes.add(Route("kept", "f::f", "GET", "/:x/kept"))
    has_ended = Event()

    def change() -> None:
        for number in range(20_000):
            routes.add(
                Route("n", "f::f", ("GET", "POST")[number % 2], ("/a/:y", "/a", "/a/kept/b", "/*rest")[number % 4])
            )
            routes.remove("n")
        has_ended.set()

    changing = Thread(target=change)
    changing.start()
    while not has_ended.is_set():
        assert isinstance(found := routes.find("GET", ["a", "kept"]), Route)
        assert found.id in ("kept", "n")
        assert len(list(routes)) in (1, 2)
    changing.join()
    assert len(routes) == 1


def route(**config: Any) -> Route:
    return route_from(binding("f::f", config))


def test_only_the_path_is_needed() -> None:
    found = route(api_path="a/:id", description="what nobody reads")
    assert (found.id, found.function_id, found.method, found.pattern) == ("t1", "f::f", "GET", "a/:id")
    assert (found.condition, found.middleware, found.streams, found.cancels) == (None, (), False, False)


def test_everything_of_the_config() -> None:
    found = route_from(
        binding(
            "f::f",
            {
                "api_path": "/a",
                "http_method": "pAtCh",
                "condition_function_id": "c::c",
                "middleware_function_ids": ["m::1", 5, None, "m::2"],
                "stream": True,
                "cancel": True,
            },
            metadata={"m": 1},
            namespace="n",
        )
    )
    assert (found.method, found.condition, found.middleware) == ("PATCH", "c::c", ("m::1", "m::2"))
    assert (found.streams, found.cancels, found.metadata, found.namespace) == (True, True, {"m": 1}, "n")


@pytest.mark.parametrize("method", ["GET", "post", "Put", "PATCH", "delete", "HEAD", "OPTIONS", "BREW"])
def test_methods_whatever_their_case(method: str) -> None:
    assert route(api_path="/a", http_method=method).method == method.upper()


@pytest.mark.parametrize(
    ("config", "named"),
    [
        (None, "api_path"),
        ({}, "api_path"),
        ({"api_path": 5}, "api_path"),
        ({"api_path": "/a//b"}, "api_path"),
        ({"api_path": "/a", "http_method": 5}, "http_method"),
        ({"api_path": "/a", "condition_function_id": 5}, "condition_function_id"),
        ({"api_path": "/a", "middleware_function_ids": "m::m"}, "middleware_function_ids"),
    ],
)
def test_a_config_that_cannot_be_bound_names_its_key(config: Any, named: str) -> None:
    with pytest.raises(ValueError, match=named):
        route_from(binding("f::f", config))


@pytest.mark.parametrize(
    ("control", "found"),
    [
        ({"type": "set_status", "status_code": 201}, (201, [])),
        ({"type": "set_status", "status_code": 599}, (599, [])),
        ({"type": "set_status", "status_code": 199}, (None, [])),
        ({"type": "set_status", "status_code": 600}, (None, [])),
        ({"type": "set_status", "status_code": "201"}, (None, [])),
        ({"type": "set_status"}, (None, [])),
        ({"type": "set_headers", "headers": {"a": "b", "c": 5, "d": None}}, (None, [(b"a", b"b"), (b"c", b"5")])),
        ({"type": "set_headers", "headers": {"a": ["b", "c"]}}, (None, [(b"a", b"b"), (b"a", b"c")])),
        ({"type": "set_headers", "headers": ["a: b"]}, (None, [])),
        ({"type": "set_trailers", "headers": {"a": "b"}}, (None, [])),
        ({"status_code": 201, "headers": {"a": "b"}}, (None, [])),
    ],
)
def test_a_control_message_sets_what_it_may(control: dict[str, Any], found: Any) -> None:
    assert status_and_headers_from(control) == found
