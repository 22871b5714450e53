"""An order pipeline: orders come by HTTP, are paid one after the other per customer, and are summed up every night."""

import secrets
from dataclasses import dataclass
from datetime import datetime
from typing import Any, Literal

from iii import HttpError, register_worker

PRICES = {"tea": 350, "coffee": 520}  # cents
worker = register_worker()


@dataclass
class NewOrder:
    """What a customer asks for."""

    customer: str
    item: Literal["tea", "coffee"]
    quantity: int = 1


@dataclass
class Order(NewOrder):
    """An order and what has become of it."""

    id: str = ""
    cents: int = 0
    status: Literal["placed", "paid"] = "placed"


@dataclass
class Report:
    """What a day has brought."""

    orders: int
    cents: int


orders = worker.state("orders", Order)
reports = worker.state("reports", Report)


@worker.post("/orders", status=202)
def place(order: NewOrder) -> Order:
    """Take an order; it is paid later."""
    if not order.customer or not 1 <= order.quantity <= 100:
        raise HttpError(422, "an order has a customer and a quantity of 1 to 100")
    cents = PRICES[order.item] * order.quantity
    placed = Order(order.customer, order.item, order.quantity, id=secrets.token_hex(8), cents=cents)
    orders[placed.id] = placed
    pay.enqueue(id=placed.id, customer=placed.customer)
    return placed


@worker.get("/orders/{id}")
def show(id: str) -> Order:
    """Return an order."""
    if (order := orders.get(id)) is None:
        raise HttpError(404, f"there is no order {id}")
    return order


@worker.queue("payments", type="fifo", message_group_field="customer", retries=3, backoff="1s")
def pay(id: str, customer: str) -> None:
    """Have an order paid. Orders of one customer wait for each other, those of others do not."""
    worker.trigger("payments::charge", {"order": id, "customer": customer, "cents": show(id).cents})
    orders.update(id, {"type": "set", "path": "status", "value": "paid"})


@worker.cron("0 2 * * *", timezone="Europe/Berlin")
def close_the_day(scheduled_time: datetime) -> Report:
    """Sum the paid orders up and let go of them."""
    paid = [order for order in orders.list() if order.status == "paid"]
    report = Report(len(paid), sum(order.cents for order in paid))
    reports[f"{scheduled_time:%Y-%m-%d}"] = report
    for order in paid:
        del orders[order.id]
    return report


@worker.get("/reports/{day}")
def report(day: str) -> Report:
    """Return what the night of a day, as 2026-01-31, has summed up."""
    if (found := reports.get(day)) is None:
        raise HttpError(404, f"there is no report of {day}")
    return found


@worker.post("/payments/redrive")
def redrive() -> dict[str, Any]:
    """Try again what has failed for good."""
    answer: dict[str, Any] = worker.trigger("iii::queue::redrive", {"queue": "payments"})
    return answer
