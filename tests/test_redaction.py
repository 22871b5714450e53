"""Declared secrets, and what stands behind the name of one, are in nothing that is shown or kept."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import example, given
from hypothesis import strategies as st

from iii.redaction import REDACTED, BatchRedactor, Redactor, is_secret_name, secrets_in


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ("password=hunter22 and more", f"password={REDACTED} and more"),
        ('{"api_key": "abc\\"d", "n": 1}', f'{{"api_key": "{REDACTED}", "n": 1}}'),
        ("Authorization: Bearer abc.def-ghi", f"Authorization: {REDACTED}"),
        ("set-cookie: a=b; path=/", f"set-cookie: {REDACTED}"),
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


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        # Headers lose all that belongs to them, and no more.
        ("Cookie: a=S1; session=S2; csrftoken=S3", f"Cookie: {REDACTED}"),
        ("cookie: a=S1; b=S2\nhost: x", f"cookie: {REDACTED}\nhost: x"),
        ("curl -H 'Cookie: a=S1; b=S2' http://x", f"curl -H 'Cookie: {REDACTED}' http://x"),
        ('Authorization: Digest username="S1", response="S2"', f"Authorization: {REDACTED}"),
        ("Authorization: AWS4-HMAC-SHA256 Credential=S1/x, Signature=S2", f"Authorization: {REDACTED}"),
        ("Authorization: Basic\tS1Aa status=200", f"Authorization: {REDACTED} status=200"),
        ("Proxy-Authorization:\tBearer\tS1", f"Proxy-Authorization:\t{REDACTED}"),
        ("sent Basic\tdXNlcjpwYXNz to it", f"sent Basic\t{REDACTED} to it"),
        # Arguments of programs.
        ("tool --password S1 http://x", f"tool --password {REDACTED} http://x"),
        ("tool --db-api-key 'S1 S2' -v", f"tool --db-api-key '{REDACTED}' -v"),
        ("['tool', '--token', 'S1']", f"['tool', '--token', '{REDACTED}']"),
        ('{"argv": ["tool", "--password", "S1", "x"]}', f'{{"argv": ["tool", "--password", "{REDACTED}", "x"]}}'),
        ("tool --password --verbose", "tool --password --verbose"),
        # XML: elements, attributes, CDATA.
        ("<a><password>S1</password><b>c</b></a>", f"<a><password>{REDACTED}</password><b>c</b></a>"),
        ("<db:Password kind='x'>S1</db:Password>", f"<db:Password kind='x'>{REDACTED}</db:Password>"),
        ("<secret><![CDATA[S1<>&]]></secret>", f"<secret>{REDACTED}</secret>"),
        ('<login password="S1" name="b"/>', f'<login password="{REDACTED}" name="b"/>'),
        ("<password>S1", f"<password>{REDACTED}"),
        ("<password/><b>c</b>", "<password/><b>c</b>"),
        # Percent-encoded, once and twice.
        ("a=1&password%3DS1&b=2", f"a=1&password%3D{REDACTED}&b=2"),
        ("?next=%3Ftoken%253dS1", f"?next=%3Ftoken%253d{REDACTED}"),
        ("%22password%22%3A%22S1%22", f"%22password%22%3A{REDACTED}"),
        # Values as Python shows them.
        ("{'password': ['S1', 'S2'], 'b': 1}", f"{{'password': {REDACTED}, 'b': 1}}"),
        ("{'token': {'v': ('S1', [\"S2]\"])}}", f"{{'token': {REDACTED}}}"),
        ("{'password': ['S1', 'S2", f"{{'password': {REDACTED}"),
        ("[(b'cookie', b'a=S1; b=S2')]", f"[(b'cookie', b'{REDACTED}')]"),
        ("{'authorization': b'Bearer S1'}", f"{{'authorization': b'{REDACTED}'}}"),
        ('"password" => "S1"', f'"password" => "{REDACTED}"'),
        ("password := S1", f"password := {REDACTED}"),
        # Others.
        (
            "-----BEGIN RSA PRIVATE KEY-----\nS1\nS2\n-----END RSA PRIVATE KEY-----\nx",
            f"-----BEGIN RSA PRIVATE KEY-----{REDACTED}-----END RSA PRIVATE KEY-----\nx",
        ),
        ('{"event": "login", "password": 1234}', f'{{"event":"login","password":"{REDACTED}"}}'),
        # Prose.
        ("basic authentication failed for the bearer authentication scheme", None),
        ("- password reset for bob; a token of thanks", None),
    ],
)
def test_secrets_are_found_in_every_form_that_logs_have(text: str, shown: str | None) -> None:
    for redact in (Redactor(), BatchRedactor().text):
        redacted = redact(text)
        assert redacted.replace(", ", ",").replace(": ", ":") == (shown or text).replace(", ", ",").replace(": ", ":")
        assert redact(redacted) == redacted


@given(st.text(min_size=6, max_size=40), st.text(max_size=40), st.text(max_size=40))
def test_a_declared_secret_is_in_no_text(secret: str, before: str, after: str) -> None:
    redactor = Redactor([secret])
    if secret not in REDACTED and secret not in redactor(before + after):
        assert secret not in redactor(f"{before} {secret} {after}").replace(REDACTED, "")


def test_a_short_value_is_no_secret_and_a_longer_one_goes_before_its_part() -> None:
    assert Redactor(["12345"])("12345") == "12345"
    assert Redactor(["abcdef", "abcdefgh"])("abcdefgh") == REDACTED


def test_json_stays_json_when_values_are_replaced() -> None:
    text = Redactor(["canary-1"]).cut_out('{"token": 5, "x": ["canary-1"]}')
    assert json.loads(text) == {"token": 5, "x": [REDACTED]}


@pytest.mark.parametrize(
    "name",
    [
        *("API_KEY", "apiKey", "DB_PASSWORD", "SECRET", "Authorization", "KEY", "SENTRY_DSN", "COOKIES", "pwd"),
        *("ENCRYPTION_KEY", "license-key", "MasterKey", "refresh_token", "passphrase", "my credentials", "ſecret"),
    ],
)
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
        "cookies": ["c-1", 5, True, None],
        "rows": [[{"password": ["l-1", ["l-2", {"x": "l-3"}]]}]],
        "database": "postgres://me:db-1@db.local/x",
    }
    expected = ["5", "c-1", "d-1", "db-1", "l-1", "l-2", "l-3", "p-1", "s-1", "t-1", "u-1"]
    assert sorted(secrets_in(config)) == expected
    hide = Redactor([*secrets_in(config), *secrets_in({"API_TOKEN": "canary-2"})])
    assert hide("it says canary-2") == f"it says {REDACTED}"


@pytest.mark.parametrize(
    "text",
    [
        *("a" * 60_000, "token" * 12_000, "key.a-" * 10_000, "://" * 20_000, 'token="' * 9_000, "<token>" * 8_000),
        *("--token " * 8_000, "token=[" * 8_000, "token=[{(" * 6_000, "(b'token', " * 5_000, "Cookie: " * 8_000),
        *(
            "-----BEGIN PRIVATE KEY-----" * 2_000,
            "bearer " * 8_000,
            "token%3D" * 8_000,
            "<token a" * 8_000,
            "-" * 60_000,
        ),
        *("'cookie:" * 8_000, "<![CDATA[token" * 4_000, "token='\\" * 8_000),
    ],
)
def test_a_long_line_costs_no_more_than_its_length(text: str) -> None:
    redactor = Redactor(["canary-1"])
    for _ in range(5):  # a cost of its length squared would take an hour
        assert redactor(redactor(text)) == redactor(text)


# Text in which much can be taken for a secret, and JSON of any shape that holds such text.
DECLARED = ("hunter22", "123456", 'two "words"', "D]hunter", "[REDACTED]x")
FRAGMENTS = st.sampled_from(
    [
        *("password", "token", "api_key", "Authorization", "secret", "max_tokens", "=", ": ", ":", "://", "@", "me"),
        *("Cookie: ", "--password ", "<token>", "</", "%3D", "=>", "(", ")", "b'", "-----BEGIN PRIVATE KEY-----"),
        *(
            "Bearer ",
            "basic ",
            "basic\t",
            "abcdefgh",
            "5",
            "123456",
            "1234567",
            "hunter22",
            "two ",
            '"words"',
            REDACTED,
            "[RED",
        ),
        *('"', "'", '\\"', "\\", "\n", " ", "     ", ",", ";", "{", "}", "[", "]", "/", "é", "\ud83d\ude00", "x" * 41),
    ]
)
TEXTS = st.lists(FRAGMENTS, max_size=12).map("".join)
JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.just(123456)
    | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXTS, inner, max_size=4),
    max_leaves=12,
)
JSON_TEXTS = st.builds(
    lambda value, is_spaced, is_ascii: json.dumps(
        value, separators=(", ", ": ") if is_spaced else (",", ":"), ensure_ascii=is_ascii
    ),
    JSON_VALUES,
    st.booleans(),
    st.booleans(),
)


def redacted_of_batch(text: str) -> str:
    """Return a text as the records of a batch keep it."""
    redactor = BatchRedactor()
    return redactor.cut_out(redactor.text(text))


@given(TEXTS | JSON_TEXTS)
@example('{"://password:":null,"@":null}')
@example('{"password":null,"password\\u00e9":{"\\ud83d\\ude00":null}}')
@example('://password:"x"@host,a@b')
@example('://me:token="a b"@host')
def test_redacting_twice_gives_what_redacting_once_gives(text: str) -> None:
    redactor, batch = Redactor(DECLARED), BatchRedactor()
    for redact in (redactor, redactor.cut_out, redactor.text, batch.text, redacted_of_batch):
        once = redact(text)
        assert redact(once) == once


@given(JSON_TEXTS)
def test_json_stays_json(text: str) -> None:
    redactor, batch = Redactor(DECLARED), BatchRedactor()
    for redact in (redactor, redactor.cut_out, redactor.text, batch.text, redacted_of_batch):
        json.loads(redact(text))


@given(JSON_VALUES)
def test_a_value_is_redacted_once_and_for_all(value: Any) -> None:
    once = BatchRedactor().value(value)
    assert BatchRedactor().value(once) == once


@pytest.mark.parametrize(
    ("text", "shown"),
    [
        ('{"token": 5, "n": 1}', {"token": REDACTED, "n": 1}),
        ('{"cookies": ["a-1", {"b": 2}], "n": [1]}', {"cookies": REDACTED, "n": [1]}),
        ('{"password": {"old": "x", "new": "y"}}', {"password": REDACTED}),
        ('{"token": null, "password": true}', {"token": None, "password": True}),
        ('{"id": 123456, "longer": 1234567, "text": "123456"}', {"id": REDACTED, "longer": 1234567, "text": REDACTED}),
        ("\"it's password='x\"", f"it's password='{REDACTED}'"),
        ("123456", REDACTED),
    ],
)
def test_json_whose_secrets_are_no_strings_stays_json(text: str, shown: Any) -> None:
    assert json.loads(Redactor(DECLARED)(text)) == shown


@pytest.mark.parametrize(
    "text",
    [
        "password=hunter22-and-more",
        'password="hunter22 and more"',
        'password="two lines\nand more"',
        "token= basic [REDACTED]and-more",
        "password=[REDACTED]and-more",
    ],
)
def test_no_part_of_a_value_is_left_beside_what_replaces_another(text: str) -> None:
    assert "more" not in Redactor(["hunter22"])(text)
    assert "more" not in BatchRedactor().text(text)


def test_half_of_a_surrogate_pair_stays_an_escape() -> None:
    assert BatchRedactor().text('{"password":"abcdef","a":"\\ud800"}').encode()
