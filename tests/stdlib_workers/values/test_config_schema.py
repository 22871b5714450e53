"""The schemas of the workers' configurations: valid, complete, the parsers take what they allow, and editors agree."""

from __future__ import annotations

import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import jsonschema
import pytest
from hypothesis import given
from hypothesis import strategies as st

from iii.config_schema import load_schema, mistakes
from stdlib_workers.bridge.options import options_from as bridge
from stdlib_workers.configuration.__main__ import options_from as configuration
from stdlib_workers.console.options import options_from as console
from stdlib_workers.cron.__main__ import store_in_memory as cron
from stdlib_workers.flow.options import options_from as flow
from stdlib_workers.http.options import parse_options as http
from stdlib_workers.mcp.options import options_from as mcp
from stdlib_workers.observability.config.options import options_from as observability
from stdlib_workers.pubsub.options import check_options as pubsub
from stdlib_workers.queue.options import options_from as queue
from stdlib_workers.state.__main__ import options_from as state
from stdlib_workers.stream.options import options_from as stream
from stdlib_workers.values import OptionError, check_config

WORKERS = Path(__file__).resolve().parents[3] / "stdlib_workers"
PARSERS: dict[str, Callable[[Any], object]] = {
    "bridge": bridge,
    "configuration": configuration,
    "console": console,
    "cron": cron,
    "flow": flow,
    "http": http,
    "http_functions": lambda config: check_config("http_functions", config),
    "mcp": mcp,
    "observability": lambda config: observability(config, {}),
    "pubsub": pubsub,
    "queue": queue,
    "state": state,
    "stream": stream,
}
STRINGS = {
    r"\S": "x",
    "^wss?://": "ws://10.0.0.2:1",
    "^https?://": "http://x",
    "^[!-~]{32,256}$": "k" * 32,
}


def schema_of(worker: str) -> dict[str, Any]:
    found = load_schema(WORKERS, worker)
    assert found is not None
    return found


def example(schema: dict[str, Any]) -> Any:
    """Return a value with every key that a schema knows."""
    if "default" in schema and not (isinstance(schema["default"], list) and not schema["default"]):
        return schema["default"]
    if "anyOf" in schema:
        return example(schema["anyOf"][-1])
    if "enum" in schema:
        return schema["enum"][0]
    make: dict[str | None, Callable[[], Any]] = {
        "object": lambda: table(schema),
        "array": lambda: [example(schema["items"])],
        "string": lambda: STRINGS.get(schema.get("pattern", r"\S"), "x"),
        "boolean": lambda: True,
    }
    return make.get(schema.get("type"), lambda: schema.get("minimum", 1))()


def table(schema: dict[str, Any]) -> dict[str, Any]:
    """Return a table with every key that a schema knows together, and one of those that it lets the user name."""
    others = schema.get("additionalProperties")
    named = {"mail": example(others)} if isinstance(others, dict) else {}
    whole = named | {name: example(part) for name, part in schema.get("properties", {}).items()}
    for rule in schema.get("x-exclusive", ()):
        if whole.get(rule["key"]) == rule.get("value", whole.get(rule["key"])):
            whole = {name: value for name, value in whole.items() if name not in rule["with"]}
    return whole


def keys_of(schema: dict[str, Any]) -> set[str]:
    """Return every name in a schema, at any depth."""
    inside = [schema.get("items"), schema.get("additionalProperties"), *schema.get("anyOf", ())]
    found = set(schema.get("properties", {}))
    for part in (*schema.get("properties", {}).values(), *inside):
        if isinstance(part, dict):
            found |= keys_of(part)
    return found


def test_every_worker_with_a_config_ships_its_schema() -> None:
    assert {path.parent.name for path in WORKERS.glob("*/config.schema.json")} == set(PARSERS)
    assert load_schema(WORKERS, "no_such_worker") is None


@pytest.mark.parametrize("worker", PARSERS)
def test_a_schema_is_valid_and_explains_every_key(worker: str) -> None:
    schema = schema_of(worker)
    jsonschema.Draft202012Validator.check_schema(schema)

    def explained(part: dict[str, Any]) -> None:
        for name, inside in part.get("properties", {}).items():
            assert inside.get("description"), name
            assert "default" not in inside or not list(mistakes(inside["default"], inside)), name
            explained(inside)

    explained(schema)


