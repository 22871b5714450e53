"""Channels: as pure state, and over the wire."""

from __future__ import annotations

from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection

from iii.engine.channels.channel import MAX_BYTES, MAX_CHANNELS_PER_PEER, OPEN_TIMEOUT, Channel, Channels
from iii.engine.routing.budget import Account, Budget
from iii.errors import InvocationError
from tests.support.harness import BOUND, Client, Engine

TEXT, BINARY = 1, 2


class Party:
    """One end, in memory."""

    def __init__(self, room: int = 1000) -> None:
        self.room = room
        self.got: list[bytes] = []
        self.is_paused = False
        self.is_finished = False

    @property
    def is_congested(self) -> bool:
        return len(self.got) >= self.room

    def deliver(self, opcode: int, data: bytes) -> None:
        self.got.append(data)

    def finish(self) -> None:
        self.is_finished = True

    def pause(self) -> None:
        self.is_paused = True

    def resume(self) -> None:
        self.is_paused = False


def channel_of(size: int = 2) -> tuple[Channel, list[Channel]]:
    over: list[Channel] = []
    return Channel("id", "key", size, over.append), over


def test_what_is_written_before_the_reader_comes_waits_for_it() -> None:
    channel, over = channel_of()
    writer, reader = Party(), Party()
    assert channel.take("write", writer)
    channel.write(TEXT, b"1")
    assert channel.take("read", reader)
    channel.write(BINARY, b"2")
    assert reader.got == [b"1", b"2"]
    assert not over


def test_a_full_buffer_pauses_the_writer_until_the_reader_takes_something() -> None:
    channel, _ = channel_of(size=2)
    writer, reader = Party(), Party(room=1)
    channel.take("write", writer)
    channel.take("read", reader)
    for data in (b"1", b"2"):
        channel.write(TEXT, data)
    assert not writer.is_paused
    channel.write(TEXT, b"3")
    assert writer.is_paused
    reader.room = 3
    channel.pump()
    assert reader.got == [b"1", b"2", b"3"]
    assert not writer.is_paused


def test_few_large_messages_fill_a_buffer_too() -> None:
    channel, _ = channel_of(size=64)
    writer = Party()
    channel.take("write", writer)
    channel.write(BINARY, b"x" * (MAX_BYTES + 1))
    assert writer.is_paused


def test_a_writer_that_leaves_first_is_read_to_the_end() -> None:
    channel, over = channel_of()
    channel.take("write", Party())
    channel.write(TEXT, b"last words")
    channel.leave("write")
    reader = Party()
    channel.take("read", reader)
    assert reader.got == [b"last words"]
    assert reader.is_finished
    assert over == [channel]


def test_a_reader_that_leaves_ends_the_writer() -> None:
    channel, over = channel_of()
    writer = Party()
    channel.take("write", writer)
    channel.take("read", Party())
    channel.leave("read")
    assert writer.is_finished
    assert over == [channel]
    channel.leave("write")
    assert over == [channel]


def test_an_end_is_taken_once() -> None:
    channel, _ = channel_of()
    assert channel.take("read", Party())
    assert not channel.take("read", Party())
    channel.leave("read")
    assert not channel.take("read", Party())


def test_only_the_right_key_finds_a_channel() -> None:
    minted = iter(["id", "kéy"])
    channels = Channels(lambda: next(minted), lambda: 0.0)
    assert channels.create()["reader"] == {"channel_id": "id", "access_key": "kéy", "direction": "read"}
    assert channels.find("id", "kéy") is not None
    assert channels.find("id", "key") is None
    assert channels.find("other", "kéy") is None


def test_channels_that_nobody_took_are_given_up() -> None:
    now = 0.0
    minted = iter("abcd")
    channels = Channels(lambda: next(minted), lambda: now)
    channels.create(1)
    channels.create(10_000)
    complete = channels.find("c", "d")
    assert complete is not None
    complete.take("read", Party())
    complete.take("write", Party())
    now = OPEN_TIMEOUT + 1
    channels.sweep()
    assert channels.find("a", "b") is None
    assert channels.find("c", "d") is complete


# Over the wire


def create(client: Client, **wish: Any) -> dict[str, Any]:
    result: dict[str, Any] = client.invoke("engine::channels::create", wish)["result"]
    return result


def path(reference: dict[str, str]) -> str:
    return f"/ws/channels/{reference['channel_id']}?key={reference['access_key']}&dir={reference['direction']}"


def rest(connection: ClientConnection) -> tuple[list[str | bytes], int]:
    """Return every message up to the close, and its code."""
    messages: list[str | bytes] = []
    while True:
        try:
            messages.append(connection.recv(timeout=BOUND))
        except ConnectionClosed as closed:
            return messages, closed.rcvd.code if closed.rcvd else 1006


