"""Requests go only where they may: forms of addresses, resolvers that change their mind, hostile servers."""

from __future__ import annotations

import asyncio
import gzip
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import httpcore
import pytest

from stdlib_workers.egress import client
from stdlib_workers.egress.client import MAX_BODY, Client, Request, RequestFailed, Response, ResponseFailed
from stdlib_workers.egress.rules import EgressDenied, Rules, is_allowed, is_public, rules_from
from stdlib_workers.values import OptionError

PUBLIC = [
    *("8.8.8.8", "1.1.1.1", "172.32.0.1", "172.15.255.255", "11.0.0.1", "168.63.129.15", "168.63.129.17"),
    *("192.88.98.1", "192.0.1.1", "198.20.0.1", "100.128.0.1", "223.255.255.254", "169.253.0.1"),
    *("2606:4700::1111", "2001:4860::8888", "2a00:1450::1", "3ffe::1", "2001:200::1"),
    # Public addresses inside: mapped, translated, NAT64, 6to4, ISATAP.
    *("::ffff:8.8.8.8", "::ffff:0:8.8.8.8", "64:ff9b::8.8.8.8", "2002:808:808::1", "2606:4700::5efe:8.8.8.8"),
]
INSIDE = [
    *("127.0.0.1", "127.255.255.254", "0.0.0.0", "0.1.2.3", "10.0.0.1", "10.255.255.255", "172.16.0.1", "172.31.9.9"),
    *("192.168.0.1", "169.254.169.254", "169.254.0.1", "100.64.0.1", "100.127.255.255", "192.0.0.1", "192.0.0.170"),
    *("192.0.2.1", "198.51.100.7", "203.0.113.5", "198.18.0.1", "198.19.255.255", "192.88.99.1", "168.63.129.16"),
    *("224.0.0.1", "239.1.2.3", "240.0.0.1", "255.255.255.255"),
    *("::1", "::", "fe80::1", "fe80::1%eth0", "febf::1", "fc00::1", "fdff::1", "ff02::1", "ff0e::1", "fec0::1"),
    *("2001:db8::1", "3fff::1", "3fff:fff::1", "5f00::1", "100::1", "100:0:0:1::1", "4000::1", "fd00:ec2::254"),
    # Mapped, compatible, translated.
    *("::ffff:127.0.0.1", "::ffff:10.0.0.1", "::ffff:169.254.169.254", "::ffff:7f00:1", "::ffff:168.63.129.16"),
    *("::127.0.0.1", "::7f00:1", "::8.8.8.8", "::ffff:0:127.0.0.1", "::ffff:0:7f00:1", "::ffff:0:a9fe:a9fe"),
    *("::ffff:0:10.0.0.1", "::ffff:0:192.168.0.1", "::fffe:8.8.8.8"),
    # NAT64, a network's own NAT64, 6to4, Teredo (by server and by client), ORCHID, benchmarks, ISATAP.
    *("64:ff9b::127.0.0.1", "64:ff9b::a9fe:a9fe", "64:ff9b::c0a8:1", "64:ff9b:1::8.8.8.8", "64:ff9b:1::a9fe:a9fe"),
    *("2002:7f00:1::", "2002:a9fe:a9fe::1", "2002:a00:1::1", "2002:c0a8:101::1", "2002:a83f:8110::1"),
    *("2001:0:7f00:1::", "2001:0:a00:1::1", "2001:0:808:808::8000:5601", "2001::1", "2001:10::1", "2001:20::1"),
    *("2001:2::1", "2606:4700::5efe:10.0.0.1", "2606:4700::200:5efe:169.254.169.254", "fe80::5efe:8.8.8.8"),
]
# What a browser, libc or a careless check read as an address of this machine or of the cloud's metadata.
WRITTEN = [
    *("2130706433", "0x7f000001", "0x7f.1", "0x7f.0.0.1", "017700000001", "0177.0.0.1", "127.1", "127.0.1"),
    *("127.000.000.001", "localhost", "LOCALHOST", "localhost.", "2852039166", "0xa9fea9fe", "169.16689662"),
    *("0", "0.0.0.0", "0x0", "[::1]", "[::]", "[::ffff:127.0.0.1]", "[0:0:0:0:0:0:0:1]", "[::ffff:7f00:1]"),
    *("[fe80::1]", "[fd00::1]", "10.1", "192.168.257", "3232235777", "[::ffff:0:a9fe:a9fe]", "[64:ff9b::7f00:1]"),
    *("168.63.129.16", "0250.077.0201.020", "2822734096", "[::ffff:a83f:8110]"),
]