@pytest.mark.parametrize("worker", PARSERS)
def test_the_parser_takes_what_the_schema_allows(worker: str) -> None:
    config = example(schema_of(worker))
    if worker == "bridge":
        config["forward"][0]["local_function"] = "y"  # one function cannot go both ways
    if worker == "configuration":  # what one adapter takes means nothing to another
        del config["adapter"]["config"]["url"], config["adapter"]["config"]["token"]
    assert list(map(str, mistakes(config, schema_of(worker)))) == []
    PARSERS[worker](config)
    PARSERS[worker]({"url": "ws://10.0.0.2:1"} if worker == "bridge" else {})


@pytest.mark.parametrize("worker", PARSERS)
def test_the_parser_refuses_every_wrong_key_with_the_nearest_name(worker: str) -> None:
    for name in schema_of(worker)["properties"]:
        with pytest.raises(OptionError, match=re.escape(f"{worker}: unknown key `{name}x`; did you mean `")):
            PARSERS[worker]({"url": "ws://10.0.0.2:1", f"{name}x": 1} if worker == "bridge" else {f"{name}x": 1})


LEAVES = st.one_of(
    st.booleans(),
    st.integers(-2, 70_000),
    st.floats(0.1, 0.9),
    st.sampled_from(
        ["", " ", "x", "30s", "10MiB", "fifo", "file_based", "kv", "local", "builtin", "ws://x", "otlp", ">="]
    ),
)


@st.composite
def configs(draw: st.DrawFn, worker: str) -> Any:
    """Return values that look like a config, made of the schema's own names."""
    names = st.sampled_from(sorted(keys_of(schema_of(worker)) | {"mail", "wrong"}))
    values = st.recursive(
        LEAVES,
        lambda inner: st.one_of(st.lists(inner, max_size=2), st.dictionaries(names, inner, max_size=4)),
        max_leaves=8,
    )
    whole = example(schema_of(worker))
    for name in draw(st.lists(st.sampled_from(sorted(whole)), max_size=3, unique=True)):
        whole[name] = draw(values)
    return draw(st.one_of(st.just(whole), st.dictionaries(names, values, max_size=4)))


def without(schema: Any, keyword: str) -> Any:
    """Return a schema without one of its keywords, at any depth."""
    if isinstance(schema, dict):
        return {name: without(part, keyword) for name, part in schema.items() if name != keyword}
    return [without(part, keyword) for part in schema] if isinstance(schema, list) else schema


@pytest.mark.parametrize("worker", PARSERS)
def test_an_editor_finds_a_mistake_exactly_where_we_find_one(worker: str) -> None:
    schema = schema_of(worker)
    validator = jsonschema.Draft202012Validator(schema)
    comparable = without(schema, "x-same-field")  # JSON Schema cannot compare two values

    @given(configs(worker))
    def agree(config: Any) -> None:
        ours, theirs = list(map(str, mistakes(config, comparable))), validator.is_valid(config)
        assert (not ours) == theirs, (ours, json.dumps(config))

    agree()


@pytest.mark.parametrize(
    ("config", "said"),
    [
        ({"port": "3111"}, ['port must be a whole number from 0 to 65535, got "3111"']),
        (
            {"openapi": 1, "hosts": "a"},
            ["openapi must be true or false, got 1", "hosts must be a list of strings that"],
        ),
        ({"default_timeout": "soon"}, ['default_timeout must be a time such as "30s", or milliseconds, got "soon"']),
        ({"cors": {"origin": ["*"]}}, ["cors: unknown key `origin`"]),
        (
            {"middleware": [{"priority": 1}, 2]},
            ["function_id is missing: it must be", "middleware[1] must be a table, got 2"],
        ),
        ({"static": {"/a": 1}}, ['static must be a folder, or a table such as { "/assets" = "public" }, got a table']),
        (7, ["config must be a table, got 7"]),
    ],
)
def test_all_mistakes_are_said_in_words(config: Any, said: list[str]) -> None:
    with pytest.raises(OptionError) as caught:
        check_config("http", config)
    lines = str(caught.value).split("\n")
    assert len(lines) == len(said)
    for line, words in zip(lines, said, strict=True):
        assert words in line
