"""Stores that three NATS servers keep: owners, fences, and what is there after servers and owners have died."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterator
from pathlib import Path
from threading import Thread
from typing import Any

import pytest

from iii import InvocationError
from stdlib_workers.storage import KEY_VALUE_SCHEMA, Refusal, Schema, SqliteKeyValue, Store
from stdlib_workers.storage.jetstream import BUSY, LeaseRecord, NoAnswer, Refused
from stdlib_workers.storage.jetstream_requirements import ClusterSettings
from stdlib_workers.storage.replica import Replica
from tests.support.ground import eventually
from tests.support.nats_servers import NatsServers, running_servers

BOUND = 30.0


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[NatsServers]:
    with running_servers(tmp_path / "nats") as started:
        started.await_jetstream()
        yield started


class Engines:
    """Stores of one name, as of several engines."""

    def __init__(self, folder: Path, servers: NatsServers) -> None:
        self._folder, self._servers = folder, servers
        self.lost: dict[str, BaseException] = {}
        self.replicas: list[Replica] = []

    def close(self) -> None:
        for replica in self.replicas:
            replica.close()

    def settings(self, engine: str, **fields: Any) -> ClusterSettings:
        known: dict[str, Any] = {"max_bytes": 10_000_000, "sync_always": True, **fields}
        return ClusterSettings(tuple(self._servers.urls), "shop", engine, **known)

    def replica(self, engine: str, **fields: Any) -> Replica:
        folder = self._folder / engine
        folder.mkdir(exist_ok=True)
        replica = Replica(self.settings(engine, **fields), "state", folder, lambda e: self.lost.update({engine: e}))
        self.replicas.append(replica)
        replica.connect()
        return replica

    def store(self, engine: str, schema: Schema = KEY_VALUE_SCHEMA, **fields: Any) -> Store:
        """Return the store once the engine owns it."""
        replica = self.replica(engine, **fields)
        return Store(None, schema, replica=replica, on_fatal=lambda e: self.lost.update({engine: e}))

    def values(self, engine: str, **fields: Any) -> SqliteKeyValue:
        return SqliteKeyValue(self.store(engine, **fields))


@pytest.fixture
def engines(tmp_path: Path, servers: NatsServers) -> Iterator[Engines]:
    made = Engines(tmp_path, servers)
    try:
        yield made
    finally:
        made.close()


def put(values: SqliteKeyValue, key: str, value: int) -> None:
    values.put("shop", key, b"%d" % value).result(BOUND)


def get(values: SqliteKeyValue, key: str) -> bytes | None:
    entry = values.get("shop", key).result(BOUND)
    return None if entry is None else entry.value


def freeze(replica: Any) -> Callable[[], None]:
    """Keep the loop of a replica from running, as SIGSTOP does with its process; return what lets it go on."""
    thawed = time.monotonic() + BOUND
    state = {"is_frozen": True}

    def stand_still() -> None:
        while state["is_frozen"] and time.monotonic() < thawed:
            time.sleep(0.01)  # the loop stands still

    replica._loop.call_soon_threadsafe(stand_still)
    return lambda: state.update(is_frozen=False)


def test_the_next_owner_has_everything_that_was_there(engines: Engines) -> None:
    store = engines.store("a")
    first = SqliteKeyValue(store)
    for number in range(50):
        put(first, f"k{number}", number)
    first.update("shop", "k0", lambda _: None).result(BOUND)
    journal = first.journal.append([("outbox", b"event")]).result(BOUND)
    epoch = store.epoch
    store.close()
    other = engines.store("b")
    second = SqliteKeyValue(other)
    assert [row.key for row in second.list("shop").result(BOUND)] == [f"k{number}" for number in range(1, 50)]
    assert get(second, "k49") == b"49"
    assert second.journal.read("outbox", 0, 9).result(BOUND) == journal
    assert other.epoch == epoch
    put(second, "k0", 7)
    other.close()


def test_row_7_a_frozen_owner_reads_and_writes_nothing_once_another_one_owns(engines: Engines) -> None:
    store = engines.store("a")
    values = SqliteKeyValue(store)
    put(values, "k", 1)
    thaw = freeze(store._replica)
    second = engines.values("b")
    assert values.recent("shop", "k") is None
    with pytest.raises(InvocationError, match="no_quorum"):
        get(values, "k")
    late = values.put("shop", "k", b"3")
    put(second, "k", 2)
    thaw()
    with pytest.raises(InvocationError, match="owned by"):
        late.result(BOUND)
    eventually(lambda: "a" in engines.lost)
    assert get(second, "k") == b"2"


@pytest.mark.slow
def test_row_5_the_leader_is_killed_under_writes_and_nothing_is_lost(engines: Engines, servers: NatsServers) -> None:
    store = engines.store("a")
    values = SqliteKeyValue(store)
    put(values, "k0", 0)
    servers.kill(servers.leader_of("III_shop_STATE"))
    for number in range(1, 200):
        put(values, f"k{number}", number)
    store.close()
    second = engines.values("b")
    assert [row.entry.value for row in second.list("shop").result(BOUND)] == [b"%d" % n for n in range(200)]


def test_row_8_rows_whose_answer_was_lost_are_stored_once(engines: Engines) -> None:
    store = engines.store("a")
    values = SqliteKeyValue(store)
    replica: Any = store._replica
    write, answers = replica._stream.write, []

    async def without_answer(rows: Any, fence: int) -> None:
        await write(rows, fence)
        answers.append(fence)
        if len(answers) == 1:
            raise NoAnswer("dropped")

    replica._stream.write = without_answer
    versions = [values.put("shop", "k", b"%d" % n).result(BOUND).new for n in range(2)]
    assert answers[1] > answers[0]  # under a new lease: the first cannot be stored after that
    store.close()
    entry = engines.values("b").get("shop", "k").result(BOUND)
    assert entry == versions[1]


def test_a_write_whose_answer_was_lost_is_not_said_to_be_lost_when_the_lease_is_too(engines: Engines) -> None:
    store = engines.store("a")
    values = SqliteKeyValue(store)
    replica: Any = store._replica
    write = replica._stream.write

    async def overtaken(rows: Any, fence: int) -> None:
        await write(rows, fence)
        await replica._stream.put_lease(LeaseRecord("b", "b", "b", is_released=True), fence)
        raise NoAnswer("dropped")

    replica._stream.write = overtaken
    with pytest.raises(InvocationError, match="owned by engine b now; this may be stored or not"):
        put(values, "k", 1)
    eventually(lambda: "a" in engines.lost)
    assert get(engines.values("c"), "k") == b"1"


def test_row_9_a_busy_stream_is_tried_again(engines: Engines) -> None:
    store = engines.store("a")
    values = SqliteKeyValue(store)
    replica: Any = store._replica
    write, tries = replica._stream.write, []

    async def busy(rows: Any, fence: int) -> None:
        tries.append(fence)
        if len(tries) < 3:
            raise Refused(BUSY, "busy")
        await write(rows, fence)

    replica._stream.write = busy
    put(values, "k", 1)
    assert len(tries) == 3
    store.close()


@pytest.mark.slow
def test_row_11_without_a_majority_callers_hear_no_quorum_and_it_goes_on_by_itself(
    engines: Engines, servers: NatsServers
) -> None:
    store = engines.store("a")
    values = SqliteKeyValue(store)
    put(values, "k", 1)
    for index in (0, 1):
        servers.kill(index)
    with pytest.raises(InvocationError, match="no_quorum") as refused:
        put(values, "k", 2)
    assert (refused.value.code, refused.value.retryable) == ("storage_error", False)  # it may be stored
    with pytest.raises(InvocationError, match="no_quorum"):
        get(values, "k")
    for index in (0, 1):
        servers.launch(index)
    eventually(lambda: store.is_serving, 60)
    assert get(values, "k") == b"2"  # the write that nobody waits for any more
    put(values, "k", 3)
    assert not engines.lost


@pytest.mark.slow
def test_row_12_all_servers_are_killed_and_nothing_is_lost(engines: Engines, servers: NatsServers) -> None:
    store = engines.store("a")
    values = SqliteKeyValue(store)
    for number in range(100):
        put(values, f"k{number}", number)
    for index in range(3):
        servers.kill(index)
    for index in range(3):
        servers.launch(index)
    put(values, "k100", 100)
    store.close()
    assert len(engines.values("b").list("shop").result(BOUND)) == 101


def test_row_14_a_row_that_was_damaged_is_named_and_nothing_is_served(engines: Engines) -> None:
    store = engines.store("a")
    put(SqliteKeyValue(store), "k", 1)
    store.close()
    replica = engines.replica("b")
    replica._wait(replica._stream._publish("iii.shop.state.r.entry.1", b"what no engine wrote", {}))
    with pytest.raises(Refusal, match=r"entry\.1"):
        Store(None, KEY_VALUE_SCHEMA, replica=replica)


def test_row_15_what_is_larger_than_the_servers_take_is_refused_and_the_rest_is_stored(engines: Engines) -> None:
    values = engines.values("a")
    large = values.put("shop", "large", b"x" * 2_000_000)
    small = values.put("shop", "small", b"1")
    with pytest.raises(InvocationError, match="max_payload"):
        large.result(BOUND)
    small.result(BOUND)
    put(values, "more", 1)
    assert get(values, "large") is None


def test_row_16_a_full_store_says_so_drops_nothing_and_can_be_emptied(engines: Engines) -> None:
    values = engines.values("a", max_bytes=1_000_000)
    stored, full = 0, ""
    while not full:
        try:
            values.put("shop", f"k{stored}", b"x" * 10_000).result(BOUND)
            stored += 1
        except InvocationError as error:
            full = error.code
    assert full == "storage_full"
    assert len(values.list("shop").result(BOUND)) == stored
    for number in range(10):
        values.update("shop", f"k{number}", lambda _: None).result(BOUND)
    values.put("shop", "again", b"x" * 10_000).result(BOUND)


def test_row_20_64_writers_of_one_key_all_succeed(engines: Engines) -> None:
    values = engines.values("a")

    def add(entry: Any) -> bytes:
        return b"%d" % (1 if entry is None else int(entry.value) + 1)

    for pending in [values.update("shop", "k", add) for _ in range(64)]:
        pending.result(BOUND)
    assert get(values, "k") == b"64"


def test_a_transaction_with_more_rows_than_a_batch_holds_is_refused_alone(engines: Engines) -> None:
    store = engines.store("a")
    values = SqliteKeyValue(store)
    many = [("shop", f"k{number}", lambda _: b"1") for number in range(1001)]
    with pytest.raises(InvocationError, match="rows at once"):
        values.update_all(many).result(BOUND)
    values.update_all(many[:900]).result(BOUND)
    assert values.count("shop").result(BOUND) == 900


def test_two_that_wait_do_not_both_own(engines: Engines) -> None:
    first = engines.store("a")
    found: dict[str, Store] = {}
    waiting = [Thread(target=lambda name=name: found.update({name: engines.store(name)})) for name in "bc"]
    for thread in waiting:
        thread.start()
    first.close()
    eventually(lambda: found)
    owner = next(iter(found.values()))
    put(SqliteKeyValue(owner), "k", 1)
    assert len(found) == 1
    owner.close()
    for thread in waiting:
        thread.join(BOUND)
    assert len(found) == 2


def test_servers_that_are_not_all_there_yet_are_waited_for_and_not_refused(engines: Engines) -> None:
    replica: Any = engines.replica("a")
    ask, answers = replica._stream._ask, []

    async def too_early(what: str, question: Any) -> dict[str, Any]:
        if what == "STREAM.INFO" and len(answers) < 2:
            answers.append(what)
            return {"error": {"code": 400, "err_code": 10005, "description": "no suitable peers for placement"}}
        return dict(await ask(what, question))

    replica._stream._ask = too_early
    put(SqliteKeyValue(Store(None, KEY_VALUE_SCHEMA, replica=replica)), "k", 1)
    assert len(answers) == 2
