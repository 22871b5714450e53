"""The decision table of the handshake: every combination of Host, Origin and token."""

from __future__ import annotations

import base64
from itertools import product

import pytest
from msgspec.structs import replace

from iii.engine.security.admission import (
    SUBPROTOCOL,
    AdmissionPolicy,
    HandshakeRequest,
    HandshakeResponse,
    admit,
    loopback_hosts,
)

PORT = 49134
TOKEN = "a-secret-token"
CONSOLE = "http://127.0.0.1:3113"
POLICY = AdmissionPolicy(loopback_hosts(PORT), (CONSOLE,), TOKEN)
REQUEST = HandshakeRequest((f"127.0.0.1:{PORT}",), (), (), (), "", is_same_user=True)


def in_a_subprotocol(token: str) -> str:
    return SUBPROTOCOL + base64.urlsafe_b64encode(token.encode()).decode().rstrip("=")


GOOD_HOSTS = [("127.0.0.1:49134",), ("localhost:49134",), ("[::1]:49134",)]
BAD_HOSTS = {
    (): 400,
    ("127.0.0.1:49134", "127.0.0.1:49134"): 400,
    ("127.0.0.1",): 421,
    ("127.0.0.1:1",): 421,
    ("LOCALHOST:49134",): 421,
    ("localhost.:49134",): 421,
    ("evil.test:49134",): 421,
    ("0.0.0.0:49134",): 421,
    ("user@127.0.0.1:49134",): 421,
    ("::1:49134",): 421,
    ("[::ffff:127.0.0.1]:49134",): 421,
    ("",): 421,
}
GOOD_ORIGINS: list[tuple[str, ...]] = [(), (CONSOLE,)]
BAD_ORIGINS = [
    ("null",),
    ("",),
    ("http://localhost:3113",),
    ("https://127.0.0.1:3113",),
    ("HTTP://127.0.0.1:3113",),
    (CONSOLE + "/",),
    (CONSOLE + ".",),
    ("http://127.0.0.1:31130",),
    ("http://127.0.0.1",),
    ("http://user@127.0.0.1:3113",),
    ("file://",),
    ("http://evil.test",),
    (CONSOLE, CONSOLE),
    (CONSOLE, "http://evil.test"),
]
GOOD_TOKENS = [
    {},
    {"authorizations": (f"Bearer {TOKEN}",)},
    {"authorizations": (f"bearer {TOKEN}",)},
    {"subprotocols": (in_a_subprotocol(TOKEN),)},
    {"subprotocols": ("chat", in_a_subprotocol(TOKEN))},
]
BAD_TOKENS = [
    {"authorizations": ("Bearer",)},
    {"authorizations": ("Bearer wrong",)},
    {"authorizations": (f"Bearer {TOKEN[:-1]}",)},
    {"authorizations": (f"Bearer {TOKEN}x",)},
    {"authorizations": (f"Basic {TOKEN}",)},
    {"authorizations": (TOKEN,)},
    {"authorizations": (f"Bearer {TOKEN}", "Bearer wrong")},
    {"subprotocols": (in_a_subprotocol("wrong"),)},
    {"subprotocols": (SUBPROTOCOL,)},
    {"subprotocols": (SUBPROTOCOL + "é",)},
    {"authorizations": (f"Bearer {TOKEN}",), "subprotocols": (in_a_subprotocol("wrong"),)},
    {"query": f"token={TOKEN}"},
    {"query": "token="},
    {"query": f"a=1&token={TOKEN}", "authorizations": (f"Bearer {TOKEN}",)},
]


def test_s01_only_the_right_host_origin_and_token_together_are_let_in() -> None:
    hosts = dict.fromkeys(GOOD_HOSTS, 101) | BAD_HOSTS
    origins = dict.fromkeys(GOOD_ORIGINS, 101) | dict.fromkeys(BAD_ORIGINS, 403)
    tokens = [(token, 101) for token in GOOD_TOKENS] + [(token, 401) for token in BAD_TOKENS]
    tried = 0
    for (host, by_host), (origin, by_origin), (token, by_token) in product(hosts.items(), origins.items(), tokens):
        expected = next((status for status in (by_host, by_origin, by_token) if status != 101), 101)
        request = replace(REQUEST, hosts=host, origins=origin, **token)
        assert admit(POLICY, request).status == expected, request
        tried += 1
    assert tried > 200


def test_another_user_needs_the_token() -> None:
    stranger = replace(REQUEST, is_same_user=False)
    assert admit(POLICY, stranger).status == 401
    assert admit(POLICY, replace(stranger, authorizations=(f"Bearer {TOKEN}",))).status == 101


def test_a_token_in_a_subprotocol_is_confirmed_by_name() -> None:
    offered = in_a_subprotocol(TOKEN)
    request = replace(REQUEST, is_same_user=False, subprotocols=("chat", offered))
    assert admit(POLICY, request) == HandshakeResponse(101, offered)


@pytest.mark.parametrize("query", ["token=x", ""])
def test_where_an_auth_function_decides_the_query_is_its_business(query: str) -> None:
    policy = replace(POLICY, token=None, hosts=None)
    request = replace(REQUEST, is_same_user=False, query=query, hosts=("any.example",))
    assert admit(policy, request).status == 101
