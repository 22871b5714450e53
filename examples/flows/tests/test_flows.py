import pytest

from iii import InvocationError
from iii.testing import Engine

ORDER = {"order_id": "7", "items": ["tea", "cups"], "amount": 12.5}


def test_an_order_waits_an_hour_and_is_labeled(iii: Engine) -> None:
    run = iii.start("orders::fulfil", ORDER)
    assert run.state == "parked"
    iii.advance("1h")
    assert run.result() == {"label": "7: tea, cups"}


def test_what_is_sold_out_undoes_the_order(iii: Engine, capsys: pytest.CaptureFixture[str]) -> None:
    run = iii.start("orders::fulfil", {**ORDER, "items": ["tea", "moon"]})
    with pytest.raises(InvocationError, match="sold_out"):
        run.result()
    assert capsys.readouterr().out == "released tea after reserved tea\nrefunded 12.5 after {'charged': 12.5}\n"


def test_a_person_answers_over_http(iii: Engine) -> None:
    asked = iii.http.post("/requests", json={"request": "r1", "text": "May I?"})
    assert (asked.status_code, asked.json()) == (202, {"run": "r1"})
    link = iii.call("flow::get", run="r1")["status"]["answer"].removeprefix("POST ")
    assert iii.http.post(link, json={"approved": True}).json() == {"run": "r1"}
    assert iii.call("flow::result", run="r1") == "approved"
    assert iii.http.post(link, json={"approved": True}).status_code == 410


def test_a_request_that_nobody_answers_is_refused(iii: Engine) -> None:
    assert iii.start("approvals::ask", {"request": "r2", "text": "May I?"}).result(skip=True) == "refused"


def test_research_looks_words_up_side_by_side(iii: Engine) -> None:
    run = iii.start("research::answer", {"question": "what is tea"})
    assert run.result() == "what has 4 letters; is has 2 letters; tea has 3 letters"


# `crash_test` gives its runs ids of its own: the flows above are started with other ids than their inputs name.
@pytest.mark.parametrize(
    ("flow", "payload", "events", "steps"),
    [
        ("orders::fulfil", ORDER, {}, 5),
        ("orders::fulfil", {**ORDER, "items": ["tea", "moon"]}, {}, 3),
        ("approvals::ask", {"request": "r3", "text": "May I?"}, {"answer": {"approved": True}}, 1),
        ("research::answer", {"question": "what is tea"}, {}, 5),
    ],
)
def test_a_death_behind_any_step_changes_nothing(
    iii: Engine, flow: str, payload: object, events: dict[str, object], steps: int
) -> None:
    assert iii.crash_test(flow, payload, events=events) == steps
