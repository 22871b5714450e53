"""Stands for a payment provider: closed while the file `closed` is there."""

import sqlite3
from pathlib import Path

database = sqlite3.connect("receipts.db", isolation_level=None, check_same_thread=False)
database.execute("CREATE TABLE IF NOT EXISTS receipts (id TEXT PRIMARY KEY, receipt TEXT)")


def charge(order: str, customer: str, cents: int) -> str:
    """Take the money for an order, once, and return the receipt."""
    if Path("closed").exists():
        raise RuntimeError("the payment provider is closed")
    row = database.execute("SELECT receipt FROM receipts WHERE id = ?", (order,)).fetchone()
    if row is not None:
        return str(row[0])
    receipt = f"{customer} paid {cents / 100:.2f}"
    database.execute("INSERT INTO receipts VALUES (?, ?)", (order, receipt))
    return receipt
