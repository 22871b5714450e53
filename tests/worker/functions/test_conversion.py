"""Typed handlers get what they asked for; docstrings describe their parameters."""

from __future__ import annotations

import dataclasses
import datetime
import decimal
import enum
import uuid
from collections.abc import Sequence
from typing import Annotated, Any, Literal, NewType, NotRequired, TypedDict

import msgspec
import pytest

from iii.worker.functions.conversion import converter_from_hint
from iii.worker.functions.schema import parameter_descriptions

NOON = datetime.datetime(2024, 5, 1, 12, 0, tzinfo=datetime.UTC)
ID = uuid.UUID("8c7bd2b1-5a0e-4f6e-9a53-0f6d2f3c1a77")


class Color(enum.Enum):
    RED = "red"


@dataclasses.dataclass
class Event:
    at: datetime.datetime
    color: Color = Color.RED


class Leg(TypedDict):
    day: datetime.date
    note: NotRequired[str]


class Box(msgspec.Struct):
    size: int


class Model:
    """Stands for a pydantic model: what the SDK uses of one."""

    def __init__(self, fields: dict[str, Any]) -> None:
        self.fields = fields

    @classmethod
    def model_validate(cls, value: Any) -> Model:
        if "name" not in value:
            raise ValueError("name is missing")
        return cls(value)


Moment = NewType("Moment", datetime.datetime)
CONVERSIONS = [
    (datetime.datetime, "2024-05-01T12:00:00Z", NOON),
    (datetime.date, "2024-05-01", NOON.date()),
    (datetime.time, "12:00", datetime.time(12)),
    (uuid.UUID, str(ID), ID),
    (decimal.Decimal, "1.10", decimal.Decimal("1.10")),
    (decimal.Decimal, 3, decimal.Decimal(3)),
    (bytes, "aGk=", b"hi"),
    (Color, "red", Color.RED),
    (Event, {"at": "2024-05-01T12:00:00Z"}, Event(NOON)),
    (Event, {"at": "2024-05-01T12:00:00Z", "color": "red", "more": 1}, Event(NOON)),
    (Leg, {"day": "2024-05-01", "note": "x"}, {"day": NOON.date(), "note": "x"}),
    (Box, {"size": 3}, Box(3)),
    (list[Color], ["red"], [Color.RED]),
    (Sequence[Color], ["red"], [Color.RED]),
    (set[int], [1, 1], {1}),
    (tuple[int, Color], [1, "red"], (1, Color.RED)),
    (tuple[Color, ...], ["red"], (Color.RED,)),
    (tuple, [1], (1,)),
    (dict[str, Color], {"a": "red"}, {"a": Color.RED}),
    (Color | None, None, None),
    (Color | None, "red", Color.RED),
    (int | Color, 3, 3),
    (int | Color, "red", Color.RED),
    (Literal[Color.RED], "red", Color.RED),
    (Annotated[Color, "which"], "red", Color.RED),
    (Moment, "2024-05-01T12:00:00Z", NOON),
]


@pytest.mark.parametrize(("hint", "value", "expected"), CONVERSIONS, ids=lambda item: str(item)[:40])
def test_a_json_value_becomes_the_type_of_the_hint(hint, value, expected):
    convert = converter_from_hint(hint)
    assert convert is not None
    made = convert(value)
    assert made == expected
    assert type(made) is type(expected)


@pytest.mark.parametrize(
    "hint", [None, Any, str, float, dict, list[str], dict[str, Any], str | None, Literal["a"], object]
)
def test_what_json_already_is_costs_no_conversion(hint):
    assert converter_from_hint(hint) is None


@pytest.mark.parametrize(
    ("hint", "value"),
    [
        (datetime.datetime, "yesterday"),
        (decimal.Decimal, "one"),
        (Color, "green"),
        (Event, {"color": "red"}),
        (Event, [1]),
        (Leg, "x"),
        (Box, {"size": "big"}),
        (tuple[int, Color], [1]),
        (set[int], 5),
        (int | Color, "green"),
        (bytes, "%"),
        (Model, {}),
    ],
)
def test_a_value_that_does_not_fit_is_refused(hint, value):
    convert = converter_from_hint(hint)
    assert convert is not None
    with pytest.raises((ValueError, TypeError)):
        convert(value)


def test_typed_handlers_get_converted_arguments(joined):
    worker, engine = joined
    seen = []

    @worker.function("m::plan")
    def plan(at: datetime.datetime, event: Event | None = None, n: int = 1) -> str:
        seen.append((at, event, n))
        return "planned"

    assert engine.call("m::plan", {"at": "2024-05-01T12:00:00Z"})["result"] == "planned"
    engine.call("m::plan", {"at": "2024-05-01T12:00:00Z", "event": {"at": "2024-05-01T12:00:00Z"}, "n": 2})
    assert seen == [(NOON, None, 1), (NOON, Event(NOON), 2)]


