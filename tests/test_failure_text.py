"""The text of a failure names the function once, wherever it is shown."""

from __future__ import annotations

import pytest

from iii.failure_text import named, unnamed


@pytest.mark.parametrize(
    "message",
    [
        "math::bad returned what its response format does not admit: c is missing",
        "math::bad: a must be a number",
        "the result of math::bad cannot be made JSON",
        "no worker provides `math::bad`",
        "math::bad",
    ],
)
def test_a_message_that_names_the_function_stays(message: str) -> None:
    assert named("math::bad", message) == message


@pytest.mark.parametrize("message", ["", "no rooms are left", "math::badly is another one", "a.math::bad is, too"])
def test_a_message_that_does_not_name_it_gets_its_name(message: str) -> None:
    assert named("math::bad", message) == f"math::bad: {message}"


@pytest.mark.parametrize(
    ("message", "rest"),
    [
        ("math::bad returned what it must not", "returned what it must not"),
        ("math::bad: invocation timed out", "invocation timed out"),
        ("math::badly failed", "math::badly failed"),
        ("the result of math::bad", "the result of math::bad"),
    ],
)
def test_after_the_name_of_the_function_the_message_goes_on_without_it(message: str, rest: str) -> None:
    assert unnamed("math::bad", message) == rest
