"""A link between two engines over a network that loses, delays and repeats frames."""

from __future__ import annotations

import random
from collections import defaultdict

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from iii.engine.cluster.frames import OVERHEAD, Frame, Kind, MalformedFrame, Piece, decode_frame, encode_frame
from iii.engine.cluster.link import MAX_CUT, MAX_MESSAGE, Link


def pass_frames(sender: Link, receiver: Link, lost: frozenset[int] = frozenset()) -> list[bytes]:
    """Take the sender's frames to the receiver, without those of these sequences; return the messages."""
    messages = []
    for sequence, data in sender.frames():
        if sequence not in lost:
            messages += receiver.receive(decode_frame(data))
    return messages


def ask(sender: Link, receiver: Link) -> None:
    """Let the sender ask what has arrived, and hear the answer."""
    receiver.receive(decode_frame(sender.probe()))
    pass_frames(receiver, sender)


def test_messages_that_are_put_together_travel_in_one_frame() -> None:
    a, b = Link(1), Link(1)
    for message in (b"one", b"two", b""):
        a.put("caller", message)
    frames = a.frames()
    assert len(frames) == 1
    assert b.receive(decode_frame(frames[0][1])) == [b"one", b"two", b""]
    assert a.is_open
    ask(a, b)
    assert not a.is_open
    assert a.unsent_bytes == 0


def test_a_lost_frame_is_sent_again_and_nothing_arrives_twice_or_out_of_order() -> None:
    a, b = Link(1), Link(1)
    got = []
    for number in range(5):
        a.put("caller", b"%d" % number)
        got += pass_frames(a, b, lost=frozenset({2}))
    assert got == [b"0"]
    pass_frames(b, a)  # the receiver asks for what is missing, once
    assert b.frames() == []
    got += pass_frames(a, b)
    assert got == [b"0", b"1", b"2", b"3", b"4"]


def test_a_lost_last_frame_is_found_by_a_probe() -> None:
    a, b = Link(1), Link(1)
    a.put("caller", b"one")
    assert pass_frames(a, b, lost=frozenset({1})) == []
    ask(a, b)
    assert pass_frames(a, b) == [b"one"]


def test_a_repeated_frame_gives_its_messages_once() -> None:
    a, b = Link(1), Link(1)
    a.put("caller", b"one")
    ((_, data),) = a.frames()
    assert b.receive(decode_frame(data)) == [b"one"]
    assert b.receive(decode_frame(data)) == []


def test_a_small_message_does_not_wait_for_all_of_a_large_one_in_another_lane() -> None:
    a, b = Link(1), Link(1)
    a.put("large", b"x" * 900_000)
    a.put("small", b"one")
    first, second, *_ = a.frames()
    assert b.receive(decode_frame(first[1])) == []
    assert b.receive(decode_frame(second[1])) == [b"one"]


def test_a_message_waits_for_a_large_one_before_it_in_its_lane() -> None:
    a, b = Link(1), Link(1)
    a.put("caller", b"x" * 500_000)
    a.put("caller", b"one")
    assert [len(message) for message in pass_frames(a, b)] == [500_000, 3]


def test_no_more_is_on_the_way_than_the_window_and_the_receiver_gives_credit_in_time() -> None:
    a, b = Link(1), Link(1)
    a.put("large", b"x" * 5_000_000)
    frames = a.frames()
    assert sum(len(data) for _, data in frames) < 1024 * 1024 + 70_000
    assert a.frames() == []
    got = []
    for _, data in frames:
        got += b.receive(decode_frame(data))
        pass_frames(b, a)
    for _ in range(10):
        got += pass_frames(a, b)
        pass_frames(b, a)
    assert [len(message) for message in got] == [5_000_000]


def test_every_frame_is_within_its_limit_also_below_a_small_one() -> None:
    a, b = Link(1, max_frame=1024), Link(1)
    for number in range(40):
        a.put(number % 3, bytes([number]) * (number * 97))
    got = []
    for _ in range(100):
        for _, data in a.frames():
            assert len(data) <= 1024
            got += b.receive(decode_frame(data))
        pass_frames(b, a)
    assert sorted(map(len, got)) == [number * 97 for number in range(40)]


