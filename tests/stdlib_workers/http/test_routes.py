"""Paths and the routing table: what matches, what conflicts, and that its size does not matter."""

from __future__ import annotations

import sys
from collections.abc import Callable

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stdlib_workers.http.replies import Refusal
from stdlib_workers.http.routes import Conflict, Kind, Route, Routes, parse_pattern, split_path


def table(*routes: str) -> Routes:
    """A table of routes like `GET /users/:id`; each route's id is that text."""
    made = Routes()
    for text in routes:
        method, pattern = text.split(" ")
        made.add(Route(text, "f::" + text, method, pattern))
    return made


def found(routes: Routes, method: str, path: str) -> tuple[str, dict[str, str]] | set[str]:
    result = routes.find(method, split_path(path))
    return (result.id, result.params_in(split_path(path))) if isinstance(result, Route) else result


@pytest.mark.parametrize(
    ("pattern", "path", "params"),
    [
        ("/", "/", {}),
        ("users", "/users", {}),
        ("/users/:id", "/users/42", {"id": "42"}),
        ("/users/{id}/posts/{post}", "/users/1/posts/2", {"id": "1", "post": "2"}),
        ("/files/*rest", "/files/a/b/c.txt", {"rest": "a/b/c.txt"}),
        ("/files/{*path}", "/files/a", {"path": "a"}),
        ("/files/*", "/files/a/b", {"rest": "a/b"}),
        ("/users/:id", "/users/a%2Fb", {"id": "a/b"}),
        ("/users/:id", "/users/%C3%A9%20x", {"id": "é x"}),
        ("/caf%C3%A9", "/caf%25C3%25A9", {}),
    ],
)
def test_a_path_matches_and_its_parameters_arrive_decoded(pattern: str, path: str, params: dict[str, str]) -> None:
    assert found(table(f"GET {pattern}"), "GET", path) == (f"GET {pattern}", params)


@pytest.mark.parametrize(
    ("pattern", "path"),
    [
        ("/users/:id", "/users/"),
        ("/users/:id", "/users"),
        ("/users/:id", "/users/1/2"),
        ("/users", "/users/"),
        ("/users/", "/users"),
        ("/users", "//users"),
        ("/users/:id", "/users//1"),
        ("/Users", "/users"),
        ("/files/*rest", "/files/"),
        ("/files/*rest", "/files"),
    ],
)
def test_what_is_not_that_path_does_not_match(pattern: str, path: str) -> None:
    assert found(table(f"GET {pattern}"), "GET", path) == set()


@pytest.mark.parametrize(
    "path",
    [
        "/%00",
        "/a%0d%0ab",
        "/%c0%af",  # an overlong `/`
        "/%ff",
        "/%ed%a0%80",  # a surrogate
        "/%zz",
        "/%",
        "/a b",
        "/a\\b",
        "/é",
        "/..",
        "/a/../b",
        "/%2e%2E/b",
        "/a%2f..%2fb",
        "/./a",
    ],
)
def test_a_path_that_can_be_read_in_two_ways_is_refused(path: str) -> None:
    with pytest.raises(Refusal):
        split_path(path)


@pytest.mark.parametrize(
    "pattern", ["/a//b", "/a/*rest/b", "/:", "/{}", "/x:{id}", "/a*b", "/:a/:a", "/{a b}", "/../x", "/:1"]
)
def test_a_pattern_that_nothing_could_match_is_refused(pattern: str) -> None:
    with pytest.raises(ValueError, match="api_path"):
        parse_pattern(pattern)


def test_the_more_specific_route_wins_at_each_position() -> None:
    routes = table("GET /a/:x", "GET /a/b", "GET /*rest", "GET /a/:x/c", "GET /a/b/d")
    assert found(routes, "GET", "/a/b") == ("GET /a/b", {})
    assert found(routes, "GET", "/a/z") == ("GET /a/:x", {"x": "z"})
    assert found(routes, "GET", "/a/b/c") == ("GET /a/:x/c", {"x": "b"})
    assert found(routes, "GET", "/a/b/e") == ("GET /*rest", {"rest": "a/b/e"})


def test_another_method_leads_to_the_next_route_that_has_it() -> None:
    routes = table("GET /users/me", "POST /users/:id", "DELETE /users/:id")
    assert found(routes, "POST", "/users/me") == ("POST /users/:id", {"id": "me"})
    assert found(routes, "PUT", "/users/me") == {"GET", "POST", "DELETE"}
    assert found(routes, "GET", "/users/you") == {"POST", "DELETE"}


