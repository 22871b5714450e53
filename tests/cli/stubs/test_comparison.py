"""Which changes of a contract break a call that was right before: rows of old schema, new schema and what is said."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings

from cli.stubs.comparison import RULES, changes_between, differences
from cli.stubs.contract import Function
from tests.support.json_schemas import CONTRACTS, SCHEMAS

ID = Function("shop::order", "default", "", None, None)


# Without shrinking: these schemas are short enough to read, and shrinking them takes minutes.
FEW = settings(max_examples=40, phases=[Phase.explicit, Phase.reuse, Phase.generate],
               suppress_health_check=list(HealthCheck))  # fmt: skip


def keys(*required: str, **properties: Any) -> dict[str, Any]:
    return {"type": "object", "properties": properties, "required": [*required], "additionalProperties": False}


TEXT, WHOLE, NUMBER = {"type": "string"}, {"type": "integer"}, {"type": "number"}
TREE = {"type": "object", "properties": {"next": {"$ref": "#"}, "v": TEXT}}

# old, new, what a payload's change is called (breaking first, each marked), the same of a result
ROWS = [
    (keys("a", a=TEXT), keys("a", "b", a=TEXT, b=TEXT), ["! needs `b` now"], ["always gives `b` now"]),
    (keys("a", a=TEXT), keys("a", a=TEXT, b=TEXT), ["takes `b` now"], ["gives `b` now"]),
    (keys("a", a=TEXT, b=TEXT), keys("a", a=TEXT), ["! takes `b` no more"], ["! gives `b` no more"]),
    (keys("a", a=TEXT), keys(a=TEXT), ["needs `a` no more"], ["! may leave `a` out now"]),
    (keys("a", a=TEXT), keys(), ["! takes `a` no more"], ["! gives `a` no more"]),
    (NUMBER, WHOLE, ["! the payload: integer now, was number"], ["the result: integer now, was number"]),
    (WHOLE, NUMBER, ["the payload: number now, was integer"], ["! the result: number now, was integer"]),
    (WHOLE, TEXT, ["! the payload: string now, was integer"], ["! the result: string now, was integer"]),
    (None, WHOLE, ["! the payload: integer now, was anything"], ["the result: integer now, was anything"]),
    (WHOLE, None, ["the payload: anything now, was integer"], ["! the result: anything now, was integer"]),
    ({"enum": ["a", "b"]}, {"enum": ["a"]}, ['! the payload takes "b" no more'], ['the result is never "b" now']),
    ({"enum": ["a"]}, {"enum": ["a", "b"]}, ['the payload takes "b" now'], ['! the result may be "b" now']),
    (TEXT, {"enum": ["a"]}, ['! the payload: "a" now, was string'], ['the result: "a" now, was string']),
    ({"const": 1}, NUMBER, ["the payload: number now, was 1"], ["! the result: number now, was 1"]),
    ({"type": ["string", "null"]}, TEXT, ["! the payload takes null no more"], ["the result is never null now"]),
    (TEXT, {"anyOf": [TEXT, {"type": "null"}]}, ["the payload takes null now"], ["! the result may be null now"]),
    (
        {**TEXT, "maxLength": 9}, {**TEXT, "maxLength": 5},
        ["! the payload: maxLength 5 now, was maxLength 9"], ["the result: maxLength 5 now, was maxLength 9"],
    ),
    (
        WHOLE, {**WHOLE, "minimum": 0},
        ["! the payload: minimum 0 now, was no minimum"], ["the result: minimum 0 now, was no minimum"],
    ),
    (
        {**TEXT, "pattern": "^a"}, {**TEXT, "pattern": "^b"},
        ['! the payload: pattern "^b" now, was pattern "^a"'], ['! the result: pattern "^b" now, was pattern "^a"'],
    ),
    (
        {"type": "array", "items": keys(a=TEXT)}, {"type": "array", "items": keys(a=WHOLE)},
        ["! `[].a`: integer now, was string"], ["! `[].a`: integer now, was string"],
    ),
    (
        {"type": "array", "items": [TEXT]}, {"type": "array", "prefixItems": [WHOLE]},
        ["! `[0]`: integer now, was string"], ["! `[0]`: integer now, was string"],
    ),
    (
        {"type": "object"}, keys(),
        ["! takes no other keys in the payload now"], ["gives no other keys in the result now"],
    ),
    (
        {"additionalProperties": NUMBER, "type": "object"}, {"additionalProperties": WHOLE, "type": "object"},
        ["! `*`: integer now, was number"], ["`*`: integer now, was number"],
    ),
    (
        {"anyOf": [keys(a=TEXT), WHOLE]}, {"anyOf": [keys(a=TEXT, b=TEXT), WHOLE]},
        ["takes `b` now"], ["gives `b` now"],
    ),
    (keys(a={"$ref": "#/$defs/X"}) | {"$defs": {"X": TEXT}}, keys(a=TEXT), ["is described in other words"],
     ["is described in other words"]),
    (TREE, {**TREE, "properties": {**TREE["properties"], "v": WHOLE}},  # type: ignore[dict-item]
     ["! `v`: integer now, was string"], ["! `v`: integer now, was string"]),
    ({**TEXT, "title": "A"}, {**TEXT, "title": "B"}, ["is described in other words"], ["is described in other words"]),
]  # fmt: skip


def said(old: Function, new: Function) -> list[str]:
    return [f"{'! ' if change.is_breaking else ''}{change.text}" for change in changes_between([old], [new])]


@pytest.mark.parametrize(("old", "new", "payload", "result"), ROWS)
def test_a_change_is_named_and_judged(old: Any, new: Any, payload: list[str], result: list[str]) -> None:
    assert said(replace(ID, request=old), replace(ID, request=new)) == payload
    assert said(replace(ID, response=old), replace(ID, response=new)) == result


def test_functions_come_and_go() -> None:
    other = replace(ID, id="shop::refund")
    changes = changes_between([ID], [other])
    assert [(change.function.id, change.is_breaking, change.text) for change in changes] == [
        ("shop::order", True, "is gone"),
        ("shop::refund", False, "is new"),
    ]
    assert changes_between([ID], [ID]) == []
    assert said(ID, replace(ID, description="x")) == ["is described in other words"]


def test_every_rule_is_used_by_a_row() -> None:
    used = {each.rule for old, new, _, _ in ROWS for each in (*differences(old, new), *differences(new, old))}
    assert used | {"unknown"} == RULES.keys()


def test_what_is_too_large_to_compare_is_taken_for_breaking() -> None:
    def many(kind: str) -> Any:
        one: Any = {"type": kind}
        for _ in range(12):
            one = {"anyOf": [{"type": "array", "items": one, "minItems": 1}, {"type": "array", "items": one}]}
        return one

    assert said(replace(ID, request=many("string")), replace(ID, request=many("integer"))) == [
        "! has changed in more places than can be compared"
    ]


@FEW
@given(SCHEMAS, SCHEMAS)
def test_any_two_schemas_can_be_compared(old: Any, new: Any) -> None:
    assert differences(old, old) == []
    differences(old, new)


@FEW
@given(CONTRACTS)
def test_a_contract_is_read_back_as_it_was_written(functions: list[Function]) -> None:
    from cli.stubs.contract import from_text, to_text

    assert from_text(to_text(functions), "functions.json") == functions
