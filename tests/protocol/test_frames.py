"""Messages of a channel survive any cutting of their bytes; what is no message is refused.

The header of a WebSocket frame is held against the library's own writer, for both directions.
"""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from websockets.frames import Frame, Opcode

from iii.protocol.frames import (
    BINARY,
    CONTINUATION,
    FINAL,
    MASKED,
    MAX_MESSAGE,
    TEXT,
    ChannelFrameError,
    ChannelFrameSplitter,
    frame,
    header,
)

MESSAGES = st.lists(st.tuples(st.sampled_from([TEXT, BINARY]), st.binary(max_size=300)), max_size=10)


@given(MESSAGES, st.lists(st.integers(0, 4000)))
def test_messages_come_out_as_they_went_in_however_they_are_cut(
    messages: list[tuple[int, bytes]], cuts: list[int]
) -> None:
    data = b"".join(frame(kind, payload) for kind, payload in messages)
    splitter, out, start = ChannelFrameSplitter(), [], 0
    for end in [*sorted(cuts), len(data)]:
        out += splitter.feed(data[start:end])
        start = max(start, min(end, len(data)))
    assert out == messages


@given(st.binary(max_size=2000))
def test_any_bytes_are_messages_or_refused(data: bytes) -> None:
    try:
        messages = ChannelFrameSplitter().feed(data)
    except ChannelFrameError as error:
        messages = error.messages
    assert all(kind in (TEXT, BINARY) for kind, _ in messages)


def test_what_comes_before_nonsense_is_not_lost() -> None:
    with pytest.raises(ChannelFrameError, match="kind 255") as caught:
        ChannelFrameSplitter().feed(frame(TEXT, b"good") + b"\xff" * 9)
    assert caught.value.messages == [(TEXT, b"good")]


@pytest.mark.parametrize(("kind", "size", "fits"), [(1, MAX_MESSAGE, True), (1, MAX_MESSAGE + 1, False), (3, 1, False)])
def test_the_limits_of_a_head(kind: int, size: int, fits: bool) -> None:
    head = bytes([kind]) + size.to_bytes(4, "big")
    if fits:
        assert ChannelFrameSplitter().feed(head) == []
    else:
        with pytest.raises(ChannelFrameError, match=str(size)):
            ChannelFrameSplitter().feed(head)


@pytest.mark.parametrize("size", [0, 1, 125, 126, 0xFFFF, 0x10000])
@pytest.mark.parametrize("is_final", [True, False])
@pytest.mark.parametrize(("opcode", "name"), [(TEXT, Opcode.TEXT), (CONTINUATION, Opcode.CONT)])
def test_a_header_is_the_one_of_the_library(size: int, is_final: bool, opcode: int, name: Opcode) -> None:
    expected = Frame(name, b"x" * size, fin=is_final)
    first = opcode | FINAL if is_final else opcode
    assert header(first, size) + b"x" * size == expected.serialize(mask=False)
    masked = header(first, size, MASKED)
    assert expected.serialize(mask=True).startswith(masked)
    assert len(masked) + 4 + size == len(expected.serialize(mask=True))
