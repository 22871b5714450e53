"""Who may do what: the decision of the public contract, row by row."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iii.declarations import load_declarations
from iii.engine.security.rbac import (
    WITHOUT_AUTH_FUNCTION,
    AuthResult,
    Filter,
    Permissions,
    Rules,
    filter_of,
    is_reserved,
    matches,
)

EXPOSED = Rules(expose_functions=(Filter(match='match("api::*")'), Filter(match="shop::*", namespace="shop")))


@pytest.mark.parametrize(
    ("pattern", "text", "is_fit"),
    [
        ("api::*", "api::x", True),
        ("api::*", "api::", True),
        ("api::*", "xapi::x", False),
        ('match("*::read")', "a::b::read", True),
        ("a*c*e", "abcde", True),
        ("a*c*e", "abcd", False),
        ("a.c", "abc", False),
        ("a.c", "a.c", True),
        ("*", "any\nthing", True),
        ("", "", True),
    ],
)
def test_a_star_stands_for_any_run_and_everything_else_for_itself(pattern: str, text: str, is_fit: bool) -> None:
    assert matches(pattern, text) is is_fit


@pytest.mark.parametrize(
    ("auth", "namespace", "function_id", "may"),
    [
        (AuthResult(), "default", "api::x", True),
        (AuthResult(), "default", "db::x", False),
        (AuthResult(), "shop", "shop::x", True),
        (AuthResult(), "default", "shop::x", False),
        (AuthResult(), "default", "engine::workers::register", True),
        (AuthResult(), "other", "engine::workers::register", False),
        (AuthResult(), "default", "engine::workers::stop", False),
        (AuthResult(allowed_functions=["db::x"]), "default", "db::x", True),
        (AuthResult(allowed_functions=["db::x"]), "shop", "db::x", False),
        (AuthResult(allowed_functions=["db::*"]), "default", "db::x", False),
        (AuthResult(namespaces={"shop": ["db::*"]}), "shop", "db::x", True),
        (AuthResult(namespaces={"shop": ['match("db::*")']}), "shop", "db::x", True),
        (AuthResult(namespaces={"shop": ["db::*"]}), "default", "db::x", False),
        (AuthResult(forbidden_functions=["api::x"]), "default", "api::x", False),
        (AuthResult(forbidden_functions=["db::x"], allowed_functions=["db::x"]), "default", "db::x", False),
        (AuthResult(forbidden_functions=["db::x"], namespaces={"shop": ["*"]}), "shop", "db::x", False),
        (AuthResult(forbidden_functions=["engine::log::info"]), "default", "engine::log::info", False),
    ],
)
def test_s14_a_call_is_decided_by_the_table(auth: AuthResult, namespace: str, function_id: str, may: bool) -> None:
    assert Permissions(EXPOSED, auth).may_invoke(namespace, function_id, {}) is may


def test_without_rules_everything_is_allowed_but_what_is_forbidden() -> None:
    assert Permissions(None, WITHOUT_AUTH_FUNCTION).may_invoke("any", "any::thing", {})
    assert not Permissions(None, AuthResult(forbidden_functions=["a::b"])).may_invoke("default", "a::b", {})


@pytest.mark.parametrize(
    ("wanted", "metadata", "may"),
    [
        ({"public": True}, {"public": True}, True),
        ({"public": True}, {"public": 1}, False),
        ({"public": True}, {}, False),
        ({"public": True, "owner": 'match("team-*")'}, {"public": True, "owner": "team-a"}, True),
        ({"public": True, "owner": 'match("team-*")'}, {"public": True, "owner": "a"}, False),
        ({"owner": 'match("team-*")'}, {"owner": 7}, False),
        ({}, {"public": True}, False),
    ],
)
def test_functions_are_exposed_by_what_their_metadata_says(
    wanted: dict[str, Any], metadata: dict[str, Any], may: bool
) -> None:
    rules = Rules(expose_functions=(Filter(metadata=wanted),))
    assert Permissions(rules, AuthResult()).may_invoke("default", "any::id", metadata) is may


def test_s14_a_denial_is_the_same_whether_the_function_exists() -> None:
    session = Permissions(EXPOSED, AuthResult(forbidden_functions=["a::b"]))
    assert session.denial("x::y") == "function 'x::y' not allowed (add to rbac.expose_functions)"
    assert session.denial("a::b") == "function 'a::b' not allowed (remove from rbac.forbidden_functions)"


def test_what_may_be_registered_and_where() -> None:
    quiet = Permissions(EXPOSED, AuthResult())
    assert (quiet.may_register_functions, quiet.may_register_trigger_types, quiet.may_bind_to("cron")) == (
        True,
        False,
        True,
    )
    told = Permissions(
        EXPOSED,
        AuthResult(
            allow_function_registration=False,
            allow_trigger_type_registration=True,
            allowed_trigger_types=["cron"],
            namespaces={"b": [], "a": []},
        ),
    )
    assert (told.may_register_functions, told.may_register_trigger_types) == (False, True)
    assert told.may_bind_to("cron")
    assert not told.may_bind_to("http")
    assert told.namespace_denial("a") is None
    assert told.namespace_denial("c") == "namespace 'c' not allowed for this session (permitted: a, b)"
    assert quiet.namespace_denial("c") is None


def test_a_prefix_is_put_on_and_taken_off() -> None:
    session = Permissions(EXPOSED, AuthResult(function_registration_prefix="tenant"))
    assert session.registered_id("a::b") == "tenant::a::b"
    assert session.own_id("tenant::a::b") == "a::b"
    assert Permissions(EXPOSED, AuthResult()).registered_id("a::b") == "a::b"
    assert Permissions(EXPOSED, AuthResult()).own_id("a::b") == "a::b"


def test_entries_of_expose_functions_are_read() -> None:
    assert filter_of('match("api::*")') == Filter(match='match("api::*")')
    assert filter_of({"match": "a", "namespace": "n"}) == Filter("a", {}, "n")
    assert filter_of({"metadata": {"public": True}}) == Filter(None, {"public": True})


@pytest.mark.parametrize(
    "written",
    [7, {}, {"match": "a", "metadata": {}}, {"match": 1}, {"metadata": "x"}, {"match": "a", "extra": 1}],
)
def test_wrong_entries_are_errors(written: Any) -> None:
    with pytest.raises(ValueError, match=r"entry|strings"):
        filter_of(written)


@pytest.mark.parametrize(
    ("pattern", "text"),
    [
        ("*::public::*::read", "::public::" * 100_000),
        ("*a*a*a*a*a*a*a*a*b", "a" * 1_000_000),
        ("*" * 200 + "b", "a" * 1_000_000),
    ],
)
def test_a_pattern_takes_linear_time(pattern: str, text: str) -> None:
    """Where it went back and forth, these took minutes."""
    assert not matches(pattern, text)


@given(pattern=st.text("ab*", max_size=8), text=st.text("ab", max_size=12))
def test_a_pattern_matches_what_the_regular_expression_of_it_does(pattern: str, text: str) -> None:
    expression = ".*".join(map(re.escape, pattern.split("*")))
    assert matches(pattern, text) is (re.fullmatch(expression, text, re.DOTALL) is not None)


@pytest.mark.parametrize("pattern", ["a" * 257, "a\0", "a\n*", 'match("' + "a" * 257 + '")'])
def test_a_pattern_that_no_id_can_match_is_a_mistake(pattern: str) -> None:
    for entry in (pattern, {"match": pattern}, {"metadata": {"owner": pattern}}):
        with pytest.raises(ValueError, match="a pattern h"):
            filter_of(entry)


@pytest.mark.parametrize(
    ("granted", "trigger_type", "may"),
    [
        (None, "http", True),
        (None, "cron", True),
        (None, "a-projects-own", True),
        (None, "log", False),
        (None, "state", False),
        (None, "durable:subscriber", False),
        (None, "engine::functions-available", False),
        (["state"], "state", True),
        (["state"], "http", False),
        (["engine::functions-available"], "engine::functions-available", True),
        (["engine::telemetry"], "engine::telemetry", False),
        ([], "http", False),
    ],
)
def test_what_tells_about_the_project_has_to_be_granted_by_name(
    granted: list[str] | None, trigger_type: str, may: bool
) -> None:
    assert Permissions(EXPOSED, AuthResult(allowed_trigger_types=granted)).may_bind_to(trigger_type) is may


def test_without_an_auth_function_a_session_gets_no_more_than_with_an_empty_answer() -> None:
    permissions = Permissions(EXPOSED, WITHOUT_AUTH_FUNCTION)
    assert not permissions.may_register_trigger_types
    assert AuthResult() == WITHOUT_AUTH_FUNCTION


def test_the_names_of_every_standard_worker_are_reserved() -> None:
    folder = Path(__file__).parents[3] / "stdlib_workers"
    for worker in folder.glob("*/__main__.py"):
        assert is_reserved(f"{worker.parent.name}::anything"), worker.parent.name
    declared = [load_declarations(file.parent) for file in sorted(folder.glob("*/declarations.json"))]
    registered = [id for functions, trigger_types in declared for id in (*functions, *trigger_types)]
    assert {"publish", "cron", "durable:subscriber", "state", "stream", "subscribe", "log"} <= set(registered)
    assert [id for id in registered if not is_reserved(id)] == []
    assert not is_reserved("api::cron")
