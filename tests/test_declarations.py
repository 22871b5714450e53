"""Declarations beside the code: every schema stands by itself."""

from __future__ import annotations

import json
from pathlib import Path

from iii.arguments import CONFIG_PROPERTIES
from iii.declarations import load_declarations


def test_a_schema_has_the_definitions_that_it_refers_to_and_no_others(tmp_path: Path) -> None:
    definitions = {name: {"type": "string", "description": name} for name in ("row", "other")}
    rows = {"type": "array", "items": {"$ref": "#/$defs/row"}}
    content = {
        "$defs": definitions,
        "functions": {"a::f": {"request_format": {"type": "object"}, "response_format": rows}},
        "trigger_types": {
            "bell": {
                "description": "It rings.",
                "trigger_request_format": {"properties": {"loud": {}}},
                "call_request_format": rows,
            },
            "tune": {"trigger_request_format": {"properties": {"loud": {}}}},
        },
    }
    (tmp_path / "declarations.json").write_text(json.dumps(content))
    declared = load_declarations(tmp_path)
    whole = {**rows, "$defs": {"row": definitions["row"]}}
    assert declared.functions == {"a::f": {"request_format": {"type": "object"}, "response_format": whole}}
    bell, tune = declared.trigger_types["bell"], declared.trigger_types["tune"]
    assert (bell["id"], bell["description"], bell["call_request_format"]) == ("bell", "It rings.", whole)
    # What has an event can make arguments of it.
    assert bell["trigger_request_format"]["properties"].keys() == {"loud", *CONFIG_PROPERTIES}
    assert tune["trigger_request_format"]["properties"].keys() == {"loud"}
