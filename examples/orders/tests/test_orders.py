from typing import Any

from iii import InvocationError
from iii.testing import Engine

TEA = {"customer": "ada", "item": "tea", "quantity": 2}


def place(iii: Engine, **changes: Any) -> str:
    answer = iii.http.post("/orders", json={**TEA, **changes})
    assert answer.status_code == 202, answer.text
    id: str = answer.json()["id"]
    return id


def status(iii: Engine, id: str) -> str:
    found: str = iii.http.get(f"/orders/{id}").json()["status"]
    return found


def test_an_order_is_paid(iii: Engine) -> None:
    id = place(iii)
    assert iii.http.get(f"/orders/{id}").json() == {**TEA, "id": id, "cents": 700, "status": "paid"}
    assert iii.call("state::get", scope="receipts", key=id) == "ada paid 7.00"


def test_a_payment_that_fails_is_tried_again(iii: Engine) -> None:
    charge = iii.fake("payments::charge", raises=InvocationError("closed", "try later"))
    id = place(iii)
    assert (len(charge.calls), status(iii, id)) == (1, "placed")
    charge = iii.fake("payments::charge", returns="receipt")
    iii.advance("1s")
    assert charge.calls == [{"order": id, "customer": "ada", "cents": 700}]
    assert status(iii, id) == "paid"


def test_the_orders_of_one_customer_are_paid_in_turn_and_nobody_else_waits(iii: Engine) -> None:
    iii.call("state::set", scope="payments", key="closed", value=True)
    first = place(iii)
    iii.call("state::delete", scope="payments", key="closed")
    second, other = place(iii), place(iii, customer="bob")
    assert [status(iii, id) for id in (first, second, other)] == ["placed", "placed", "paid"]
    iii.advance("1s")
    assert [status(iii, id) for id in (first, second)] == ["paid", "paid"]


def test_what_fails_for_good_is_a_dead_letter_until_it_is_redriven(iii: Engine) -> None:
    iii.call("state::set", scope="payments", key="closed", value=True)
    id = place(iii)
    iii.advance("1h")
    (letter,) = iii.call("engine::queue::dlq_messages", queue="payments")
    assert letter["payload"] == {"id": id, "customer": "ada"}
    assert "the payment provider is closed" in iii.failures[-1]
    iii.call("state::delete", scope="payments", key="closed")
    assert iii.http.post("/payments/redrive").status_code == 200
    assert (status(iii, id), iii.call("engine::queue::dlq_messages", queue="payments")) == ("paid", [])


def test_the_night_sums_the_paid_orders_up(iii: Engine) -> None:
    paid = [place(iii), place(iii, item="coffee")]
    iii.advance("1d")
    assert iii.http.get("/reports/2026-01-01").json() == {"orders": 2, "cents": 1740}
    assert [iii.http.get(f"/orders/{id}").status_code for id in paid] == [404, 404]
    iii.advance("1d")
    assert iii.http.get("/reports/2026-01-02").json() == {"orders": 0, "cents": 0}


def test_what_is_not_for_sale_is_refused(iii: Engine) -> None:
    for order in ({**TEA, "item": "cake"}, {**TEA, "quantity": 0}, {"item": "tea"}):
        assert iii.http.post("/orders", json=order).status_code == 422
