"""The config of the http worker: what is accepted, and what each refusal says."""

from __future__ import annotations

from typing import Any

import pytest

from stdlib_workers.http.options import DEFAULT_PORT, Options, parse_options


@pytest.mark.parametrize(
    ("config", "field", "value"),
    [
        ({}, "port", None),
        ({"port": 0}, "port", 0),
        ({"default_timeout": 1500}, "timeout", 1.5),
        ({"default_timeout": "2m"}, "timeout", 120.0),
        ({"concurrency_request_limit": 0}, "concurrency", 1),
        ({"max_body": "2MiB"}, "max_body", 2 << 20),
        ({"max_body": 10}, "max_body", 10),
        (
            {"cors": {"allowed_origins": ["http://a"], "allowed_methods": ["get"]}},
            "origins",
            ("http://a",),
        ),
        ({"cors": {"allowed_methods": ["get", "*"]}}, "methods", ("GET",)),
        ({"cors": {}}, "origins", ("*",)),
        (
            {"middleware": [{"function_id": "a::b", "priority": 1}, {"function_id": "c::d"}]},
            "middleware",
            ("c::d", "a::b"),
        ),
        ({"static": "public"}, "static", (("/", "public"),)),
        ({"static": {"/": "a", "assets/": "b"}}, "static", (("/assets", "b"), ("/", "a"))),
    ],
)
def test_values_are_read(config: dict[str, Any], field: str, value: Any) -> None:
    assert getattr(parse_options(config), field) == value


def test_nothing_is_the_defaults() -> None:
    found = parse_options({})
    assert found == Options()
    assert (found.host, found.port, DEFAULT_PORT, found.timeout) == ("127.0.0.1", None, 3111, 30.0)
    assert (found.concurrency, found.max_body, found.origins, found.middleware) == (1024, 10 << 20, (), ())


def test_middleware_of_one_priority_keeps_its_order() -> None:
    rows = [{"function_id": name, "priority": priority} for name, priority in (("b", 0), ("c", 1), ("a", 0))]
    assert parse_options({"middleware": [*rows, {"function_id": "d", "priority": -1}]}).middleware == (*"dbac",)


@pytest.mark.parametrize(
    ("config", "message"),
    [
        ({"prot": 1}, "unknown key `prot`; did you mean `port`"),
        ({"port": "80"}, "port must be a whole number from 0 to 65535, got"),
        ({"port": 70000}, "port must be a whole number"),
        ({"host": ""}, "host must be a string that is not blank"),
        ({"default_timeout": "soon"}, "default_timeout must be a time"),
        ({"default_timeout": 0}, "default_timeout must be a time"),
        ({"max_body": "many"}, "max_body must be a size"),
        ({"max_body": True}, "max_body must be a size"),
        ({"hosts": "a"}, "hosts must be a list"),
        ({"cors": {"origins": []}}, "cors: unknown key `origins`; did you mean `allowed_origins`"),
        ({"middleware": [{"id": "a"}]}, r"middleware.0: unknown key `id`"),
        ({"middleware": [{"function_id": "a", "phase": "after"}]}, r'middleware.0: phase must be "preHandler"'),
        ({"middleware": {}}, "middleware must be a list"),
        ({"static": 1}, "static must be a folder"),
        ({"openapi": "yes"}, "openapi must be true or false"),
    ],
)
def test_a_wrong_value_is_refused_by_name(config: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_options(config)


def test_under_its_public_name_every_route_has_channels_as_there():
    assert parse_options({}, "iii-http").channels
    assert not parse_options({"channels": False}, "iii-http").channels
    assert not parse_options({}, "http").channels
