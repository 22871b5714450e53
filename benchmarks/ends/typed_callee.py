"""Call one handler many times in a row: `python typed_callee.py CASE typed|plain|by-hand CALLS`.

Prints the CPU nanoseconds per call. Under callgrind the difference of two counts of calls gives the instructions of
one: start and registration cancel out.
"""

from __future__ import annotations

import dataclasses
import datetime
import enum
import gc
import importlib
import sys
import time
import types
from collections.abc import Callable
from typing import Any, Literal, TypedDict

from iii.worker.functions.handler import handler_from, typed_handler_from


class Size(enum.Enum):
    SMALL = "small"
    LARGE = "large"


@dataclasses.dataclass
class NewOrder:
    item: str
    quantity: int = 1


@dataclasses.dataclass
class Address:
    name: str
    street: str
    number: int
    country: str


@dataclasses.dataclass
class Line:
    item: str
    quantity: int


@dataclasses.dataclass
class Shipment:
    at: datetime.datetime
    to: Address


@dataclasses.dataclass
class Basket:
    lines: list[Line]


@dataclasses.dataclass
class Shirt:
    size: Size
    fit: Literal["slim", "wide"]
    ordered: datetime.datetime | None = None
    count: int | None = None


class Point(TypedDict):
    x: int
    y: int
    label: str


class Visit(TypedDict):
    at: datetime.datetime
    point: Point


def floats(a: float, b: float) -> None: ...


def body(customer: str, order: NewOrder, dry_run: bool = False) -> None: ...


def flat(address: Address, dry_run: bool = False) -> None: ...


def nested(shipment: Shipment) -> None: ...


def many(basket: Basket) -> None: ...


def choices(shirt: Shirt) -> None: ...


def typed_dict(point: Point) -> None: ...


def nested_typed_dict(visit: Visit) -> None: ...


def plain(payload: Any) -> None: ...


def many_by_hand(payload: Any) -> None:
    """Make the objects of `many` as a handler would that trusts its payload: what no typed form can go below."""
    many(Basket([Line(line["item"], line["quantity"]) for line in payload["basket"]["lines"]]))


NOON = "2026-05-01T12:00:00+00:00"
ADDRESS = {"name": "Ada", "street": "Main Street", "number": 4, "country": "GB"}
POINT = {"x": 1, "y": 2, "label": "here"}
CASES: dict[str, tuple[Callable[..., None], dict[str, Any]]] = {
    "two floats": (floats, {"a": 1.5, "b": 2.5}),
    "text, dataclass of 2, default": (body, {"customer": "7", "order": {"item": "tea", "quantity": 2}}),
    "dataclass of 4, bool": (flat, {"address": ADDRESS, "dry_run": True}),
    "dataclass in one, datetime": (nested, {"shipment": {"at": NOON, "to": ADDRESS}}),
    "list of 3 dataclasses": (many, {"basket": {"lines": [{"item": "tea", "quantity": 2}] * 3}}),
    "Enum, Literal, 2 Optional": (
        choices,
        {"shirt": {"size": "large", "fit": "slim", "ordered": NOON, "count": 1}},
    ),
    "TypedDict of 3": (typed_dict, {"point": POINT}),
    "TypedDict in one, datetime": (nested_typed_dict, {"visit": {"at": NOON, "point": POINT}}),
}
BY_HAND = {"list of 3 dataclasses": many_by_hand}
FIELDS = {"item": str, "quantity": int}
# Cases of packages that a project may have, by the package.
MODELS = {"list of 3 Structs": "msgspec", "list of 3 pydantic models": "pydantic"}


def of_models(package: str) -> tuple[Callable[..., None], dict[str, Any]]:
    """Return a function that takes a list of a package's models; only its own case pays for the import."""
    base = importlib.import_module(package)
    bases = (base.Struct if package == "msgspec" else base.BaseModel,)
    model: Any = types.new_class("Model", bases, exec_body=lambda body: body.update(__annotations__=FIELDS))

    def take(lines: Any) -> None: ...

    take.__annotations__["lines"] = list[model]
    return take, {"lines": [{"item": "tea", "quantity": 2}] * 3}


def main() -> None:
    """Run one case."""
    case, form, calls = sys.argv[1], sys.argv[2], int(sys.argv[3])
    function, payload = of_models(MODELS[case]) if case in MODELS else CASES[case]
    if form == "typed":
        handler = typed_handler_from("b::f", function, by_name=True)
    else:
        handler = handler_from("b::f", BY_HAND[case] if form == "by-hand" else plain)
    gc.disable()
    begin = time.process_time_ns()
    for _ in range(calls):
        handler.call(payload)
    print((time.process_time_ns() - begin) / max(1, calls))


if __name__ == "__main__":
    main()
