"""An order whose steps are undone when a later one fails."""

from iii import Flow, InvocationError, register_worker

worker = register_worker()


@worker.function("stock::reserve")
def reserve(item: str) -> str:
    if item == "moon":
        raise InvocationError("sold_out", "there is only one, and it is taken")
    return f"reserved {item}"


@worker.function("stock::release")
def release(input: dict[str, str], result: str | None) -> None:
    print("released", input["item"], "after", result)


@worker.function("pay::charge")
def charge(amount: float) -> dict[str, float]:
    return {"charged": amount}


@worker.function("pay::refund")
def refund(input: dict[str, float], result: dict[str, float] | None) -> None:
    print("refunded", input["amount"], "after", result)


@worker.flow("orders::fulfil", id_field="order_id", timeout="30d")
def fulfil(flow: Flow, order_id: str, items: list[str], amount: float) -> dict[str, object]:
    flow.call("pay::charge", {"amount": amount}, undo="pay::refund", max_retries=5)
    for item in items:
        flow.call("stock::reserve", {"item": item}, undo="stock::release", max_retries=1)
    flow.sleep("1h")  # the customer may still cancel: iii flow cancel ORDER
    label = flow.step("label", lambda: f"{order_id}: {', '.join(items)}")
    return {"label": label}
