"""Channels between real workers: live ends in payloads, order, back-pressure, both ways of closing, mixed carriers."""

from __future__ import annotations

import json
import socket
import subprocess
import sys

import pytest

from iii.helpers import ChannelDirection, ChannelItem, extract_channel_refs, is_channel_ref
from iii.protocol.frames import BINARY, TEXT, frame
from tests.support.live_project import BOUND, ROOT, project

TOML = """
[workers.source]
run = "source.py"
[workers.sink]
run = "sink.py"
"""

SOURCE = """
import asyncio
from iii.helpers import create_channel, create_channel_async

def mixed(_):
    channel = worker.create_channel()
    worker.trigger({"function_id": "sink::take", "payload": {"from": [channel.reader_ref]}, "action": {"type": "void"}})
    for item in ["a", b"1", "b", b"", b"2" * 200_000, "c"]:
        channel.writer.send(item)
    channel.writer.close()

def back(payload):
    payload["to"].send(b"for ")
    payload["to"].send(payload["name"].encode())
    payload["to"].close()

async def many(_):
    channel = await worker.create_channel_async()
    call = asyncio.create_task(worker.trigger_async("sink::count", channel.reader_ref))
    for _ in range(20):
        await channel.writer.write(b"x" * 50_000)
    await channel.writer.send_message_async("done")
    await channel.writer.close_async()
    return await call

def flood(payload):
    import resource
    channel = create_channel(worker)
    result = []
    reading = threading.Thread(
        target=lambda: result.append(worker.trigger({"function_id": "sink::total", "payload": channel.reader_ref,
                                                     "timeout_ms": 600_000})))
    reading.start()
    for _ in range(payload["chunks"]):
        channel.writer.send(bytes(65536))
    channel.writer.close()
    reading.join()
    return [result[0], resource.getrusage(resource.RUSAGE_SELF).ru_maxrss]

async def counted(_):
    channel = await create_channel_async(worker)
    await channel.writer.close_async()
    return await worker.trigger_async("sink::count", channel.reader_ref)

def deserted(_):
    channel = create_channel(worker)
    channel.writer.send("first")
    worker.trigger("sink::refuse", {"at": channel.reader_ref})
    try:
        while True:
            channel.writer.send(bytes(65536))
    except OSError:
        return "closed"

def empty(_):
    channel = create_channel(worker)
    channel.writer.close()
    return worker.trigger("sink::total", channel.reader_ref)

for handler in (mixed, back, many, flood, counted, deserted, empty):
    worker.register_function(f"source::{handler.__name__}", handler)
"""

