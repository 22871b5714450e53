"""Declared secrets, and what stands behind the name of one, are in nothing that is shown or kept."""

from __future__ import annotations

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iii.engine.security.redaction import REDACTED, Redactor, is_secret_name, redactor_of, secrets_in


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("password=hunter22 and more", f"password={REDACTED} and more"),
        ('{"api_key": "abc\\"d", "n": 1}', f'{{"api_key": "{REDACTED}", "n": 1}}'),
        ("Authorization: Bearer abc.def-ghi", f"Authorization: {REDACTED}"),
        ("set-cookie: a=b; path=/", f"set-cookie: {REDACTED}; path=/"),
        ("client_secret : 'x y'", f"client_secret : '{REDACTED}'"),
        ("postgres://me:pass@host/db", f"postgres://me:{REDACTED}@host/db"),
        (r"""{"m": "{\"password\": \"x y\"}"}""", rf"""{{"m": "{{\"password\": \"{REDACTED}\"}}"}}"""),
        ("5 tokens: left", "5 tokens: left"),
        ("the key = 5", "the key = 5"),
        ("nothing to hide", "nothing to hide"),
        ("", ""),
    ],
)
def test_what_stands_behind_a_secret_name_is_replaced(text: str, shown: str) -> None:
    assert Redactor()(text) == shown
    assert Redactor()(shown) == shown


@given(st.text(min_size=6, max_size=40), st.text(max_size=40), st.text(max_size=40))
def test_a_declared_secret_is_in_no_text(secret: str, before: str, after: str) -> None:
    redactor = Redactor([secret])
    if secret not in REDACTED and secret not in redactor(before + after):
        assert secret not in redactor(f"{before} {secret} {after}").replace(REDACTED, "")


def test_a_short_value_is_no_secret_and_a_longer_one_goes_before_its_part() -> None:
    assert Redactor(["12345"])("12345") == "12345"
    assert Redactor(["abcdef", "abcdefgh"])("abcdefgh") == REDACTED


def test_json_stays_json_when_values_are_replaced() -> None:
    text = Redactor(["canary-1"]).values('{"token": 5, "x": ["canary-1"]}')
    assert json.loads(text) == {"token": 5, "x": [REDACTED]}


@pytest.mark.parametrize("name", ["API_KEY", "apiKey", "DB_PASSWORD", "SECRET", "Authorization", "KEY", "SENTRY_DSN"])
def test_names_of_secrets(name: str) -> None:
    assert is_secret_name(name)


@pytest.mark.parametrize("name", ["KEYBOARD", "MONKEY", "MAX_TOKENS", "PATH"])
def test_names_that_are_none(name: str) -> None:
    assert not is_secret_name(name)


def test_secrets_are_found_at_any_depth_of_a_config() -> None:
    config = {
        "url": "http://a",
        "token": "t-1",
        "nested": {"password": "p-1", "n": 1, "list": [{"secret": "s-1"}, "plain"]},
        "credentials": {"user": "u-1", "deep": {"pass": "d-1"}},
        "cookies": ["c-1", 5],
    }
    assert sorted(secrets_in(config)) == ["c-1", "d-1", "p-1", "s-1", "t-1", "u-1"]
    hide = redactor_of([config, {"API_TOKEN": "canary-2"}])
    assert hide("it says canary-2") == f"it says {REDACTED}"


@pytest.mark.parametrize("text", ["a" * 60_000, "token" * 12_000, "key.a-" * 10_000, "://" * 20_000, 'token="' * 9_000])
def test_a_long_line_costs_no_more_than_its_length(text: str) -> None:
    redactor = Redactor(["canary-1"])
    for _ in range(5):  # a cost of its length squared would take an hour
        assert redactor(redactor(text)) == redactor(text)
