"""Which functions are tools, under which names, and with which schemas: without a process."""

from __future__ import annotations

import json
import re
from typing import Any

import pytest

from stdlib_workers.mcp.cuts import cut, text_of
from stdlib_workers.mcp.introspection import failure_row
from stdlib_workers.mcp.options import Options, options_from
from stdlib_workers.mcp.tools import MAX_SCHEMA, chosen_functions, input_schema, payload_of
from stdlib_workers.values import OptionError


def row(function_id: str, description: str = "Do it.", namespace: str = "default", **metadata: Any) -> dict[str, Any]:
    return {
        "function_id": function_id,
        "namespace": namespace,
        "description": description,
        **({"metadata": metadata} if metadata else {}),
    }


def names(rows: list[dict[str, Any]], **config: Any) -> dict[str, str]:
    tools, _ = chosen_functions(rows, options_from(config))
    return {name: tool.function_id for name, tool in tools.items()}


@pytest.mark.parametrize(
    ("config", "metadata", "is_chosen"),
    [
        ({}, {}, False),
        ({}, {"mcp": True}, True),
        ({}, {"mcp": 1}, True),  # as Python compares; JSON has no other true
        ({}, {"mcp": "yes"}, False),
        ({"tools": ["orders::*"]}, {}, True),
        ({"tools": ["orders::*"]}, {"mcp": False}, False),
        ({"tools": ["orders::*"], "exclude": ["*::drop"]}, {"mcp": True}, False),
        ({"tools": ["order"]}, {}, False),
        ({"tools": ["Orders::*"]}, {}, False),
        ({"metadata": {}}, {"mcp": True}, False),
        ({"metadata": {"open": "agents", "stage": 2}}, {"open": "agents", "stage": 2, "other": 1}, True),
        ({"metadata": {"open": "agents", "stage": 2}}, {"open": "agents"}, False),
    ],
)
def test_the_tables_and_the_metadata_choose(config: dict[str, Any], metadata: dict[str, Any], is_chosen: bool) -> None:
    assert options_from(config).is_chosen("orders::drop", metadata) is is_chosen


@pytest.mark.parametrize("metadata", [None, [], "mcp", 7])
def test_metadata_of_any_kind_choose_nothing(metadata: Any) -> None:
    assert Options().is_chosen("a::b", metadata) is False


def test_only_functions_with_a_description_are_tools_and_the_others_are_named() -> None:
    rows = [row("a::b", mcp=True), row("a::c", "  ", mcp=True), row("a::d")]
    tools, without = chosen_functions(rows, Options())
    assert [tool.function_id for tool in tools.values()] == ["a::b"]
    assert without == ["a::c"]


def test_names_are_what_clients_take_and_differ_for_different_functions() -> None:
    ids = ["a::b", "a__b", "ä::ö", "x" * 70 + "1", "x" * 70 + "2", "iii_docs", "s::t"]
    rows = [*map(row, ids), row("s::t", namespace="other")]
    tools, _ = chosen_functions(rows, Options(tools=("*",)), taken=["iii_docs"])
    assert len(tools) == len(rows)
    assert "iii_docs" not in tools
    assert all(re.fullmatch(r"[A-Za-z0-9_-]{1,64}", name) for name in tools)
    assert tools.keys() == chosen_functions(rows[::-1], Options(tools=("*",)), taken=["iii_docs"])[0].keys()
    assert names([row("orders::find-all")], tools=["*"]) == {"orders__find-all": "orders::find-all"}


def test_objects_are_arguments_and_every_other_payload_is_one() -> None:
    plain = {"type": "object", "properties": {"a": {"type": "integer"}}}
    assert input_schema(plain) == plain
    nullable = input_schema({"type": ["object", "null"], "properties": {}})
    assert nullable is not None
    assert nullable["type"] == "object"
    assert payload_of(plain, {"a": 1}) == {"a": 1}
    numbers = {"type": "array", "items": {"$ref": "#/$defs/n"}, "$defs": {"n": {"type": "number"}}}
    assert input_schema(numbers) == {
        "$defs": {"n": {"type": "number"}},
        "type": "object",
        "properties": {"payload": {"type": "array", "items": {"$ref": "#/$defs/n"}}},
        "required": ["payload"],
    }
    assert payload_of(numbers, {"payload": [1]}) == [1]
    assert payload_of(numbers, {}) is None


@pytest.mark.parametrize("schema", [None, {}, True, "object"])
def test_a_function_without_a_schema_is_no_tool(schema: Any) -> None:
    assert input_schema(schema) is None


def test_a_schema_that_is_too_long_is_left_out_with_a_word() -> None:
    schema = input_schema({"type": "object", "description": "x" * MAX_SCHEMA})
    assert schema is not None
    assert "longer than" in schema["description"]
    assert len(json.dumps(schema)) < 200


@pytest.mark.parametrize("most", range(1, 12))
def test_a_cut_text_is_valid_and_says_so(most: int) -> None:
    text = "aé€😀z"
    kept, _, word = cut(text, most).partition("\n")
    assert text.startswith(kept)
    assert len(kept.encode()) <= most
    assert word == ("" if most >= 11 else f"[cut: 11 bytes, the limit is {most}]")


def test_results_are_json_but_for_texts_and_hold_what_utf8_cannot() -> None:
    assert text_of({"a": [1, None]}) == '{"a":[1,null]}'
    assert text_of("plain") == "plain"
    assert cut("\ud800", 100) == "?"


def test_a_wrong_config_is_refused_in_words() -> None:
    with pytest.raises(OptionError) as caught:
        options_from({"tool": ["a"], "key": "short", "host": "0.0.0.0", "resources": ["state"]})
    assert len(str(caught.value).splitlines()) == 4
    assert "tools" in str(caught.value)


def test_a_failed_span_without_its_details_is_still_a_row() -> None:
    span = {
        "attributes": [],
        "events": [],
        "name": "call a::b",
        "service_name": "a",
        "start_time_unix_nano": 1,
        "trace_id": "t",
    }
    row = {"function_id": "call a::b", "worker": "a", "start_time_unix_nano": 1, "trace_id": "t"}
    assert failure_row(span) == row
