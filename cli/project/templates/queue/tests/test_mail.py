from typing import Any

from iii.testing import Engine


def dead_letters(iii: Engine) -> Any:
    return iii.call("engine::queue::dlq_messages", topic="mails")


def test_a_welcome_is_a_job_that_runs(iii: Engine) -> None:
    assert iii.call("mail::welcome", to="ada@example.org")["receipt"]
    assert dead_letters(iii) == []


def test_what_is_no_address_is_tried_again_and_then_kept(iii: Engine) -> None:
    iii.call("mail::welcome", to="ada")
    assert dead_letters(iii) == []
    iii.advance("1d")
    (letter,) = dead_letters(iii)
    assert letter["payload"]["to"] == "ada"
