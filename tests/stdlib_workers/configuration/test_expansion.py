"""`${VAR}` in values, and what a whole placeholder becomes."""

from __future__ import annotations

from typing import Any

import pytest

from stdlib_workers.configuration.expansion import MAX_EXPANDED, Expansion, TooLong

VARIABLES = {"PORT": "8080", "NAME": "shop", "EMPTY": "", "YES": "true", "NONE": "~", "RATIO": "-1.5e3"}


def expanded(template: Any) -> tuple[Any, list[str]]:
    expansion = Expansion(template, VARIABLES.get, "1.2.3")
    return expansion.value, expansion.missing


@pytest.mark.parametrize(
    ("template", "value"),
    [
        ("${PORT}", 8080),
        (" ${PORT} ", 8080),
        ("p${PORT}", "p8080"),
        ("${PORT}${PORT}", "80808080"),
        ("${YES}", True),
        ("${NONE}", None),
        ("${RATIO}", -1500.0),
        ("${EMPTY}", ""),
        ("${EMPTY:5}", ""),
        ("${GONE:5}", 5),
        ("${GONE:}", ""),
        ("${GONE:a b}", "a b"),
        ("${GONE:null}", None),
        ("v${GONE:__III_ENGINE_VERSION__}", "v1.2.3"),
        ("$NAME {NAME} ${}", "$NAME {NAME} ${}"),
        ({"${PORT}": ["${NAME}", 1, None]}, {"${PORT}": ["shop", 1, None]}),
        ("true", "true"),
        ("${GONE:1_000}", "1_000"),
    ],
)
def test_a_value_has_its_variables(template: Any, value: Any) -> None:
    found, missing = expanded(template)
    assert (found, type(found), missing) == (value, type(value), [])


def test_a_variable_without_value_stays_and_is_named_once() -> None:
    assert expanded(["${GONE}", "a ${GONE} ${LOST}"]) == (["${GONE}", "a ${GONE} ${LOST}"], ["GONE", "LOST"])


def test_a_value_cannot_grow_without_bound() -> None:
    with pytest.raises(TooLong, match="more than"):
        Expansion(["${BIG}"] * 3, {"BIG": "x" * (MAX_EXPANDED // 2)}.get, "")
