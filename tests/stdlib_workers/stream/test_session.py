"""What sockets get: the state on joining, live events, what was missed, and a bound on what waits for them."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from iii import InvocationError
from stdlib_workers.stream.hub import MAX_BYTES, MAX_ITEMS, Subscriber
from stdlib_workers.stream.session import MAX_SUBSCRIPTIONS, join_from
from tests.support.stand_ins import Callee, binding, until
from tests.support.stream_setup import FakeSocket, StreamSetup, drained, join


@pytest.fixture
def setup() -> Iterator[StreamSetup]:
    setup = StreamSetup(Callee())
    yield setup
    setup.end()


def shapes(messages: list[dict[str, Any]]) -> list[tuple[Any, ...]]:
    return [(message["event"]["type"], message["id"], message["event"].get("data")) for message in messages]


async def settled(setup: StreamSetup) -> None:
    """Return when everything that was committed has been delivered to this loop."""
    await setup.log.latest()
    await asyncio.sleep(0)


async def test_joining_a_group_sends_its_items_then_what_happens(setup: StreamSetup) -> None:
    setup.listen_on(asyncio.get_running_loop())
    await setup.set("a", 1)
    session, subscriber = setup.session()
    await session.receive(join())
    await setup.set("b", 2)
    await setup.set("b", 3, "other group")
    await settled(setup)
    messages = drained(subscriber)
    assert shapes(messages) == [("sync", None, [1]), ("create", "b", 2)]
    assert {message["subscriptionId"] for message in messages} == {"u"}
    assert messages[0]["offset"] < messages[1]["offset"]
    assert {"type": "stream", "streamName": "s", "groupId": "g"}.items() <= messages[0].items()


async def test_joining_an_item_sends_only_that(setup: StreamSetup) -> None:
    setup.listen_on(asyncio.get_running_loop())
    session, subscriber = setup.session()
    await session.receive(join("present", "a"))
    await setup.set("a", 1)
    await setup.set("b", 2)
    await setup.stream.send({"stream_name": "s", "group_id": "g", "type": "t", "data": 0})
    await setup.stream.send({"stream_name": "s", "group_id": "g", "type": "t", "data": 0, "id": "a"})
    await settled(setup)
    assert [kind for kind, _, _ in shapes(drained(subscriber))] == ["sync", "create", "event"]


async def test_the_state_of_an_item_is_its_value_or_null(setup: StreamSetup) -> None:
    await setup.set("a", {"n": 1})
    session, subscriber = setup.session()
    # Binary frames are as good as text.
    await session.receive(join("u", "a").encode())
    await session.receive(join("v", "absent"))
    messages = drained(subscriber)
    assert [(message["id"], message["event"]) for message in messages] == [
        ("a", {"type": "sync", "data": {"n": 1}}),
        ("absent", {"type": "sync", "data": None}),
    ]
    keys = {"type", "timestamp", "streamName", "groupId", "id", "event", "offset", "subscriptionId"}
    assert messages[0].keys() == keys


async def test_an_id_that_joins_elsewhere_leaves_where_it_was(setup: StreamSetup) -> None:
    setup.listen_on(asyncio.get_running_loop())
    session, subscriber = setup.session()
    await session.receive(join("u", group="old"))
    await session.receive(join("u", group="new"))
    drained(subscriber)
    await setup.set("a", 1, "old")
    await setup.set("a", 2, "new")
    await settled(setup)
    assert [message["groupId"] for message in drained(subscriber)] == ["new"]


async def test_the_state_of_a_custom_stream_comes_from_its_functions(setup: StreamSetup) -> None:
    setup.worker.functions |= {"stream::list(s)": lambda _: [7], "stream::get(s)": lambda asked: asked["item_id"]}
    session, subscriber = setup.session()
    await session.receive(join("u"))
    await session.receive(join("v", "i"))
    assert shapes(drained(subscriber)) == [("sync", None, [7]), ("sync", "i", "i")]


async def test_a_state_that_cannot_be_read_is_not_sent_and_events_come_all_the_same(setup: StreamSetup) -> None:
    def fail(_: Any) -> None:
        raise InvocationError("MINE", "no")

    setup.listen_on(asyncio.get_running_loop())
    setup.worker.functions["stream::list(s)"] = fail
    session, subscriber = setup.session()
    await session.receive(join())
    assert drained(subscriber) == []
    await setup.set("a", 1)
    await settled(setup)
    assert shapes(drained(subscriber)) == [("create", "a", 1)]


async def test_one_copy_for_each_subscription_and_none_after_leaving(setup: StreamSetup) -> None:
    setup.listen_on(asyncio.get_running_loop())
    session, subscriber = setup.session()
    for name in ("u", "v", "u"):
        await session.receive(join(name))
    drained(subscriber)
    await setup.set("a", 1)
    await settled(setup)
    assert sorted(message["subscriptionId"] for message in drained(subscriber)) == ["u", "v"]
    await session.receive(join("u").replace('"join"', '"leave"'))
    await setup.set("a", 2)
    await settled(setup)
    assert [message["subscriptionId"] for message in drained(subscriber)] == ["v"]
    await session.end()
    assert len(setup.hub) == 0


async def test_q21_a_subscriber_resumes_without_gap_or_repeat(setup: StreamSetup, tmp_path: Path) -> None:
    setup.listen_on(asyncio.get_running_loop())
    session, subscriber = setup.session()
    await session.receive(join())
    for number in range(5):
        await setup.set("a", number)
    await settled(setup)
    seen = drained(subscriber)[1:]
    await session.end()
    other, resumed = setup.session()
    await other.receive(join(offset=seen[1]["offset"]))
    await setup.set("a", 5)
    await settled(setup)
    assert shapes(drained(resumed)) == [("update", "a", number) for number in (2, 3, 4, 5)]


async def test_q21_a_subscriber_resumes_after_a_restart(tmp_path: Path) -> None:
    first = StreamSetup(path=tmp_path / "stream.db")
    offsets = []
    for number in range(4):
        await first.set("a", number)
        offsets.append(await first.log.latest())
    first.end()
    second = StreamSetup(path=tmp_path / "stream.db")
    session, subscriber = second.session()
    await session.receive(join(offset=offsets[1]))
    assert shapes(drained(subscriber)) == [("update", "a", 2), ("update", "a", 3)]
    second.end()


@pytest.mark.parametrize("offset", [1, 10**9])
async def test_an_offset_that_is_not_kept_any_more_gets_the_state(offset: int) -> None:
    setup = StreamSetup(history=10)
    for number in range(250):
        await setup.set("a", number)
    session, subscriber = setup.session()
    await session.receive(join(offset=offset))
    assert shapes(drained(subscriber)) == [("sync", None, [249])]
    kept = await setup.pairs.journal.read('log["s","g"]', 0, 1000)
    assert len(kept) == 10
    setup.end()


async def test_every_offset_within_the_history_resumes_and_every_older_one_gets_the_state(tmp_path: Path) -> None:
    first = StreamSetup(path=tmp_path / "stream.db", history=5)
    offsets = []
    for number in range(90):
        await first.set("a", number)
        offsets.append(await first.log.latest())
    first.end()
    second = StreamSetup(path=tmp_path / "stream.db", history=5)
    for number in range(90, 180):
        await second.set("a", number)
        await second.set("a", number, "other group")
        offsets.append(await second.log.latest())
    for missed in range(180):
        session, subscriber = second.session()
        await session.receive(join(offset=offsets[-1 - missed]))
        events = shapes(drained(subscriber))
        if missed < 5:
            assert events == [("update", "a", number) for number in range(180 - missed, 180)]
        elif missed > 5:
            assert events == [("sync", None, [179])]
        # The event just before the oldest that is kept is gone: nothing tells any more that none was between them.
    second.end()


async def test_an_offset_of_another_epoch_gets_the_state(tmp_path: Path) -> None:
    """In memory a restart begins a new epoch; on the disk, a file that was made anew or restored."""
    offsets: list[int] = []
    for path in (None, None, tmp_path / "stream.db"):
        setup = StreamSetup(path=path)
        for number in range(4):
            await setup.set("a", number)
        for offset in offsets:
            session, subscriber = setup.session()
            await session.receive(join(offset=offset))
            assert shapes(drained(subscriber)) == [("sync", None, [3])]
        offsets.append(await setup.log.latest() - 2)
        setup.end()
    assert all(0 < offset < 2**53 for offset in offsets)  # JavaScript reads them exactly


async def test_whoever_has_missed_more_than_a_queue_holds_gets_the_state_and_is_not_cut(setup: StreamSetup) -> None:
    await setup.set("a", 0)
    offset = await setup.log.latest()
    await asyncio.gather(*(setup.set("a", number) for number in range(1, 950)))
    session, subscriber = setup.session()
    await session.receive(join(offset=offset))
    assert shapes(drained(subscriber)) == [("sync", None, [949])]
    assert not subscriber.is_cut


# What the logs keep


async def test_the_log_of_a_group_goes_with_its_last_item_and_says_so(tmp_path: Path) -> None:
    first = StreamSetup(path=tmp_path / "stream.db")
    for group in ("g", "other"):
        await first.set("a", 1, group)
    await first.set("b", 1)
    offset = await first.log.latest()
    for item in ("a", "b"):
        await first.stream.delete({"stream_name": "s", "group_id": "g", "item_id": item})
    first.end()
    second = StreamSetup(path=tmp_path / "stream.db")
    assert await second.pairs.journal.topics("log") == ['log["s","other"]']
    session, subscriber = second.session()
    await session.receive(join(offset=offset))
    assert shapes(drained(subscriber)) == [("sync", None, [])]
    await session.receive(join(offset=await second.log.latest()))
    assert shapes(drained(subscriber)) == []
    second.end()


async def test_what_happens_while_joining_comes_after_the_state(setup: StreamSetup) -> None:
    setup.listen_on(asyncio.get_running_loop())
    session, subscriber = setup.session()
    joining = asyncio.create_task(session.receive(join()))
    writes = [asyncio.create_task(setup.set(f"k{number}", number)) for number in range(30)]
    await asyncio.gather(joining, *writes)
    await settled(setup)
    first, *rest = drained(subscriber)
    live = [message["id"] for message in rest]
    assert first["event"]["type"] == "sync"
    assert live == [f"k{number}" for number in range(30 - len(live), 30)]
    assert {*first["event"]["data"], *(message["event"]["data"] for message in rest)} == set(range(30))


# Join and leave triggers


@pytest.mark.parametrize(
    ("verdict", "is_in"),
    [
        (None, True),
        ({"unauthorized": False}, True),
        ({"unauthorized": "yes"}, True),
        ({"unauthorized": True}, False),
        (InvocationError("invocation_failed", "broken"), False),
    ],
)
async def test_join_handlers_decide_and_failing_ones_deny(setup: StreamSetup, verdict: Any, is_in: bool) -> None:
    def decide(_: Any) -> Any:
        if isinstance(verdict, InvocationError):
            raise verdict
        return verdict

    setup.worker.functions["w::join"] = decide
    await setup.joins.register_trigger(binding("w::join"))
    session, subscriber = setup.session({"user": 1})
    await session.receive(join("u", "i"))
    (message,) = drained(subscriber)
    assert message["event"]["type"] == ("sync" if is_in else "unauthorized")
    assert (message["id"], len(setup.hub)) == ("i", int(is_in))
    expected = {"subscription_id": "u", "stream_name": "s", "group_id": "g", "id": "i", "context": {"user": 1}}
    assert setup.worker.payloads("w::join") == [expected]


async def test_every_join_handler_hears_of_a_join_and_one_denies_for_all(setup: StreamSetup) -> None:
    setup.worker.functions |= {"w::no": lambda _: {"unauthorized": True}, "w::last": lambda _: None}
    await setup.joins.register_trigger(binding("w::no", id="t1", metadata={"m": 1}))
    await setup.joins.register_trigger(binding("w::missing", id="t2"))
    await setup.joins.register_trigger(binding("w::last", id="t3"))
    session, subscriber = setup.session()
    await session.receive(join())
    assert shapes(drained(subscriber)) == [("unauthorized", None, None)]
    assert [request["function_id"] for request in setup.worker.requests] == ["w::no", "w::missing", "w::last"]
    assert setup.worker.requests[0]["metadata"] == {"m": 1}
    expected = {"subscription_id": "u", "stream_name": "s", "group_id": "g", "id": None, "context": None}
    assert setup.worker.payloads("w::last") == [expected]


async def test_a_socket_that_was_denied_may_join_something_else(setup: StreamSetup) -> None:
    setup.worker.functions["w::join"] = lambda event: {"unauthorized": event["group_id"] == "secret"}
    await setup.joins.register_trigger(binding("w::join"))
    session, subscriber = setup.session()
    await session.receive(join("u", group="secret"))
    await session.receive(join("u"))
    assert [(message["event"]["type"], message["groupId"]) for message in drained(subscriber)] == [
        ("unauthorized", "secret"),
        ("sync", "g"),
    ]


async def test_leave_handlers_hear_of_every_end(setup: StreamSetup) -> None:
    setup.worker.functions["w::leave"] = lambda _: None
    await setup.leaves.register_trigger(binding("w::missing", id="t0"))
    await setup.leaves.register_trigger(binding("w::leave"))
    session, _ = setup.session()
    for name in ("a", "b"):
        await session.receive(join(name))
    await session.receive(join("a").replace('"join"', '"leave"'))
    await session.receive(join("unknown").replace('"join"', '"leave"'))
    await session.end()
    assert [payload["subscription_id"] for payload in setup.worker.payloads("w::leave")] == ["a", "b"]


async def test_subscriptions_of_a_socket_are_bounded(setup: StreamSetup) -> None:
    session, subscriber = setup.session()
    for number in range(MAX_SUBSCRIPTIONS + 1):
        await session.receive(join(str(number), group=f"g{number}"))
        (message,) = drained(subscriber)
    assert message["event"] == {"type": "unauthorized"}
    assert len(setup.hub) == MAX_SUBSCRIPTIONS


@pytest.mark.parametrize(
    "text",
    [
        "",
        " ",
        "nonsense",
        b"\xff",
        "[]",
        "5",
        '{"type":"join"}',
        '{"type":"join","data":[]}',
        '{"type":"shout","data":{"subscriptionId":"u","streamName":"s","groupId":"g"}}',
        '{"type":"join","data":{"subscriptionId":1,"streamName":"s","groupId":"g"}}',
        '{"type":"join","data":{"subscriptionId":"u","streamName":"s","groupId":"g","id":5}}',
    ],
)
async def test_what_cannot_be_understood_is_ignored(setup: StreamSetup, text: str | bytes) -> None:
    assert join_from(text) is None
    session, subscriber = setup.session()
    await session.receive(text)
    assert drained(subscriber) == []


# Slow consumers


@pytest.mark.parametrize(("count", "size"), [(MAX_ITEMS, 10), (8, MAX_BYTES // 8)])
async def test_q20_a_socket_at_its_bound_lives_and_over_it_is_closed(count: int, size: int) -> None:
    socket = FakeSocket()
    subscriber = Subscriber(socket)
    for _ in range(count):
        subscriber.put(b"x" * size)
    assert not subscriber.is_cut
    subscriber.put(b"x")
    assert subscriber.is_cut
    await subscriber.cut()
    assert socket.closed == (1013, "slow_consumer")


async def test_what_is_queued_is_written_in_order() -> None:
    socket = FakeSocket()
    subscriber = Subscriber(socket)
    writing = asyncio.create_task(subscriber.write())
    for number in range(2 * MAX_ITEMS):
        subscriber.put(json.dumps({"n": number}).encode())
        if number % 500 == 499:
            await until(lambda: not subscriber._queue)
    await until(lambda: len(socket.sent) == 2 * MAX_ITEMS)
    assert [message["n"] for message in socket.sent] == list(range(2 * MAX_ITEMS))
    writing.cancel()