@pytest.mark.parametrize("address", PUBLIC)
def test_public_addresses_may_be_connected_to(address: str) -> None:
    assert is_public(address)


@pytest.mark.parametrize("address", INSIDE)
def test_inside_addresses_may_not(address: str) -> None:
    assert not is_public(address)


def test_networks_are_judged_by_what_an_address_carries() -> None:
    assert is_allowed("10.1.2.3", ("10.1.0.0/16",))
    assert is_allowed("::ffff:10.1.2.3", ("10.1.0.0/16",))
    assert is_allowed("2002:a01:203::1", ("10.1.0.0/16",))
    assert is_allowed("fd00::1", ("fd00::/8",))
    assert not is_allowed("10.2.2.3", ("10.1.0.0/16", "fd00::/8"))
    # Both the outer address and the inner one have to be in order.
    assert not is_allowed("fe80::5efe:10.1.2.3", ("10.1.0.0/16",))


class Network(httpcore.AsyncNetworkBackend):
    """A resolver and a network that write down what they were asked for."""

    def __init__(self, *answers: list[str]) -> None:
        self.answers = list(answers)
        self.asked: list[str] = []
        self.dialed: list[str] = []

    async def ask(self, host: str, port: int) -> list[str]:
        self.asked.append(host)
        if not self.answers:
            return [str(entry[4][0]) for entry in socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)]
        return self.answers.pop(0) if len(self.answers) > 1 else self.answers[0]

    async def connect_tcp(self, host: str, *_: Any, **__: Any) -> httpcore.AsyncNetworkStream:
        self.dialed.append(host)
        raise httpcore.ConnectError("nobody listens there")

    def send(self, url: str, rules: Rules) -> None:
        async def request() -> None:
            await Client(rules, ask=self.ask, dial=self).send(Request("POST", url, (), b"{}", 5.0))

        asyncio.run(request())


PLAIN = Rules(requires_https=False)


@pytest.mark.parametrize("host", WRITTEN)
@pytest.mark.parametrize("port", ["", ":8080"])
def test_no_way_of_writing_an_inside_address_reaches_a_socket(host: str, port: str) -> None:
    network = Network()
    with pytest.raises(EgressDenied):
        network.send(f"http://{host}{port}/latest/meta-data", PLAIN)
    assert network.dialed == []


@pytest.mark.parametrize("inside", [["127.0.0.1"], ["8.8.8.8", "10.0.0.1"], ["2606:4700::1111", "::1"]])
def test_one_inside_address_behind_a_name_is_enough_to_refuse_it(inside: list[str]) -> None:
    network = Network(inside)
    with pytest.raises(EgressDenied, match="not on the public internet") as caught:
        network.send("http://rebind.example/", PLAIN)
    assert caught.value.reason == "private"
    assert network.dialed == []


def test_a_resolver_that_changes_its_mind_is_not_asked_again() -> None:
    network = Network(["8.8.8.8"], ["127.0.0.1"])
    with pytest.raises(RequestFailed):
        network.send("http://rebind.example/", PLAIN)
    assert (network.asked, network.dialed) == (["rebind.example"], ["8.8.8.8"])


def test_every_judged_address_is_tried_in_order() -> None:
    network = Network(["8.8.8.8", "1.1.1.1"])
    with pytest.raises(RequestFailed, match=r"8\.8\.8\.8: nobody.*1\.1\.1\.1: nobody"):
        network.send("http://two.example/", PLAIN)
    assert network.dialed == ["8.8.8.8", "1.1.1.1"]


@pytest.mark.parametrize(
    ("url", "reason"),
    [
        ("http://api.example/", "https"),
        ("ftp://api.example/", "url"),
        ("file:///etc/passwd", "url"),
        ("gopher://api.example:25/x", "url"),
        ("https://", "url"),
        ("https:///path", "url"),
        ("not a url", "url"),
        ("https://user:secret@api.example/", "url"),
        ("https://api.example\\@127.0.0.1/", "url"),
        ("https://api.example/a b", "url"),
        ("https://api.example/\r\nX: 1", "url"),
        ("https://api.example:0/", "url"),
        ("https://api.example:99999/", "url"),
        ("https://[::1/", "url"),
        ("https://exa\u00ademple..com/", "url"),
        ("https://other.example/", "allowlist"),
        ("https://api.example.evil.test/", "allowlist"),
    ],
)
def test_urls_that_no_address_is_looked_up_for(url: str, reason: str) -> None:
    network = Network(["8.8.8.8"])
    with pytest.raises(EgressDenied) as caught:
        network.send(url, Rules(allowlist=("api.example", "*.api.example")))
    assert caught.value.reason == reason
    assert network.asked == network.dialed == []


