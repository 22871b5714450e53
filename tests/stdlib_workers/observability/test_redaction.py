"""Redaction: no secret survives in any place it can stand, and what is harmless stays as it is."""

from __future__ import annotations

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iii.redaction import MAX_DEPTH, REDACTED, BatchRedactor, is_secret_field, may_hold_secret
from stdlib_workers.observability.ingest.batches import IngestFilter, batch_from_telemetry
from stdlib_workers.observability.records.spans import span_json
from tests.support.observed import NOW, log, span

CANARY = "c4n4ry-5ecr3t-v4lue"


@pytest.mark.parametrize(
    "name",
    [
        *("authorization", "Authorization", "proxy-authorization", "cookie", "set-cookie", "x-api-key", "api-key"),
        *("api_key", "apiKey", "access_token", "refreshToken", "password", "db_password", "PASSWD", "secret"),
        *("client_secret", "credential", "credentials", "DATABASE_DSN", "private_key", "http.request.header.cookie"),
    ],
)
def test_names_of_secrets(name: str) -> None:
    assert is_secret_field(name)


@pytest.mark.parametrize("name", ["key", "monkey", "iii.function.id", "max_tokens", "author", "scope", "name", "id"])
def test_names_that_hold_none(name: str) -> None:
    assert not is_secret_field(name)


@pytest.mark.parametrize(
    "text",
    [
        f"password={CANARY}",
        f"PASSWORD: '{CANARY}' was wrong",
        f'{{"password": "{CANARY}", "a": 1}}',
        f'{{"outer": {{"api_key": ["{CANARY}"]}}}}',
        f'{{"password": "{CANARY}',
        f"ValueError: {{'token': '{CANARY}'}}",
        f"Authorization: Bearer {CANARY}",
        f"sent Bearer {CANARY} to it",
        f"postgres://me:{CANARY}@db.local/x",
        f"curl -H 'x-api-key: {CANARY}'",
        f'[["password", "{CANARY}"]]',
        f'"{{\\"secret\\": \\"{CANARY}\\"}}"',
    ],
)
def test_text_loses_its_secrets(text: str) -> None:
    found = BatchRedactor().text(text)
    assert CANARY not in found
    assert REDACTED in found


@pytest.mark.parametrize("text", ["", "hello", "https://example.com/path?a=1", '{"key":"b"}', "a token of thanks"])
def test_harmless_text_stays(text: str) -> None:
    assert BatchRedactor().text(text) == text


def test_null_and_flags_under_a_sensitive_name_stay() -> None:
    assert BatchRedactor().value({"token": None, "password": True}) == {"token": None, "password": True}


def test_a_secret_that_was_seen_is_cut_out_of_all_texts_of_the_batch() -> None:
    batch = {
        "spans": [
            span(1, attributes={"payload": json.dumps({"password": CANARY})}),
            span(2, status="error", status_description=f"no user for {CANARY}", name=f"login {CANARY}"),
        ],
        "logs": [log(f"tried {CANARY}", attributes={"note": f'quoted "{CANARY}"'})],
    }
    batch = batch_from_telemetry(batch, IngestFilter(), 1)
    assert CANARY not in repr(batch)
    assert batch.spans[1].name == f"login {REDACTED}"


def test_a_secret_of_digits_breaks_no_number_of_another_record() -> None:
    event = {"name": "e", "timestamp_unix_nano": NOW, "attributes": {}}
    spans = [span(1, attributes={"password": "000000"}), span(2, events=[event])]
    rows = batch_from_telemetry({"spans": spans}, IngestFilter(), 1).spans
    assert "000000" in str(NOW)
    assert span_json(rows[1])["events"][0]["timestamp_unix_nano"] == NOW


def test_a_secret_with_marks_that_json_escapes_is_found_in_json_too() -> None:
    secret = 'two "words"'
    redactor = BatchRedactor()
    redactor.value({"password": secret})
    assert redactor.cut_out(json.dumps({"a": secret})) == json.dumps({"a": REDACTED})


def test_what_nests_too_deep_is_replaced_whole() -> None:
    value: Any = CANARY
    for _ in range(MAX_DEPTH + 1):
        value = {"a": value}
    assert CANARY not in json.dumps(BatchRedactor().value(value))


