"""Stands for a payment provider: open unless `iii trigger state::set scope=payments key=closed value=true` says else."""

from iii import register_worker

worker = register_worker()
receipts = worker.state("receipts", str)


@worker.function("payments::charge")
def charge(order: str, cents: int) -> str:
    """Take the money for an order, once, and return the receipt."""
    if worker.state("payments").get("closed"):
        raise RuntimeError("the payment provider is closed")
    if (receipt := receipts.get(order)) is None:
        receipt = receipts[order] = f"{order} paid {cents / 100:.2f}"
    return receipt
