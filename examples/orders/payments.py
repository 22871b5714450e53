"""Stands for a payment provider: closed while `iii trigger state::get scope=payments key=closed` is true."""

from iii import register_worker

worker = register_worker()
receipts = worker.state("receipts", str)


@worker.function("payments::charge")
def charge(order: str, customer: str, cents: int) -> str:
    """Take the money for an order, once, and return the receipt."""
    if worker.state("payments").get("closed"):
        raise RuntimeError("the payment provider is closed")
    if (receipt := receipts.get(order)) is None:
        receipt = receipts[order] = f"{customer} paid {cents / 100:.2f}"
    return receipt
