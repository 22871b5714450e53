"""WebSocket as a client speaks it: masks out, messages in, a handshake that is checked."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode
from websockets.streams import StreamReader

from iii.errors import IIIError
from iii.protocol.frames import BINARY, MAX_FRAME, PING, TEXT
from iii.worker.transport.websocket import Reconnection, parse_address
from iii.worker.transport.websocket_frames import (
    ServerFrameReader,
    WebSocketError,
    check_response,
    frames,
    masked,
    request_bytes,
)

# The example of RFC 6455, section 1.3.
KEY, ACCEPT = "dGhlIHNhbXBsZSBub25jZQ==", "s3pPLMBiTxaQ9kYGzzhZRbK+xOo="


def parsed(data: bytes) -> list[Frame]:
    """What another implementation reads from these bytes."""
    stream = StreamReader()
    stream.feed_data(data)
    found = []
    while stream.buffer:
        reading = Frame.parse(stream.read_exact, mask=True)
        try:
            next(reading)
        except StopIteration as done:
            found.append(done.value)
    return found


def served(opcode: int, payload: bytes, *, fin: bool = True) -> bytes:
    """What another implementation sends as a server."""
    return Frame(Opcode(opcode), payload, fin=fin).serialize(mask=False)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 65535, 65536, 200_000])
def test_other_implementations_read_our_frames(size):
    payload = bytes(range(256)) * (size // 256 + 1)
    (got,) = parsed(frames(TEXT, payload[:size], b"mask"))
    assert (got.opcode, bytes(got.data), got.fin) == (Opcode.TEXT, payload[:size], True)


def test_a_message_too_large_for_one_frame_is_cut():
    payload = b"x" * (MAX_FRAME + 5)
    first, second = parsed(frames(BINARY, payload, b"mask"))
    assert (first.opcode, first.fin, second.opcode, second.fin) == (Opcode.BINARY, False, Opcode.CONT, True)
    assert bytes(first.data) + bytes(second.data) == payload


@given(st.binary(max_size=300), st.binary(min_size=4, max_size=4))
def test_a_mask_taken_twice_is_none(payload, mask):
    assert masked(masked(payload, mask), mask) == payload
    assert masked(payload, mask) == bytes(byte ^ mask[place % 4] for place, byte in enumerate(payload))


@given(st.integers(1, 40))
def test_messages_come_whole_however_the_bytes_are_cut(step):
    data = (
        served(TEXT, b"one")
        + served(TEXT, b"tw", fin=False)
        + served(PING, b"?")
        + served(0, b"o")
        + served(BINARY, b"z" * 300)
    )
    reader = ServerFrameReader()
    got = [message for start in range(0, len(data), step) for message in reader.feed(data[start : start + step])]
    assert got == [(TEXT, b"one"), (PING, b"?"), (TEXT, b"two"), (BINARY, b"z" * 300)]


def test_a_message_over_the_limit_is_refused_before_it_has_come():
    with pytest.raises(WebSocketError, match="100 bytes"):
        ServerFrameReader(limit=99).feed(served(TEXT, b"x" * 100)[:2])
    reader = ServerFrameReader(limit=99)
    reader.feed(served(TEXT, b"x" * 60, fin=False))
    with pytest.raises(WebSocketError, match="120 bytes"):
        reader.feed(served(0, b"x" * 60))


def test_a_masked_frame_from_a_server_is_refused():
    with pytest.raises(WebSocketError, match="mask"):
        ServerFrameReader().feed(frames(TEXT, b"x", b"mask"))


def test_the_handshake_is_checked_against_its_key():
    head = f"HTTP/1.1 101 Switching Protocols\r\nSec-WebSocket-Accept: {ACCEPT}"
    check_response(head.encode(), KEY)
    with pytest.raises(WebSocketError, match="does not answer"):
        check_response(head.encode(), "other")
    with pytest.raises(WebSocketError, match="403 Forbidden"):
        check_response(b"HTTP/1.1 403 Forbidden", KEY)


def test_a_header_cannot_smuggle_another():
    with pytest.raises(ValueError, match="line break"):
        request_bytes("h", "/", KEY, {"X": "a\r\nY: b"})


@pytest.mark.parametrize(
    ("address", "parts"),
    [
        ("ws://127.0.0.1:49134", ("127.0.0.1", 49134, "/", False)),
        ("ws://h/a?b=c", ("h", 80, "/a?b=c", False)),
        ("wss://h", ("h", 443, "/", True)),
        ("ws://[::1]:5/", ("::1", 5, "/", False)),
        ("ws://[::1]", ("::1", 80, "/", False)),
    ],
)
def test_addresses(address, parts):
    assert parse_address(address) == parts


@pytest.mark.parametrize("address", ["http://h", "ws://", "ws://h:x", "h:5"])
def test_what_is_no_address_is_refused(address):
    with pytest.raises(IIIError, match="ws://host:port"):
        parse_address(address)


def test_backoff_doubles_up_to_its_limit_give_or_take():
    plan = Reconnection()
    assert [plan.delay(attempt, 0) for attempt in (1, 2, 3, 6, 1000)] == [1.0, 2.0, 4.0, 30.0, 30.0]
    assert plan.delay(1, 1) == pytest.approx(1.3)
    assert plan.delay(1, -1) == pytest.approx(0.7)
