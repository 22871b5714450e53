"""pydantic models as parameters and results, with the package itself: schema, enforcement, conversion, dumping."""

from __future__ import annotations

from datetime import UTC, datetime
from enum import Enum
from typing import Annotated, Literal

import pytest
from pydantic import BaseModel, ConfigDict, Field, field_validator

from iii import InvocationError
from iii.testing import Engine


class Size(Enum):
    SMALL = "small"
    LARGE = "large"


class Line(BaseModel):
    item: str
    count: Annotated[int, Field(gt=0)]


class Order(BaseModel):
    """What somebody wants."""

    model_config = ConfigDict(populate_by_name=True)

    customer: str = Field(min_length=1, description="Who orders.")
    lines: list[Line]
    size: Size = Size.SMALL
    kind: Literal["gift", "own"] = "own"
    placed_at: datetime | None = Field(default=None, alias="placedAt")
    notes: dict[str, str] = {}

    @field_validator("customer")
    @classmethod
    def is_known(cls, value: str) -> str:
        if value == "nobody":
            raise ValueError("nobody is no customer")
        return value


class Receipt(BaseModel):
    model_config = ConfigDict(populate_by_name=True)

    order_id: int = Field(alias="orderId")
    total: int
    remark: str | None = None
    order: Order | None = None


class Tree(BaseModel):
    name: str
    children: list[Tree] = []


@pytest.fixture
def engine():
    with Engine() as made:
        worker = made.worker("shop")

        @worker.function("shop::order")
        def order(order: Order, urgent: bool = False) -> Receipt:
            """Take an order."""
            assert isinstance(order.lines[0], Line)
            total = sum(line.count for line in order.lines)
            return Receipt(order_id=7, total=total, order=order if urgent else None)

        @worker.function("shop::many")
        async def many(orders: list[Order], tree: Tree | None = None) -> list[Receipt]:
            return [Receipt(order_id=number, total=len(order.lines)) for number, order in enumerate(orders)]

        @worker.function("shop::depth")
        def depth(tree: Tree) -> int:
            return 1 + max((depth(child) for child in tree.children), default=0)

        worker.register_function("shop::plain", plain)
        yield made


def plain(payload: Order) -> Receipt:
    """Take the payload as it is, as the public SDK has it."""
    assert isinstance(payload, dict)
    return Receipt(order_id=1, total=len(payload["lines"]))


ORDER = {"customer": "Ada", "lines": [{"item": "tea", "count": 2}, {"item": "milk", "count": 1}]}


def test_a_model_is_built_from_the_payload_and_a_model_is_a_result(engine):
    assert engine.call("shop::order", order=ORDER) == {"orderId": 7, "total": 3}


def test_aliases_go_in_and_out_and_what_is_none_stays_away(engine):
    got = engine.call("shop::order", order={**ORDER, "placedAt": "2030-05-01T12:00:00Z"}, urgent=True)
    assert datetime.fromisoformat(got["order"]["placedAt"]) == datetime(2030, 5, 1, 12, tzinfo=UTC)
    assert got["order"]["size"] == "small"
    assert "remark" not in got


def test_lists_of_models_and_models_that_hold_themselves(engine):
    assert engine.call("shop::many", orders=[ORDER, ORDER]) == [
        {"orderId": 0, "total": 2},
        {"orderId": 1, "total": 2},
    ]
    tree = {"name": "a", "children": [{"name": "b"}, {"name": "c", "children": [{"name": "d"}]}]}
    assert engine.call("shop::depth", tree=tree) == 3


def test_a_plain_handler_gets_the_payload_and_its_hint_is_the_format(engine):
    assert engine.call("shop::plain", ORDER) == {"orderId": 1, "total": 2}


@pytest.mark.parametrize(
    ("function_id", "payload", "path"),
    [
        ("shop::order", {"order": {**ORDER, "lines": [{"item": "tea", "count": 0}]}}, "order.lines[0].count"),
        ("shop::order", {"order": {**ORDER, "customer": ""}}, "order.customer"),
        ("shop::order", {"order": {**ORDER, "kind": "loan"}}, "order.kind"),
        ("shop::order", {"order": {**ORDER, "size": "huge"}}, "order.size"),
        ("shop::order", {"order": {"lines": []}}, "order.customer"),
        ("shop::many", {"orders": [ORDER, {**ORDER, "lines": "tea"}]}, "orders[1].lines"),
        ("shop::depth", {"tree": {"name": "a", "children": [{"name": 5}]}}, "tree.children[0].name"),
        ("shop::plain", {**ORDER, "lines": [{"item": "tea"}]}, "lines[0].count"),
    ],
)
def test_the_engine_refuses_what_does_not_fit_before_the_handler_runs(engine, function_id, payload, path):
    with pytest.raises(InvocationError) as caught:
        engine.call(function_id, payload)
    assert (caught.value.code, caught.value.details["path"]) == ("invalid_payload", path)


def test_what_only_the_model_can_know_is_refused_in_its_words(engine):
    with pytest.raises(InvocationError, match="nobody is no customer") as caught:
        engine.call("shop::order", order={**ORDER, "customer": "nobody"})
    assert caught.value.code == "invalid_payload"