SINK = """
import asyncio
from iii.helpers import create_channel

def take(payload):
    say("took", *[item if isinstance(item, str) else len(item) for item in payload["from"][0].items()])

async def count(reader):
    texts = []
    reader.on_message(texts.append)
    return [len(await reader.read_all()), texts]

def total(reader):
    return sum(len(chunk) for chunk in reader)

def refuse(payload):
    next(payload["at"].items())
    payload["at"].close()

def ask(name):
    channel = create_channel(worker)
    worker.trigger("source::back", {"to": channel.writer_ref, "name": name})
    return channel.reader.read().decode()

for handler in (take, count, total, refuse, ask):
    worker.register_function(f"sink::{handler.__name__}", handler)
"""
# A worker started by hand, over WebSocket.
OUTSIDE = """
from iii import register_worker
from iii.helpers import create_channel
worker = register_worker()
channel = create_channel(worker)
worker.trigger("source::back", {"to": channel.writer_ref, "name": "outside"})
print(channel.reader.read().decode())
worker.shutdown()
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory):
    with project(tmp_path_factory.mktemp("channels"), TOML, {"source": SOURCE, "sink": SINK}) as made:
        yield made


def test_texts_and_bytes_arrive_in_the_order_they_were_written(running):
    running.call("source::mixed")
    (line,) = running.wait("took")
    assert line == "took a 1 b 0 65536 65536 65536 3392 c"


def test_a_writer_inside_a_payload_arrives_live_and_the_answer_comes_through_it(running):
    assert running.call("sink::ask", "ada") == "for ada"


def test_async_ends_stream_with_texts_beside(running):
    assert running.call("source::many") == [1_000_000, ["done"]]
    assert running.call("source::counted") == [0, []]


def test_a_reader_that_leaves_ends_its_writer(running):
    assert running.call("source::deserted") == "closed"


def test_a_stream_of_nothing_ends_too(running):
    assert running.call("source::empty") == 0


def test_a_worker_over_websocket_and_one_over_pipes_share_a_channel(running):
    url = json.loads((running.folder / ".iii" / "run" / "engine.json").read_text())["url"]
    run = subprocess.run(
        [sys.executable, "-c", OUTSIDE],
        env={"III_URL": url, "PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=BOUND,
        check=False,
    )
    assert run.stdout == "for outside\n", run.stderr


@pytest.mark.parametrize("chunks", [256, pytest.param(16_384, marks=pytest.mark.slow)])
def test_memory_stays_bounded_however_much_is_streamed(running, chunks):
    total, peak_kib = running.call("source::flood", {"chunks": chunks})
    assert total == chunks * 65536
    assert peak_kib < 128 * 1024


@pytest.fixture(scope="module")
def without_listener(tmp_path_factory):
    toml = '[engine]\nlisten = "off"\n' + TOML
    with project(tmp_path_factory.mktemp("local"), toml, {"source": SOURCE, "sink": SINK}) as made:
        yield made


def test_supervised_workers_need_no_listener_for_their_channels(without_listener):
    assert without_listener.call("sink::ask", "ada") == "for ada"
    assert without_listener.call("source::many") == [1_000_000, ["done"]]


class Local:
    """A local program at one end of a channel, without SDK: raw lines, then raw frames."""

    def __init__(self, made, reference, **changed):
        run = json.loads((made.folder / ".iii" / "run" / "engine.json").read_text())
        self.socket = socket.socket(socket.AF_UNIX)
        self.socket.settimeout(BOUND)
        self.socket.connect(run["socket"])
        self.file = self.socket.makefile("rb")
        self.socket.sendall(json.dumps({"type": "channelopen", **reference, **changed}).encode() + b"\n")
        greeting, self.answer = (json.loads(self.file.readline()) for _ in range(2))
        assert greeting["type"] == "workerregistered"

    def __enter__(self):
        return self

    def __exit__(self, *_):
        self.file.close()
        self.socket.close()


@pytest.mark.parametrize(
    ("changed", "words"),
    [
        ({"access_key": "guess"}, "Channel not found"),
        ({"channel_id": "guess"}, "Channel not found"),
        ({"direction": "both"}, "direction must be read or write, got 'both'"),
    ],
)
def test_a_wrong_reference_is_refused_on_the_socket_and_closed(without_listener, changed, words):
    made = without_listener.call("engine::channels::create", {})
    with Local(without_listener, made["reader"], **changed) as end:
        assert end.answer["error"]["message"] == words
        assert end.file.read() == b""


def test_an_end_is_taken_once_on_the_socket_too(without_listener):
    made = without_listener.call("engine::channels::create", {})
    with Local(without_listener, made["reader"]) as first, Local(without_listener, made["reader"]) as second:
        assert first.answer == {"type": "channelopened"}
        assert "somebody has the read end" in second.answer["error"]["message"]
        with Local(without_listener, made["writer"]) as writer:
            writer.socket.sendall(frame(TEXT, b"still open"))
            writer.socket.shutdown(socket.SHUT_WR)
            assert first.file.read() == frame(TEXT, b"still open")


def test_a_writer_that_sends_nonsense_ends_its_channel(without_listener):
    made = without_listener.call("engine::channels::create", {})
    with Local(without_listener, made["reader"]) as reader, Local(without_listener, made["writer"]) as writer:
        writer.socket.sendall(frame(TEXT, b"good") + b"\xff" * 100)
        assert reader.file.read() == frame(TEXT, b"good")
        assert writer.file.read() == b""


def fill(writer):
    """Write until the engine takes no more; return how many bytes it took."""
    writer.settimeout(0.5)
    taken = 0
    while True:
        try:
            taken += writer.send(frame(BINARY, bytes(65536)))
        except TimeoutError:
            return taken


def test_a_reader_that_reads_nothing_holds_the_writer_back_and_the_engine_stays_small(without_listener):
    made = without_listener.call("engine::channels::create", {"buffer_size": 4})
    with Local(without_listener, made["reader"]) as reader, Local(without_listener, made["writer"]) as writer:
        taken = fill(writer.socket)
        assert taken < 8 * 1024 * 1024
        assert without_listener.call("sink::ask", "bob") == "for bob"
        assert len(reader.file.read(taken)) == taken


def test_a_stopping_engine_closes_the_ends(tmp_path):
    with project(tmp_path, TOML, {"source": SOURCE, "sink": SINK}) as made:
        ref = made.call("engine::channels::create", {})
        with Local(made, ref["reader"]) as reader:
            made.stop()
            assert reader.file.read() == b""


def test_references_are_found_anywhere_in_a_payload():
    ref = {"channel_id": "c", "access_key": "k", "direction": "read", "more": 1}
    found = extract_channel_refs({"body": {"files": [1, ref]}, "x": "y"})
    assert [(path, end.channel_id) for path, end in found] == [("body.files[1]", "c")]
    assert not is_channel_ref({**ref, "direction": "sideways"})


def test_an_item_is_a_text_or_bytes():
    text, binary = ChannelItem.text_item("a"), ChannelItem.binary_item(b"b")
    assert (text.text, text.is_text, text.is_binary) == ("a", True, False)
    assert (binary.binary, binary.is_text, binary.is_binary) == (b"b", False, True)
    for fields in ({}, {"text": "a", "binary": b"b"}):
        with pytest.raises(ValueError, match="either a text or binary"):
            ChannelItem(**fields)
    assert ChannelDirection("read") == "read"