def test_few_messages_are_cut_at_a_time() -> None:
    a, b = Link(1, window=1 << 30), Link(1)
    for number in range(3 * MAX_CUT):
        a.put(number, b"x" * 200_000)
    held = 0
    for _, data in a.frames():
        b.receive(decode_frame(data))
        held = max(held, b.held_bytes)
    assert 0 < held <= MAX_CUT * 200_000


def test_what_a_frame_lost_is_known_by_its_messages() -> None:
    a = Link(1)
    a.put("caller", b"arrived")
    a.frames()
    a.put("caller", b"lost")
    a.put("large", b"x" * 100_000)
    a.frames()
    a.put("caller", b"waits")
    assert [message[:7] for message in a.messages_from(2)] == [b"lost", b"xxxxxxx", b"waits"]


@pytest.mark.parametrize(
    "data",
    [
        b"",
        b"hello",
        encode_frame(Frame(Kind.DATA, 1, 1, 0, (Piece(0, True, b"abc"),)))[:-1],
        b"\x09" + encode_frame(Frame(Kind.ACK, 1, 0, 0))[1:],
    ],
)
def test_what_is_no_frame_is_refused(data: bytes) -> None:
    with pytest.raises(MalformedFrame):
        decode_frame(data)


def test_an_engine_that_sends_endless_pieces_or_claims_what_was_not_sent_is_refused() -> None:
    b = Link(1)
    with pytest.raises(MalformedFrame):
        b.receive(Frame(Kind.ACK, 1, 0, 7))
    for sequence in range(1, MAX_CUT + 1):
        b.receive(Frame(Kind.DATA, 1, sequence, 0, (Piece(sequence, False, b"x"),)))
    with pytest.raises(MalformedFrame):
        b.receive(Frame(Kind.DATA, 1, MAX_CUT + 1, 0, (Piece(99, False, b"x"),)))
    long = Link(1)
    for sequence in range(1, MAX_MESSAGE // 1_000_000 + 1):
        long.receive(Frame(Kind.DATA, 1, sequence, 0, (Piece(1, False, b"x" * 1_000_000),)))
    with pytest.raises(MalformedFrame):
        long.receive(Frame(Kind.DATA, 1, sequence + 1, 0, (Piece(1, False, b"x" * 1_000_000),)))


@given(st.binary(max_size=200))
def test_any_bytes_are_a_frame_or_refused(data: bytes) -> None:
    try:
        frame = decode_frame(data)
    except MalformedFrame:
        return
    assert encode_frame(frame) == data


@settings(max_examples=60, deadline=None)
@given(
    st.integers(0, 2**32),
    st.lists(st.tuples(st.integers(0, 4), st.integers(0, 5000)), max_size=60),
    st.sampled_from([0.0, 0.1, 0.4]),
)
def test_over_any_loss_each_lane_arrives_whole_once_and_in_order(
    seed: int, messages: list[tuple[int, int]], loss: float
) -> None:
    chance = random.Random(seed)
    ends = [Link(1, max_frame=700, window=4000) for _ in range(2)]
    sent: list[dict[int, list[bytes]]] = [defaultdict(list), defaultdict(list)]
    got: list[dict[int, list[bytes]]] = [defaultdict(list), defaultdict(list)]
    for count, (lane, size) in enumerate(messages):
        side = count % 2
        message = bytes([lane]) + b"%d " % count + b"x" * size
        sent[side][lane].append(message)
        ends[side].put(lane, message)
    for _ in range(3000):
        for side in (0, 1):
            frames = [data for _, data in ends[side].frames()]
            if ends[side].is_open:
                frames.append(ends[side].probe())
            for data in frames:
                copies = 0 if chance.random() < loss else 2 if chance.random() < loss / 4 else 1
                for _ in range(copies):
                    for message in ends[1 - side].receive(decode_frame(data)):
                        got[side][message[0]].append(message)
        if not any(end.is_open for end in ends):
            break
    assert got == sent
    assert OVERHEAD < 64