def test_the_list_holds_globs_of_hosts_whatever_their_case_and_port() -> None:
    rules = Rules(allowlist=("*.Example.com", "h[12]"))
    assert rules.target_of("https://API.example.com:8443/x?y=1").authority == "api.example.com:8443"
    assert rules.target_of("https://h2").path == "/"


def test_a_name_that_leads_nowhere_is_refused() -> None:
    async def ask(host: str, port: int) -> list[str]:
        raise socket.gaierror(-2, "Name or service not known")

    with pytest.raises(EgressDenied, match=r"nowhere\.example cannot be resolved") as caught:
        asyncio.run(Client(Rules(), ask=ask).check("https://nowhere.example/"))
    assert caught.value.reason == "dns"


def test_a_name_that_no_resolver_takes_is_refused() -> None:
    with pytest.raises(EgressDenied):
        Network().send(f"http://{'a' * 70}.example/", PLAIN)


def test_allowed_networks_are_exempt() -> None:
    network = Network(["10.1.2.3"])
    with pytest.raises(RequestFailed):
        network.send("http://inside.example/", Rules(requires_https=False, networks=("10.1.0.0/16",)))
    assert network.dialed == ["10.1.2.3"]


# Servers that misbehave

LOOPBACK = Rules(blocks_private=False, requires_https=False)


@contextmanager
def server(answer: bytes, *, drips: bool = False) -> Iterator[str]:
    """A server of one request. With `drips` it repeats its answer byte for byte until the client has had enough."""
    with socket.create_server(("", 0)) as listening:

        def serve() -> None:
            connected, _ = listening.accept()
            with connected:
                request = b""
                while not request.endswith(b"{}"):  # what is left unread would reset the connection
                    request += connected.recv(65536)
                try:
                    connected.sendall(answer)
                    while drips:
                        connected.settimeout(0.01)
                        connected.sendall(b"x")
                        try:
                            drips_on = connected.recv(1) != b""
                        except TimeoutError:
                            drips_on = True
                        if not drips_on:
                            return
                except OSError:
                    return

        thread = threading.Thread(target=serve)
        thread.start()
        try:
            yield f"http://127.0.0.1:{listening.getsockname()[1]}/"
        finally:
            thread.join(20)


async def exchange(url: str, seconds: float = 5.0, **fields: Any) -> Response:
    return await Client(LOOPBACK).send(Request("POST", url, fields.get("headers", ()), b"{}", seconds))


def fetch(url: str, seconds: float = 5.0) -> tuple[int, bytes]:
    response = asyncio.run(exchange(url, seconds))
    return response.status, response.body


def test_head_and_body_of_a_request_arrive_in_one_piece() -> None:
    with socket.create_server(("127.0.0.1", 0)) as listening:
        seen: list[bytes] = []

        def serve() -> None:
            connected, _ = listening.accept()
            with connected:
                seen.append(connected.recv(65536))
                connected.sendall(b"HTTP/1.1 204 No Content\r\n\r\n")

        thread = threading.Thread(target=serve)
        thread.start()
        url = f"http://127.0.0.1:{listening.getsockname()[1]}/a%20b?c=d"
        response = asyncio.run(exchange(url, headers=(("X-A", "\u00e9"), ("X-A", "2"))))
        thread.join(20)
    assert response == Response(204, b"")
    head, _, body = seen[0].partition(b"\r\n\r\n")
    lines = head.split(b"\r\n")
    assert body == b"{}"
    assert lines[0] == b"POST /a%20b?c=d HTTP/1.1"
    assert {b"X-A: \xe9", b"X-A: 2", b"Host: " + url[7:].partition("/")[0].encode(), b"Content-Length: 2"} < set(lines)


def test_informational_answers_are_not_the_answer() -> None:
    hints = b"HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 100 Continue\r\n\r\n"
    with server(hints + b"HTTP/1.1 500 Oops\r\nContent-Length: 2\r\n\r\n{}") as url:
        assert fetch(url) == (500, b"{}")
    with server(b"HTTP/1.1 101 Switching\r\n\r\n") as url, pytest.raises(RequestFailed, match="no answer"):
        fetch(url)


