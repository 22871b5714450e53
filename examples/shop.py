"""A worker that calls another one: a handler may block in `trigger` while the worker's other handlers run."""

from typing import Any, TypedDict

from iii import register_worker

worker = register_worker()


class Item(TypedDict):
    """One position of an order."""

    name: str
    price: float


def add(a: float, b: float) -> float:
    """Add by asking the math worker."""
    result: dict[str, float] = worker.trigger({"function_id": "math::add", "payload": {"a": a, "b": b}})
    return result["c"]


@worker.function("shop::total")
def total(items: list[Item]) -> dict[str, float]:
    """Sum the prices of an order, each addition a call of math::add."""
    amount = 0.0
    for item in items:
        amount = add(amount, item["price"])
    return {"total": amount}


@worker.function("shop::checkout")
def checkout(items: list[Item], customer: str = "you") -> dict[str, Any]:
    """Total an order and greet the customer: a call that calls this worker, which calls others."""
    bill = worker.trigger({"function_id": "shop::total", "payload": {"items": items}})
    hello = worker.trigger({"function_id": "greeter::hello", "payload": {"name": customer}})
    return {**bill, "message": hello["message"]}