def test_async_handlers_and_whole_payloads_are_converted_too(joined):
    worker, engine = joined

    @worker.function("m::whole")
    async def whole(payload: Event, *, metadata=None) -> Any:
        return [payload.color.name, metadata]

    @worker.function("m::model")
    def model(data: Model) -> Any:
        return data.fields

    answer = engine.call("m::whole", {"at": "2024-05-01T12:00:00Z"}, metadata=1)
    assert answer["result"] == ["RED", 1]
    assert engine.call("m::model", {"name": "x"})["result"] == {"name": "x"}


def test_a_value_that_cannot_be_converted_is_an_invalid_payload(joined):
    worker, engine = joined

    @worker.function("m::paint")
    def paint(color: Color) -> None:
        raise AssertionError("never called")

    error = engine.call("m::paint", {"color": "green"})["error"]
    assert error["code"] == "invalid_payload"
    assert error["message"] == "m::paint: color: 'green' is not a valid Color"
    assert error["details"]["path"] == "color"


def test_the_plain_form_gets_the_payload_as_it_came(joined):
    worker, engine = joined

    def plain(payload: Event) -> Any:
        return payload

    worker.register_function("m::plain", plain)
    assert engine.call("m::plain", {"at": "x"})["result"] == {"at": "x"}


GOOGLE = """Do it.

    Args:
        a: The first.
        b (int): The second,
            over two lines.
        **more: The rest.

    Returns:
        c: Not a parameter.
    """


@pytest.mark.parametrize(
    ("doc", "expected"),
    [
        (None, {}),
        ("Do it.", {}),
        (GOOGLE, {"a": "The first.", "b": "The second, over two lines.", "more": "The rest."}),
        (
            "Do it.\n\n:param a: The first.\n:param int b: The second.\n:returns: c",
            {"a": "The first.", "b": "The second."},
        ),
    ],
)
def test_docstrings_describe_parameters(doc, expected):
    assert parameter_descriptions(doc) == expected


def test_descriptions_reach_the_request_format(joined):
    worker, engine = joined

    @dataclasses.dataclass
    class Point:
        """A place.

        Attributes:
            x: To the right.
        """

        x: float

    def move(by: Point, to: str = "here") -> None:
        """Move.

        Args:
            to: The place.
        """

    move.__annotations__ = {"by": Point, "to": str}
    worker.function("m::move")(move)
    properties = engine.expect("registerfunction", id="m::move")["request_format"]["properties"]
    assert properties["to"] == {"type": "string", "default": "here", "description": "The place."}
    assert properties["by"]["properties"]["x"] == {"type": "number", "description": "To the right."}


class Level(enum.IntEnum):
    HIGH = 3


@dataclasses.dataclass
class Order:
    quantity: int
    sizes: list[int] = dataclasses.field(default_factory=list)


class Line(TypedDict):
    count: int


@pytest.mark.parametrize(
    ("hint", "value", "expected"),
    [
        (int, 3.0, 3),
        (int, 2**70, 2**70),
        (int | None, 3.0, 3),
        (int | None, None, None),
        (int | str, 3.0, 3),
        (int | str, "3", "3"),
        (str | int, 3.0, 3),
        (int | float, 3.0, 3.0),
        (float | int, 3.0, 3.0),
        (int | float, 3, 3),
        (list[int], [1, 2.0, 3], [1, 2, 3]),
        (tuple[int, ...], [1.0], (1,)),
        (tuple[int, str], [1.0, "a"], (1, "a")),
        (set[int], [1.0], {1}),
        (dict[str, int], {"a": 1.0}, {"a": 1}),
        (dict[str, list[int]], {"a": [1.0]}, {"a": [1]}),
        (Annotated[int, "pieces"], 3.0, 3),
        (NewType("Pieces", int), 3.0, 3),
        (Literal[3, 4], 3.0, 3),
        (Literal[3, True], True, True),
        (Level, 3.0, Level.HIGH),
        (Order, {"quantity": 2.0, "sizes": [1.0]}, Order(2, [1])),
        (Line, {"count": 1.0}, {"count": 1}),
        (Box, {"size": 4.0}, Box(4)),
    ],
)
def test_an_integer_arrives_as_one_however_it_is_written(hint, value, expected):
    convert = converter_from_hint(hint) or (lambda value: value)
    assert repr(convert(value)) == repr(expected)


@pytest.mark.parametrize("hint", [int, list[int], dict[str, int], Order, Box, int | None])
@pytest.mark.parametrize("value", [3.5, True, "3", float("inf")])
def test_what_is_no_integer_is_refused(hint, value):
    wrapped = {list[int]: [value], dict[str, int]: {"a": value}, Order: {"quantity": value}, Box: {"size": value}}
    convert = converter_from_hint(hint)
    assert convert is not None
    with pytest.raises((ValueError, TypeError)):
        convert(wrapped.get(hint, value))
