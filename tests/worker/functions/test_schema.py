"""Type hints become JSON Schema; hints that say nothing become nothing."""

from __future__ import annotations

import dataclasses
import datetime
import enum
import typing
from typing import Annotated, Any, Literal, NamedTuple, Optional, TypedDict, Union

import jsonschema
import msgspec
import pytest

from iii.worker.functions.schema import format_from_hint, format_from_parameters, schema_from_hint
from iii.worker.functions.signature import read_signature


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


def test_a_type_that_contains_itself_ends():
    jsonschema.Draft202012Validator.check_schema(schema_from_hint(Node))


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
