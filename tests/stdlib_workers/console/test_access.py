"""Who gets in, what is a write, and what a one-time key is good for: decided without a process."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

import pytest

from iii.one_time_keys import MAX_KEYS, forget_keys, make_key, redeem
from stdlib_workers.console.access import API, MAX_SESSIONS, Sessions, refusal_of_request
from stdlib_workers.console.calls import MAX_RESULT, BadRequest, answer_of, request_of
from stdlib_workers.loopback.requests import hosts_of

HOSTS = hosts_of(3113)
OWN = {"host": ["127.0.0.1:3113"], "origin": ["http://127.0.0.1:3113"], "sec-fetch-site": ["same-origin"]}


def status(method: str, path: str, **fields: list[str] | None) -> int | None:
    """Return the status that refuses a request of our own page with these fields changed, None for one that goes on."""
    changed = {name.replace("_", "-"): values for name, values in fields.items()}
    sent = {name: values for name, values in {**OWN, **changed}.items() if values is not None}
    refused = refusal_of_request(method, path, sent, HOSTS)
    return None if refused is None else refused[0]


def test_the_consoles_own_page_may_ask() -> None:
    assert status("POST", f"{API}/call") is None
    assert status("GET", f"{API}/events", origin=None) is None
    assert status("GET", "/traces", origin=None, sec_fetch_site=["cross-site"]) is None


@pytest.mark.parametrize("host", [[], ["evil.example:3113"], ["127.0.0.1"], ["127.0.0.1:3114"], ["a", "b"]])
def test_another_host_is_refused_even_for_the_files(host: list[str]) -> None:
    assert status("GET", "/", host=host) == 421
    assert status("POST", f"{API}/call", host=host) == 421


@pytest.mark.parametrize(
    "origin",
    [
        None,
        ["null"],
        ["http://evil.example"],
        ["http://127.0.0.1:3111"],
        ["https://127.0.0.1:3113"],
        # Ours by another name: its page has another cookie.
        ["http://localhost:3113"],
        ["http://127.0.0.1:3113", "http://evil.example"],
    ],
)
def test_only_the_same_origin_may_change_something(origin: list[str] | None) -> None:
    assert status("POST", f"{API}/call", origin=origin) == 403


@pytest.mark.parametrize("site", [["cross-site"], ["same-site"], ["none"], ["same-origin", "cross-site"]])
def test_what_the_browser_calls_foreign_is_refused(site: list[str]) -> None:
    assert status("GET", f"{API}/events", origin=None, sec_fetch_site=site) == 403


def test_files_are_only_read() -> None:
    assert status("POST", "/") == 405


def test_a_key_opens_once(tmp_path: Path) -> None:
    key = make_key(tmp_path)
    assert not redeem(tmp_path, "another")
    assert not redeem(tmp_path, "../sessions/x")
    assert redeem(tmp_path, key)
    assert not redeem(tmp_path, key)


def test_no_key_and_no_session_stands_on_the_disk(tmp_path: Path) -> None:
    key = make_key(tmp_path)
    cookie = Sessions(tmp_path, 3113).begin().partition(";")[0]
    token = cookie.partition("=")[2]
    for folder, _, files in os.walk(tmp_path):
        assert Path(folder) == tmp_path or os.stat(folder).st_mode & 0o077 == 0
        for file in files:
            path = Path(folder, file)
            assert path.stat().st_mode & 0o077 == 0
            assert key not in f"{path}{path.read_text()}"
            assert token not in f"{path}{path.read_text()}"


def test_keys_are_few_and_those_of_earlier_runs_are_worth_nothing(tmp_path: Path) -> None:
    keys = [make_key(tmp_path) for _ in range(MAX_KEYS + 5)]
    assert sum(redeem(tmp_path, key) for key in keys) == MAX_KEYS
    late = make_key(tmp_path)
    forget_keys(tmp_path)
    assert not redeem(tmp_path, late)


def test_a_session_lives_on_with_the_next_process_and_sessions_are_few(tmp_path: Path) -> None:
    sessions = Sessions(tmp_path, 3113)
    first = sessions.begin()
    assert "HttpOnly" in first
    assert "SameSite=Strict" in first
    assert f"Path={API}" in first
    cookie = first.partition(";")[0]
    assert Sessions(tmp_path, 3113).is_open(f"other=1; {cookie}")
    assert not Sessions(tmp_path, 3114).is_open(cookie)  # of another project's console on this machine
    for broken in ("", "iii_console_3113=", "iii_console_3113=../keys/x", "\x00=;;"):
        assert not sessions.is_open(broken)
    for age, file in enumerate((tmp_path / "console" / "sessions").iterdir()):
        os.utime(file, (age + 1, age + 1))
    assert not sessions.is_open(cookie)  # not seen for longer than a session lives
    for _ in range(MAX_SESSIONS + 3):
        sessions.begin()
    assert len(list((tmp_path / "console" / "sessions").iterdir())) == MAX_SESSIONS


@pytest.mark.parametrize(
    ("body", "said"),
    [
        (None, "must be an object"),
        ([], "must be an object"),
        ({"function_id": ""}, "must be an object"),
        ({"function_id": "a::b", "trace": {}}, "there is no field 'trace'"),
        ({"function_id": "a::b", "timeout_ms": 0}, "timeout_ms must be from 1"),
        ({"function_id": "a::b", "timeout_ms": True}, "timeout_ms must be from 1"),
    ],
)
def test_what_is_no_call_is_told_why(body: Any, said: str) -> None:
    with pytest.raises(BadRequest, match=said):
        request_of(body)


def test_a_long_result_is_cut_and_says_how_long_it_is() -> None:
    assert answer_of({"a": 1}) == {"result": {"a": 1}}
    answer = answer_of("é" * MAX_RESULT)
    assert answer.keys() == {"cut", "bytes"}
    assert answer["bytes"] == 2 * MAX_RESULT + 2
    assert 0 < len(answer["cut"]) < 100_000
