"""The engine's answer to workers that listen by themselves, and how long wrong tokens wait."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest
from msgspec import Raw, ValidationError
from msgspec.json import encode

from iii.engine.builtins.connection_check import ConnectionCheck
from iii.engine.routing.peer import Peer
from iii.engine.security.admission import (
    COUNTING_INTERVAL,
    MAX_ADDRESSES,
    MAX_AT_ONCE,
    REJECTION_INTERVAL,
    AuthThrottle,
)
from iii.engine.security.peer_uid import Address

OURS, THEIRS = ("127.0.0.1", 1), ("127.0.0.1", 2)
# "secret" in base64url
TOKEN_NAME = "iii.token.c2VjcmV0"


def answer(client: Address, **shown: Any) -> dict[str, Any]:
    """Return what a reception with the token `secret` says."""
    connection_check = ConnectionCheck("secret", AuthThrottle(), lambda client, _: client == OURS)
    payload = Raw(encode({"client": client, "server": ("127.0.0.1", 9), **shown}))
    return asyncio.run(connection_check.answer(payload, Peer("w", kind="worker")))


def test_our_user_needs_no_token() -> None:
    assert answer(OURS) == {"allowed": True, "subprotocol": None}


@pytest.mark.parametrize(
    ("shown", "is_allowed"),
    [
        ({}, False),
        ({"authorizations": ["Bearer secret"]}, True),
        ({"subprotocols": ["x", TOKEN_NAME]}, True),
        ({"authorizations": ["Bearer secre"]}, False),
        ({"authorizations": ["Bearer secret"], "subprotocols": ["iii.token.AAAA"]}, False),
        ({"authorizations": ["Bearer secret"], "query": "token=secret"}, False),
    ],
)
def test_another_user_needs_the_token(shown: dict[str, Any], is_allowed: bool) -> None:
    assert answer(THEIRS, **shown)["allowed"] is is_allowed


def test_our_user_with_a_wrong_token_is_refused() -> None:
    assert not answer(OURS, authorizations=["Bearer nope"])["allowed"]


def test_the_subprotocol_that_carried_the_token_is_to_be_confirmed() -> None:
    assert answer(THEIRS, subprotocols=[TOKEN_NAME])["subprotocol"] == TOKEN_NAME


@pytest.mark.parametrize("payload", [b"null", b"{}", b'{"client": ["a", "b"], "server": ["a", 1]}'])
def test_a_question_that_is_none_is_an_error(payload: bytes) -> None:
    with pytest.raises(ValidationError):
        asyncio.run(
            ConnectionCheck("secret", AuthThrottle(), lambda *_: True).answer(Raw(payload), Peer("w", kind="worker"))
        )


def test_s02_after_ten_wrong_tokens_in_a_second_the_answers_wait() -> None:
    throttle = AuthThrottle()
    assert [throttle.delay("a", 5.0) for _ in range(MAX_AT_ONCE)] == [0.0] * MAX_AT_ONCE
    assert throttle.delay("a", 5.5) == REJECTION_INTERVAL
    assert throttle.delay("b", 5.5) == 0.0
    assert throttle.delay("a", 5.0 + COUNTING_INTERVAL) == 0.0


def test_s02_the_memory_of_the_throttle_is_bounded() -> None:
    throttle = AuthThrottle()
    for number in range(2 * MAX_ADDRESSES):
        throttle.delay(str(number), 0.0)
    assert repr(throttle) == f"<AuthThrottle of {MAX_ADDRESSES} addresses>"
