"""Frames as bytes, held against the library's own reader and writer."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import given
from hypothesis import strategies as st
from websockets.client import ClientProtocol
from websockets.frames import Frame, Opcode
from websockets.protocol import State
from websockets.speedups import apply_mask
from websockets.uri import parse_uri

from iii.engine.transport import websocket_frames
from iii.protocol.frames import MAX_FRAME

payloads = st.one_of(st.binary(max_size=300), st.integers(65_530, 65_540).map(lambda size: b"x" * size))


def masked(payload: bytes, opcode: Opcode = Opcode.TEXT, *, fin: bool = True) -> bytes:
    return Frame(opcode, payload, fin).serialize(mask=True)


def cut(data: bytes, places: list[int]) -> list[bytes]:
    edges = sorted({0, len(data), *(place % (len(data) + 1) for place in places)})
    return [data[start:end] for start, end in pairwise(edges)]


def read_by_a_client(data: bytes) -> list[Frame]:
    protocol = ClientProtocol(parse_uri("ws://localhost"), state=State.OPEN, max_size=None)
    protocol.receive_data(data)
    assert protocol.parser_exc is None
    return [event for event in protocol.events_received() if isinstance(event, Frame)]


@given(st.lists(payloads, max_size=5), st.lists(st.integers(0, 10**6), max_size=8))
def test_plain_frames_come_out_whole_however_they_are_cut(messages: list[bytes], places: list[int]) -> None:
    splitter = websocket_frames.ClientFrameSplitter(apply_mask, 1 << 20)
    data = b"".join(masked(message) for message in messages)
    came = [frame for piece in cut(data, places) for frame in splitter.feed(piece)]
    assert came == [(True, message) for message in messages]
    assert splitter.pending == 0


@given(
    st.lists(st.tuples(st.sampled_from([Opcode.BINARY, Opcode.PING, Opcode.CLOSE]), st.binary(max_size=125))),
    st.lists(st.integers(0, 10**6), max_size=8),
)
def test_other_frames_come_out_as_they_went_in(sent: list[tuple[Opcode, bytes]], places: list[int]) -> None:
    splitter = websocket_frames.ClientFrameSplitter(apply_mask, 1 << 20)
    raw = [masked(payload, opcode) for opcode, payload in sent]
    came = [frame for piece in cut(b"".join(raw), places) for frame in splitter.feed(piece)]
    assert came == [(False, frame) for frame in raw]


@given(st.lists(st.binary(max_size=200), max_size=3), st.binary(min_size=1, max_size=60))
def test_any_bytes_are_either_given_out_or_kept(pieces: list[bytes], last: bytes) -> None:
    splitter = websocket_frames.ClientFrameSplitter(apply_mask, 100)
    out = 0
    for piece in [*pieces, last]:
        out += sum(len(frame) for is_plain, frame in splitter.feed(piece) if not is_plain)
    assert out + splitter.pending <= sum(map(len, pieces)) + len(last)


def test_a_frame_over_the_limit_goes_to_the_library_before_it_is_complete() -> None:
    splitter = websocket_frames.ClientFrameSplitter(apply_mask, 100)
    head = masked(b"x" * 101)[:20]
    assert splitter.feed(masked(b"fits") + head) == [(True, b"fits"), (False, head)]


def test_what_breaks_the_protocol_goes_to_the_library_with_all_that_follows() -> None:
    splitter = websocket_frames.ClientFrameSplitter(apply_mask, 100)
    unmasked = Frame(Opcode.TEXT, b"bare").serialize(mask=False)
    later, more = masked(b"later"), masked(b"more")
    assert splitter.feed(unmasked + later) == [(False, unmasked + later)]
    assert splitter.feed(more) == [(False, more)]


def test_an_unfinished_frame_of_a_fragmented_message_is_not_plain() -> None:
    first = masked(b"one", fin=False)
    assert websocket_frames.ClientFrameSplitter(apply_mask, 100).feed(first) == [(False, first)]


@given(st.lists(st.one_of(payloads, st.just(b"y" * 70_000)), max_size=6))
def test_lines_become_one_text_message_each(lines: list[bytes]) -> None:
    chunks = websocket_frames.text_chunks(lines)
    read = read_by_a_client(b"".join(data for data, _ in chunks))
    assert [(frame.opcode, frame.data, frame.fin) for frame in read] == [(Opcode.TEXT, line, True) for line in lines]
    assert sum(credit for _, credit in chunks) == sum(len(line) + 1 for line in lines)


def test_a_message_over_16_mib_goes_in_fragments_below_it() -> None:
    line = b"z" * (MAX_FRAME + 1)
    read = read_by_a_client(b"".join(data for data, _ in websocket_frames.text_chunks([line])))
    assert [frame.opcode for frame in read] == [Opcode.TEXT, Opcode.CONT, Opcode.CONT]
    assert [frame.fin for frame in read] == [False, False, True]
    assert b"".join(bytes(frame.data) for frame in read) == line
    assert max(len(frame.data) for frame in read) <= MAX_FRAME


def test_raw_newlines_in_json_become_spaces() -> None:
    assert websocket_frames.without_newlines(b'{"a":\n1}') == b'{"a": 1}'
    assert websocket_frames.without_newlines(b'{"a":1}') == b'{"a":1}'