def test_get_answers_head_unless_a_route_asks_for_it() -> None:
    routes = table("GET /a/b", "HEAD /a/:x", "GET /c")
    assert found(routes, "HEAD", "/c") == ("GET /c", {})
    assert found(routes, "HEAD", "/a/b") == ("HEAD /a/:x", {"x": "b"})


def test_a_conflict_names_both_and_leaves_the_first() -> None:
    routes = table("GET /users/:id")
    with pytest.raises(Conflict, match=r"f::b.*trigger b.*conflicts with already-registered route.*GET /users/:id"):
        routes.add(Route("b", "f::b", "GET", "users/{name}"))
    assert found(routes, "GET", "/users/1") == ("GET /users/:id", {"id": "1"})
    routes.add(Route("c", "f::c", "POST", "/users/:name"))
    assert found(routes, "POST", "/users/1") == ("c", {"name": "1"})


def test_the_same_id_moves_its_route() -> None:
    routes = table("GET /a")
    routes.add(Route("GET /a", "f::new", "GET", "/b"))
    assert found(routes, "GET", "/a") == set()
    assert found(routes, "GET", "/b") == ("GET /a", {})


def test_a_refused_move_keeps_the_old_place() -> None:
    routes = table("GET /a", "GET /b")
    with pytest.raises(Conflict):
        routes.add(Route("GET /a", "f", "GET", "/b"))
    assert found(routes, "GET", "/a") == ("GET /a", {})


_PART = st.sampled_from(["a", "b", ":x", ":y", "c"])
_PATTERN = st.lists(_PART, min_size=1, max_size=3).map(lambda parts: "/" + "/".join(parts))


@given(st.lists(st.tuples(st.booleans(), _PATTERN, st.sampled_from(["GET", "POST"])), max_size=30))
def test_a_table_that_changes_is_the_table_made_anew(steps: list[tuple[bool, str, str]]) -> None:
    changed, standing = Routes(), dict[str, Route]()
    for is_added, pattern, method in steps:
        try:
            route = Route(f"{method} {pattern}", "f", method, pattern)
        except ValueError:
            continue
        if not is_added:
            assert changed.remove(route.id) == standing.pop(route.id, None)
            continue
        try:
            changed.add(route)
        except Conflict:
            assert route.id not in standing
        else:
            standing[route.id] = route
    fresh = Routes()
    for route in standing.values():
        fresh.add(route)
    assert _shape(changed) == _shape(fresh)


def _shape(routes: Routes) -> list[object]:
    paths = [f"/{a}{b}{c}" for a in "abcz" for b in ("", "/a", "/b", "/z") for c in ("", "/a", "/c", "/z")]
    return [len(routes), *(found(routes, method, path) for path in paths for method in ("GET", "POST"))]


@given(st.text())
def test_any_text_is_a_path_or_refused(text: str) -> None:
    try:
        parts = split_path("/" + text)
    except Refusal:
        return
    assert ".." not in "/".join(parts).split("/")
    assert Routes().find("GET", parts) == set()


@given(st.lists(st.text(alphabet="abc:{}*/.", max_size=6), max_size=4))
def test_any_pattern_is_parsed_or_refused(parts: list[str]) -> None:
    pattern = "/".join(parts)
    try:
        segments = parse_pattern(pattern)
    except ValueError:
        return
    assert sum(segment.kind is Kind.REST for segment in segments) <= 1


def test_ten_thousand_routes_cost_as_much_as_ten() -> None:
    small, large = steps_of(10), steps_of(10_000)
    assert large <= small * 1.2


def steps_of(count: int) -> int:
    """How many function calls it takes to find routes of each kind among `count` of each."""
    routes = table(*(f"GET /r{i}/{end}" for i in range(count) for end in ("a", ":x", "*rest")))
    paths = [split_path(f"/r{i}/{end}") for i in (0, count - 1) for end in ("a", "b", "b/c")]
    return calls_in(lambda: [routes.find("GET", path) for path in paths])


def calls_in(work: Callable[[], object]) -> int:
    calls = 0

    def count(*_: object) -> None:
        nonlocal calls
        calls += 1

    sys.setprofile(count)
    try:
        work()
    finally:
        sys.setprofile(None)
    return calls