def test_an_answer_in_gzip_is_read_and_its_limit_is_that_of_what_is_inside() -> None:
    def answer(body: bytes, coding: bytes = b"gzip") -> bytes:
        size = str(len(body)).encode()
        return b"HTTP/1.1 200 OK\r\nContent-Encoding: " + coding + b"\r\nContent-Length: " + size + b"\r\n\r\n" + body

    with server(answer(gzip.compress(b"hello"))) as url:
        assert fetch(url) == (200, b"hello")
    for body, coding, words in (
        (gzip.compress(bytes(MAX_BODY + 1)), b"gzip", "larger than"),
        (b"no gzip", b"gzip", "no gzip"),
        (gzip.compress(b"hello")[:-3], b"gzip", "in the middle"),
        (b"hello", b"br", "'br' was not asked for"),
    ):
        with server(answer(body, coding)) as url, pytest.raises(ResponseFailed, match=words):
            fetch(url)


def test_the_environments_proxies_are_not_asked(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HTTP_PROXY", "http_proxy", "ALL_PROXY"):
        monkeypatch.setenv(name, "http://127.0.0.1:1")
    with server(b"HTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok") as url:
        assert fetch(url) == (200, b"ok")


def test_a_host_that_never_answers_holds_its_own_slots_only_and_waiting_counts_against_the_deadline() -> None:
    async def run() -> list[BaseException | Response]:
        shared = Client(LOOPBACK)
        with socket.create_server(("127.0.0.1", 0)) as silent, server(b"HTTP/1.1 200 OK\r\n\r\nok") as url:
            stuck = Request("POST", f"http://127.0.0.1:{silent.getsockname()[1]}/", (), b"{}", 0.5)
            # Another name of the same machine is another host.
            free = Request("POST", url.replace("127.0.0.1", "127.0.0.2"), (), b"{}", 5.0)
            waiting = [asyncio.create_task(shared.send(stuck)) for _ in range(client.MAX_PER_HOST + 1)]
            return await asyncio.gather(*waiting, shared.send(free), return_exceptions=True)

    *failed, answered = asyncio.run(run())
    assert answered == Response(200, b"ok")
    assert {str(error).partition(": ")[2] for error in failed} == {"timed out after 0.5 s"}


def test_a_redirect_is_an_answer_and_is_not_followed() -> None:
    answer = b"HTTP/1.1 302 Found\r\nLocation: http://169.254.169.254/latest\r\nContent-Length: 2\r\n\r\n{}"
    with server(answer) as url:
        assert fetch(url) == (302, b"{}")


def test_an_answer_may_be_as_large_as_the_limit_and_not_larger() -> None:
    for size, fits in ((MAX_BODY, True), (MAX_BODY + 1, False)):
        with server(b"HTTP/1.1 200 OK\r\n\r\n" + bytes(size)) as url:
            if fits:
                assert len(fetch(url)[1]) == size
            else:
                with pytest.raises(ResponseFailed, match="larger than"):
                    fetch(url)


@pytest.mark.parametrize("head", [b"HTTP/1.1 200 OK\r\nX: ", b"HTTP/1.1 2"])
def test_a_server_that_drips_its_head_meets_the_deadline(head: bytes) -> None:
    with server(head, drips=True) as url, pytest.raises(RequestFailed):
        fetch(url, 0.3)


def test_a_server_that_drips_its_body_meets_the_deadline() -> None:
    head = b"HTTP/1.1 200 OK\r\nContent-Length: 1000000\r\n\r\n"
    with server(head, drips=True) as url, pytest.raises(ResponseFailed, match="timed out"):
        fetch(url, 0.3)


def test_an_answer_that_breaks_off_is_told_from_no_answer() -> None:
    with server(b"HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nab") as url, pytest.raises(ResponseFailed):
        fetch(url)
    with server(b"") as url, pytest.raises(RequestFailed):
        fetch(url)
    with server(b"SSH-2.0-OpenSSH\r\n") as url, pytest.raises(RequestFailed):
        fetch(url)


# Configuration


def test_the_security_table() -> None:
    assert rules_from({}, "w") == Rules()
    assert rules_from({"url_allowlist": []}, "w").allowlist == ("*",)
    given = {
        "url_allowlist": ["a.example"],
        "block_private_ips": False,
        "require_https": False,
        "allowed_networks": ["10.1.2.3"],
    }
    assert rules_from(given, "w") == Rules(("a.example",), False, False, ("10.1.2.3/32",))


@pytest.mark.parametrize(
    ("table", "word"),
    [
        ([], "table"),
        ({"allowlist": []}, "url_allowlist"),
        ({"url_allowlist": "x"}, "list of strings"),
        ({"require_https": 1}, "true or false"),
        ({"allowed_networks": ["10.1.2.3/8"]}, "no address or network"),
    ],
)
def test_a_wrong_security_table_says_what_is_wrong(table: object, word: str) -> None:
    with pytest.raises(OptionError, match=word):
        rules_from(table, "w")
