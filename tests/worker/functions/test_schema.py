"""Type hints become JSON Schema; hints that say nothing become nothing."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import typing
from typing import Annotated, Any, Generic, Literal, NamedTuple, Optional, TypedDict, TypeVar, Union

import jsonschema
import msgspec
import pytest

from iii.worker.functions.schema import format_from_hint, format_from_parameters, schema_from_hint
from iii.worker.functions.signature import read_signature

T = TypeVar("T")


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


class Movie(TypedDict):
    """A film."""

    title: str
    year: typing.NotRequired[int]


@dataclasses.dataclass
class Point:
    x: float
    y: float = 0.5
    tags: list[str] = dataclasses.field(default_factory=list)


class Leaf(msgspec.Struct):
    name: str


@dataclasses.dataclass
class Node:
    children: list[Node]


@dataclasses.dataclass
class Tree:
    """Holds itself twice, and a class that holds it."""

    owner: Owner
    left: Tree | None = None
    right: Tree | None = None


class Owner(TypedDict):
    trees: dict[str, Tree]
    home: Point


class Chain(NamedTuple):
    name: str
    rest: Chain | None = None


def node_of_another_module() -> type:
    @dataclasses.dataclass
    class Node:
        name: str
        inner: Node | None = None

    hints = {"name": str, "inner": Optional[Node]}  # noqa: UP045 - a union of strings is none
    Node.__annotations__.update(hints)
    return Node


@dataclasses.dataclass
class Page(Generic[T]):
    items: list[T]
    next: T | None = None


STRING = {"type": "string"}
INTEGER = {"type": "integer"}


@pytest.mark.parametrize(
    ("hint", "schema"),
    [
        (str, STRING),
        (int, INTEGER),
        (float, {"type": "number"}),
        (bool, {"type": "boolean"}),
        (dict, {"type": "object"}),
        (list, {"type": "array"}),
        (list[int], {"type": "array", "items": INTEGER}),
        (typing.List[int], {"type": "array", "items": INTEGER}),  # noqa: UP006 - the old spelling is the point
        (set[int], {"type": "array", "uniqueItems": True, "items": INTEGER}),
        (tuple[int, ...], {"type": "array", "items": INTEGER}),
        (tuple[int, str], {"type": "array", "prefixItems": [INTEGER, STRING], "minItems": 2, "maxItems": 2}),
        (dict[str, int], {"type": "object", "additionalProperties": INTEGER}),
        (typing.Mapping[str, int], {"type": "object", "additionalProperties": INTEGER}),
        (Optional[int], {"type": ["integer", "null"]}),  # noqa: UP045 - as above
        (int | str, {"type": ["integer", "string"]}),
        (Union[int, list[int]], {"anyOf": [INTEGER, {"type": "array", "items": INTEGER}]}),  # noqa: UP007
        (Literal["a", "b"], {"type": "string", "enum": ["a", "b"]}),
        (Literal["a", 1], {"enum": ["a", 1]}),
        (Color, {"type": "string", "enum": ["red", "blue"]}),
        (datetime.datetime, {"type": "string", "format": "date-time"}),
        (datetime.date, {"type": "string", "format": "date"}),
        (Annotated[int, "how many"], {"type": "integer", "description": "how many"}),
        (typing.NewType("UserId", int), INTEGER),
        (Any, None),
        (object, None),
        (None, None),
        (int | object, None),
    ],
)
def test_a_hint_becomes_a_schema(hint, schema):
    assert schema_from_hint(hint) == schema


def test_a_typed_dict_knows_what_is_required():
    assert schema_from_hint(Movie) == {
        "title": "Movie",
        "type": "object",
        "properties": {"title": STRING, "year": INTEGER},
        "required": ["title"],
        "description": "A film.",
    }


def test_a_dataclass_knows_its_defaults():
    schema = schema_from_hint(Point)
    assert schema["required"] == ["x"]
    assert schema["properties"]["y"] == {"type": "number", "default": 0.5}
    assert "description" not in schema


def nested(levels: int) -> dict[str, Any]:
    return {"children": [nested(levels - 1)] if levels else []}


def test_a_class_that_holds_itself_is_checked_at_every_depth():
    schema = format_from_hint(Node)
    assert schema["properties"]["children"]["items"] == {"$ref": "#/$defs/Node"}
    jsonschema.Draft202012Validator.check_schema(schema)
    jsonschema.validate(nested(40), schema)
    wrong = nested(40)
    place = wrong
    for _ in range(39):
        place = place["children"][0]
    place["children"] = "none"
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(wrong, schema)


def test_classes_that_hold_each_other_are_defined_once():
    schema = format_from_hint(list[Tree])
    assert list(schema["$defs"]) == ["Owner", "Tree"]
    tree = {"owner": {"trees": {}, "home": {"x": 1}}}
    jsonschema.validate([tree | {"left": tree | {"owner": {"trees": {"a": tree}, "home": {"x": 1}}}}], schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate([tree | {"left": tree | {"owner": {"trees": {"a": {}}, "home": {"x": 1}}}}], schema)


def test_a_named_tuple_may_hold_itself():
    schema = format_from_hint(Chain)
    jsonschema.validate(["a", ["b", ["c", None]]], schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(["a", ["b", [1, None]]], schema)


def test_classes_of_one_name_keep_their_definitions():
    other = node_of_another_module()

    def move(a: Node, b: Any, c: Tree) -> None: ...

    move.__annotations__ |= {"a": Node, "b": other, "c": dict[str, typing.Union[Node, other]]}  # noqa: UP007
    schema = format_from_parameters(read_signature(move))
    jsonschema.Draft202012Validator.check_schema(schema)
    deep = {"name": "a", "inner": {"name": "b", "inner": None}}
    jsonschema.validate({"a": nested(3), "b": deep, "c": {"x": nested(3), "y": deep}}, schema)
    for wrong in ({"a": nested(3) | {"children": [deep]}}, {"b": {"name": "a", "inner": nested(2)}}):
        with pytest.raises(jsonschema.ValidationError):
            jsonschema.validate({"a": nested(3), "b": deep, "c": {}} | wrong, schema)


def test_a_generic_class_is_read_with_its_arguments():
    schema = schema_from_hint(Page[Movie])
    assert schema["properties"]["items"]["items"]["title"] == "Movie"
    assert schema["properties"]["next"]["anyOf"][0]["title"] == "Movie"
    assert schema_from_hint(Page[int])["properties"]["items"] == {"type": "array", "items": INTEGER}
    assert schema_from_hint(Page)["properties"]["items"] == {"type": "array"}


def test_a_struct_describes_itself():
    schema = format_from_hint(Leaf)
    jsonschema.validate({"name": "x"}, schema)
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate({"name": 1}, schema)


def test_parameters_become_a_closed_object():
    def add(a: int, b: int = 2, *, note: str | None = None, metadata: Any = None) -> int:
        return a + b

    schema = format_from_parameters(read_signature(add))
    jsonschema.Draft202012Validator.check_schema(schema)
    assert list(schema["properties"]) == ["a", "b", "note"]
    assert schema["properties"]["b"]["default"] == 2
    assert schema["required"] == ["a"]
    assert schema["additionalProperties"] is False


class Place(NamedTuple):
    name: str
    number: int = 1


def test_a_named_tuple_is_an_array_with_a_place_for_each_field():
    assert schema_from_hint(Place) == {
        "type": "array",
        "title": "Place",
        "prefixItems": [STRING, {"type": "integer", "default": 1}],
        "minItems": 1,
        "maxItems": 2,
    }
