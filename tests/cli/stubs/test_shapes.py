"""What schemas become: shapes as a typed language can say them, and names that are each one type."""

from __future__ import annotations

import dataclasses
from typing import Any

import pytest

from cli.stubs.contract import Function
from cli.stubs.python import RESERVED, text_of
from cli.stubs.shapes import ANY, NEVER, Array, Object, Ref, shapes_of
from cli.stubs.signatures import signatures_of
from cli.stubs.typescript import text_of as typescript_of
from iii.worker.functions.handler import describe

OPEN = {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]}


@pytest.mark.parametrize(
    ("schema", "python", "typescript"),
    [
        (True, "Any", "any"),
        ({}, "Any", "any"),
        (False, "Never", "never"),
        ({"type": "integer"}, "int", "number"),
        ({"type": ["string", "null"]}, "str | None", "string | null"),
        ({"enum": ["a", 1, True, None]}, 'Literal["a", 1, True, None]', '"a" | 1 | true | null'),
        ({"const": "x"}, 'Literal["x"]', '"x"'),
        ({"enum": [1.5, "a"]}, 'Literal["a"] | float', '"a" | number'),
        ({"type": "array", "items": {"type": "string"}}, "list[str]", "string[]"),
        ({"type": "array", "items": {"enum": ["a", "b"]}}, 'list[Literal["a", "b"]]', '("a" | "b")[]'),
        (
            {"type": "array", "prefixItems": [{"type": "number"}, {"type": "string"}], "minItems": 2, "maxItems": 2},
            "list[float | str]",
            "[number, string]",
        ),
        ({"prefixItems": [{"type": "number"}], "minItems": 1, "items": {"type": "null"}}, "list[float | None]",
         "[number, ...(null)[]]"),
        ({"type": "object"}, "dict[str, Any]", "{ [key: string]: any }"),
        ({"additionalProperties": {"type": "integer"}}, "dict[str, int]", "{ [key: string]: number }"),
        ({"anyOf": [{"type": "integer"}, {"type": "number"}]}, "float", "number"),
        ({"oneOf": [{"const": 1}, {"const": 2}]}, "Literal[1, 2]", "1 | 2"),
        ({"type": "string", "anyOf": [{"minLength": 1}, {"maxLength": 9}]}, "str", "string"),
        ({"allOf": [{"type": ["string", "null"]}, {"type": "string"}]}, "str", "string"),
        ({"allOf": [{"type": "number"}, {"type": "integer"}]}, "int", "number"),
        ({"$ref": "https://elsewhere.example/x"}, "Any", "any"),
        ({"$ref": "#/$defs/Missing"}, "Any", "any"),
    ],
)  # fmt: skip
def test_a_schema_as_a_type(schema: Any, python: str, typescript: str) -> None:
    root = shapes_of(schema, "Payload").root
    assert (text_of(root), typescript_of(root)) == (python, typescript)


def test_an_object_keeps_its_keys_their_texts_and_which_are_required() -> None:
    schema = {
        "title": "new order",
        "description": "What a customer asks for.",
        "properties": {
            "item": {"type": "string", "description": "Its name."},
            "count": {"type": "integer", "default": 1},
        },
        "required": ["item", "more"],
    }
    shapes = shapes_of(schema, "ShopPayload")
    order = shapes.resolved(shapes.root)
    assert shapes.root == Ref("NewOrder")
    assert isinstance(order, Object)
    assert order.description == "What a customer asks for."
    assert [(each.name, each.is_required, each.description, each.default) for each in order.fields] == [
        ("item", True, "Its name.", ""),
        ("count", False, "", "1"),
        ("more", True, "", ""),
    ]


def test_a_type_may_contain_itself() -> None:
    tree = {"type": "object", "properties": {"children": {"type": "array", "items": {"$ref": "#/$defs/Tree"}}}}
    shapes = shapes_of({"$ref": "#/$defs/Tree", "$defs": {"Tree": tree}}, "Payload")
    (children,) = shapes.named["Tree"].fields  # type: ignore[union-attr]
    assert (shapes.root, children.shape) == (Ref("Tree"), Array(Ref("Tree")))
    own = shapes_of({"type": "object", "properties": {"next": {"$ref": "#"}}}, "Payload")
    (following,) = own.named["Payload"].fields  # type: ignore[union-attr]
    assert following.shape == Ref("Payload")


def test_a_name_that_stands_for_itself_and_nothing_more_is_anything() -> None:
    circle = {"A": {"anyOf": [{"$ref": "#/$defs/B"}, {"type": "null"}]}, "B": {"$ref": "#/$defs/A"}}
    shapes = shapes_of({"$ref": "#/$defs/A", "$defs": circle}, "Payload")
    assert shapes.resolved(shapes.root) == ANY


def test_parts_that_hold_together_become_one_object() -> None:
    base = {"type": "object", "properties": {"id": {"type": "string"}}, "required": ["id"]}
    schema = {"allOf": [{"$ref": "#/$defs/Base"}, {"properties": {"n": {"type": "integer"}}}], "$defs": {"Base": base}}
    shapes = shapes_of(schema, "Payload")
    whole = shapes.resolved(shapes.root)
    assert isinstance(whole, Object)
    assert {each.name: each.is_required for each in whole.fields} == {"id": True, "n": False}


def test_a_schema_that_unfolds_without_end_is_cut() -> None:
    both = {
        "prefixItems": [{"$ref": "#/$defs/X", "minItems": 1}, {"$ref": "#/$defs/X", "maxItems": 9}],
        "type": "array",
    }
    shapes = shapes_of({"$ref": "#/$defs/X", "$defs": {"X": both}}, "Payload")
    assert isinstance(shapes.resolved(shapes.root), Array)
    assert shapes_of({"allOf": [{"$ref": "#"}, False]}, "Payload").root == NEVER


def function(id: str, request: Any = None, response: Any = None, namespace: str = "default") -> Function:
    return Function(id, namespace, "", request, response)


def test_equal_types_of_several_functions_are_one_and_others_get_the_function_before_their_name() -> None:
    def listing(item: Any) -> Any:
        return {"type": "array", "items": {"$ref": "#/$defs/Item"}, "$defs": {"Item": item}}

    other = {"type": "object", "properties": {"id": {"type": "integer"}}}
    same = signatures_of([function("a::x", None, listing(OPEN)), function("a::y", None, listing(OPEN))])
    assert list(same.named) == ["Item"]
    differing = signatures_of([function("a::x", None, listing(OPEN)), function("a::y", None, listing(other))])
    assert list(differing.named) == ["AXResultItem", "AYResultItem"]
    assert differing.trees["default"].children["a"].children["y"].signature.result == Array(Ref("AYResultItem"))  # type: ignore[union-attr]


@dataclasses.dataclass
class NewOrder:
    item: str


def test_a_type_of_python_keeps_its_name() -> None:
    def order(order: NewOrder, former: list[NewOrder]) -> NewOrder: ...

    order.__annotations__ = {"order": NewOrder, "former": list[NewOrder], "return": NewOrder}
    formats = describe(order, typed=True)
    named = signatures_of([function("shop::order", formats["request_format"], formats["response_format"])]).named
    assert {*named} == {"NewOrder", "ShopOrderPayload"}


def test_no_type_takes_a_name_that_the_module_has() -> None:
    named = signatures_of([function("a::x", {**OPEN, "title": "Functions"})], RESERVED).named
    assert list(named) == ["AXPayloadFunctions"]