@pytest.mark.parametrize("word", ["a", "token", "://a:", "key=", "Bearer ", '{"', "passw\\"])
def test_long_text_without_a_break_costs_no_more_than_its_length(word: str) -> None:
    text = "secret " + word * (400_000 // len(word))
    assert len(BatchRedactor().text(text)) > 6


names = st.sampled_from(["password", "a", "api_key", "b", "Cookie", "list"])
values = st.recursive(
    st.sampled_from([1, None, "plain", True]),
    lambda inner: st.one_of(st.lists(inner, max_size=3), st.dictionaries(names, inner, max_size=3)),
    max_leaves=8,
)


def planted(value: Any, *, under: bool = False) -> Any:
    """Put the canary wherever a sensitive name stands above."""
    if isinstance(value, dict):
        return {name: planted(inner, under=under or is_secret_field(name)) for name, inner in value.items()}
    if isinstance(value, list):
        return [planted(inner, under=under) for inner in value]
    return CANARY if under else value


@given(values)
def test_whatever_stands_under_a_sensitive_name_never_survives(value: Any) -> None:
    secret = planted(value)
    assert CANARY not in json.dumps(BatchRedactor().value(secret))
    assert CANARY not in BatchRedactor().text(json.dumps(secret))


@given(st.text(max_size=60))
def test_what_can_hold_no_secret_is_not_changed(text: str) -> None:
    if not may_hold_secret(text):
        assert BatchRedactor().text(text) == text


@given(values)
def test_redaction_keeps_the_shape_and_is_done_once(value: Any) -> None:
    once = BatchRedactor().value(value)
    assert BatchRedactor().value(once) == once
    if isinstance(value, dict):
        assert list(once) == list(value)


def attributes_of_calls(*calls: dict[str, Any]) -> list[dict[str, str]]:
    """Return the attributes of these calls as they are stored, all of one batch."""
    spans = [span(number, attributes=attributes) for number, attributes in enumerate(calls, start=1)]
    batch = batch_from_telemetry({"spans": spans}, IngestFilter(), NOW)
    return [dict(span_json(row)["attributes"]) for row in batch.spans]


@pytest.mark.parametrize("name", ["iii.invocation.id", "iii.caller.worker", "password", "note"])
def test_a_call_keeps_its_secrets_no_more_than_the_calls_like_it_before(name: str) -> None:
    plain = {"iii.function.id": "math::add", "iii.invocation.id": "c1", "iii.caller.worker": "shop"}
    calls = [{**plain, name: value} for value in ("a", f"token={CANARY}", "b", f"token={CANARY}")]
    first, _, third, _ = found = attributes_of_calls(*calls)
    assert CANARY not in str(found)
    assert (first[name], third[name]) == ((REDACTED, REDACTED) if name == "password" else ("a", "b"))
    assert list(first) == list({**plain, name: ""})


@pytest.mark.parametrize("values", [(1, True, 1.0, "1"), (0, False, 0.0, None), ([1], [True], {"a": 1}, {"a": 1.0})])
def test_calls_with_equal_attributes_of_other_types_stay_apart(values: tuple[Any, ...]) -> None:
    calls = [{"iii.invocation.id": "c", "iii.worker.generation": value} for value in values]
    texts = [one["iii.worker.generation"] for one in attributes_of_calls(*calls)]
    assert [
        value if isinstance(value, str) else json.loads(text) for value, text in zip(values, texts, strict=True)
    ] == [*values]
    assert [type(json.loads(text)) for text in texts[:3]] == [type(value) for value in values[:3]]


@given(st.lists(st.text(), min_size=2, max_size=6))
def test_the_ids_of_calls_stay_as_they_are(ids: list[str]) -> None:
    calls = [{"iii.function.id": "math::add", "iii.invocation.id": id, "iii.attempt": 2} for id in ids]
    for id, found in zip(ids, attributes_of_calls(*calls), strict=True):
        if not may_hold_secret(id):
            assert found == {"iii.function.id": "math::add", "iii.invocation.id": id, "iii.attempt": "2"}