def test_text_and_bytes_pass_in_order_and_the_end_is_a_close(engine: Engine, client: Client) -> None:
    channel = create(client)
    sent: list[str | bytes] = ["progress", b"", b"\x00\xff", "", "done", b"x" * 3_000_000]
    with engine.client(path(channel["writer"])) as writer:
        for message in sent:
            writer.connection.send(message)
    with engine.client(path(channel["reader"])) as reader:
        assert rest(reader.connection) == (sent, 1005)
    id, key = channel["reader"]["channel_id"], channel["reader"]["access_key"]
    engine.until(lambda: engine.channels.find(id, key) is None)


def test_a_slow_reader_holds_the_writer_back(engine: Engine, client: Client) -> None:
    channel = create(client, buffer_size=1)
    with engine.client(path(channel["writer"])) as writer:
        engine.until(lambda: len(engine.gateway.connections) == 2)
        link = next(one for one in engine.gateway.connections if one.may_be_silent)
        writer.connection.send("one")
        engine.until(lambda: not link.is_reading)
        with engine.client(path(channel["reader"])) as reader:
            assert reader.connection.recv(timeout=BOUND) == "one"
            engine.until(lambda: link.is_reading)


def test_the_reader_leaving_ends_the_writer(engine: Engine, client: Client) -> None:
    channel = create(client)
    with engine.client(path(channel["writer"])) as writer:
        with engine.client(path(channel["reader"])):
            pass
        assert rest(writer.connection) == ([], 1005)


def test_a_taken_end_is_upgraded_and_closed(engine: Engine, client: Client) -> None:
    channel = create(client)
    with engine.client(path(channel["reader"])), engine.client(path(channel["reader"])) as second:
        assert rest(second.connection) == ([], 1005)


@pytest.mark.parametrize(
    ("change", "status"),
    [
        (("key=", "key=x"), 404),
        (("/channels/", "/channels/x"), 404),
        (("key=", "nokey="), 400),
        (("dir=", "nodir="), 400),
        (("dir=read", "dir=both"), 400),
    ],
)
def test_a_wrong_reference_is_refused(engine: Engine, client: Client, change: tuple[str, str], status: int) -> None:
    wrong = path(create(client)["reader"]).replace(*change)
    with pytest.raises(InvalidStatus) as refused, engine.client(wrong):
        pass
    assert refused.value.response.status_code == status


def test_a_page_does_not_get_in_even_with_the_key(engine: Engine, client: Client) -> None:
    with (
        pytest.raises(InvalidStatus) as refused,
        engine.client(path(create(client)["reader"]), origin="http://evil.test"),
    ):
        pass
    assert refused.value.response.status_code == 403


def test_a_buffer_size_that_is_no_number_is_an_error(client: Client) -> None:
    error = client.invoke("engine::channels::create", {"buffer_size": "many"})["error"]
    assert error["code"] == "deserialization_error"


# What one peer's channels hold together


def test_channels_of_one_creator_share_what_it_may_hold_and_those_of_others_do_not() -> None:
    budget = Budget(8_000_000)
    channels = Channels(iter(map(str, range(99))).__next__, lambda: 0.0, budget)
    made = [channels.create(1024, "a")["writer"] for _ in range(3)] + [channels.create(1024, "b")["writer"]]
    [one, two, three, other] = [channels.find(each["channel_id"], each["access_key"]) for each in made]
    assert one is not None
    assert two is not None
    assert three is not None
    assert other is not None
    writers = [Party() for _ in range(4)]
    for channel, writer in zip((one, two, three, other), writers, strict=True):
        channel.take("write", writer)
    one.write(BINARY, bytes(600_000))
    assert not any(writer.is_paused for writer in writers)
    two.write(BINARY, bytes(600_000))
    three.pace_writer()
    other.pace_writer()
    assert [writer.is_paused for writer in writers] == [False, True, True, False]
    one.write(BINARY, b"")
    assert writers[0].is_paused
    # A reader of one channel makes room for all.
    one.take("read", Party())
    assert [writer.is_paused for writer in writers] == [False, False, False, False]
    two.leave("write")
    two.close()
    for channel in (one, three, other):
        channel.close()
    assert budget.used == 0


def test_a_peer_has_a_bounded_number_of_channels() -> None:
    channels = Channels(iter(map(str, range(99_999))).__next__, lambda: 0.0)
    for _ in range(MAX_CHANNELS_PER_PEER):
        channels.create(None, "a")
    with pytest.raises(InvocationError, match=f"at most {MAX_CHANNELS_PER_PEER} for each"):
        channels.create(None, "a")
    channels.create(None, "b")


def test_a_writer_that_waited_for_memory_goes_on_at_the_next_sweep() -> None:
    budget = Budget(8_000_000)
    channels = Channels(iter(map(str, range(99))).__next__, lambda: 0.0, budget)
    reference = channels.create(1024, "a")["writer"]
    channel, writer = channels.find(reference["channel_id"], reference["access_key"]), Party()
    assert channel
    everything = Account()
    budget.hold(everything, 20_000_000)
    channel.take("write", writer)
    channel.write(BINARY, b"x")
    assert writer.is_paused
    budget.release(everything, 20_000_000)
    channels.sweep()
    assert not writer.is_paused
