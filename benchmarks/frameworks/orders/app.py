"""An order pipeline: `uvicorn app:app`, `celery -A app worker` and `celery -A app beat`, with a Redis."""

import secrets
import sqlite3
from datetime import datetime
from typing import Any, Literal
from zoneinfo import ZoneInfo

from celery import Celery, Task
from celery.schedules import crontab
from fastapi import FastAPI, HTTPException
from payments import charge
from pydantic import BaseModel

PRICES = {"tea": 350, "coffee": 520}  # cents
app = FastAPI()
celery = Celery("orders", broker="redis://localhost:6379/0")
celery.conf.timezone = "Europe/Berlin"
celery.conf.task_acks_late = True
celery.conf.beat_schedule = {"nightly": {"task": "app.close_the_day", "schedule": crontab(minute="0", hour="2")}}
database = sqlite3.connect("orders.db", isolation_level=None, check_same_thread=False)
database.row_factory = sqlite3.Row
database.executescript("""
CREATE TABLE IF NOT EXISTS orders (
    number INTEGER PRIMARY KEY, customer TEXT, item TEXT, quantity INTEGER, id TEXT UNIQUE, cents INTEGER, status TEXT
);
CREATE TABLE IF NOT EXISTS dead (id TEXT PRIMARY KEY, customer TEXT, error TEXT);
CREATE TABLE IF NOT EXISTS reports (day TEXT PRIMARY KEY, orders INTEGER, cents INTEGER);
""")


class NewOrder(BaseModel):
    """What a customer asks for."""

    customer: str
    item: Literal["tea", "coffee"]
    quantity: int = 1


class Order(NewOrder):
    """An order and what has become of it."""

    id: str
    cents: int
    status: Literal["placed", "paid"] = "placed"


class Report(BaseModel):
    """What a day has brought."""

    orders: int
    cents: int


@app.post("/orders", status_code=202)
def place(order: NewOrder) -> Order:
    """Take an order; it is paid later."""
    if not order.customer or not 1 <= order.quantity <= 100:
        raise HTTPException(422, "an order has a customer and a quantity of 1 to 100")
    cents = PRICES[order.item] * order.quantity
    placed = Order(**order.model_dump(), id=secrets.token_hex(8), cents=cents)
    database.execute(
        "INSERT INTO orders (customer, item, quantity, id, cents, status) "
        "VALUES (:customer, :item, :quantity, :id, :cents, :status)",
        placed.model_dump(),
    )
    pay.delay(placed.id, placed.customer)
    return placed


@app.get("/orders/{id}")
def show(id: str) -> Order:
    """Return an order."""
    row = database.execute("SELECT * FROM orders WHERE id = ?", (id,)).fetchone()
    if row is None:
        raise HTTPException(404, f"there is no order {id}")
    return Order(**row)


@celery.task(bind=True, max_retries=None)
def pay(self: Task, id: str, customer: str, attempt: int = 1) -> None:
    """Have an order paid. Orders of one customer wait for each other, those of others do not."""
    first = database.execute(
        "SELECT id FROM orders WHERE customer = ? AND status = 'placed' AND id NOT IN (SELECT id FROM dead) "
        "ORDER BY number",
        (customer,),
    ).fetchone()
    if first is not None and first["id"] != id:
        raise self.retry(countdown=1)
    try:
        charge(id, customer, show(id).cents)
    except Exception as error:
        if attempt < 3:
            raise self.retry(args=(id, customer, attempt + 1), countdown=2 ** (attempt - 1)) from error
        database.execute("INSERT OR REPLACE INTO dead VALUES (?, ?, ?)", (id, customer, str(error)))
        raise
    database.execute("UPDATE orders SET status = 'paid' WHERE id = ?", (id,))


@celery.task
def close_the_day() -> None:
    """Sum the paid orders up and let go of them."""
    rows = database.execute("DELETE FROM orders WHERE status = 'paid' RETURNING cents").fetchall()
    day = datetime.now(ZoneInfo("Europe/Berlin")).strftime("%Y-%m-%d")
    report = (day, len(rows), sum(row["cents"] for row in rows))
    database.execute("INSERT OR REPLACE INTO reports VALUES (?, ?, ?)", report)


@app.get("/reports/{day}")
def report(day: str) -> Report:
    """Return what the night of a day, as 2026-01-31, has summed up."""
    row = database.execute("SELECT * FROM reports WHERE day = ?", (day,)).fetchone()
    if row is None:
        raise HTTPException(404, f"there is no report of {day}")
    return Report(**row)


@app.post("/payments/redrive")
def redrive() -> dict[str, Any]:
    """Try again what has failed for good."""
    rows = database.execute("DELETE FROM dead RETURNING id, customer").fetchall()
    for row in rows:
        pay.delay(row["id"], row["customer"])
    return {"queue": "payments", "redriven": len(rows)}
