"""The functions `state::*` over a real store: results, codes and edges of the contract."""

from __future__ import annotations

import asyncio
import inspect
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from iii import InvocationError
from stdlib_workers.state.__main__ import options_from
from stdlib_workers.state.functions import Options, State
from stdlib_workers.storage import KEY_VALUE_SCHEMA, Entry, SqliteKeyValue, Store
from stdlib_workers.storage.write_buffer import OVERHEAD, Cache
from stdlib_workers.values import OptionError
from tests.support.memory_keyvalue import MemoryKeyValue

Call = Callable[..., Any]


def caller(state: State) -> Call:
    def call(name: str, **payload: Any) -> Any:
        result = getattr(state, name)(payload)
        return asyncio.run(result) if inspect.iscoroutine(result) else result

    return call


@pytest.fixture
def store() -> Iterator[Store]:
    store = Store(None, KEY_VALUE_SCHEMA)
    yield store
    store.close()


@pytest.fixture(params=["sqlite", "another"])
def call(store: Store, request: pytest.FixtureRequest) -> Call:
    pairs = SqliteKeyValue(store) if request.param == "sqlite" else MemoryKeyValue()
    return caller(State(pairs, Options()))


def code_of(call: Call, name: str, **payload: Any) -> str:
    with pytest.raises(InvocationError) as caught:
        call(name, **payload)
    return caught.value.code


def deep(levels: int) -> Any:
    value: Any = 1
    for _ in range(levels):
        value = [value]
    return value


def test_set_tells_the_old_and_the_new_value(call: Call) -> None:
    assert call("set", scope="s", key="k", value={"a": 1}) == {"old_value": None, "new_value": {"a": 1}}
    assert call("set", scope="s", key="k", data=[2]) == {"old_value": {"a": 1}, "new_value": [2]}
    assert call("get", scope="s", key="k") == [2]


ONCE: dict[str, Any] = {
    "scope": "paid",
    "key": "job-1",
    "result": {"n": 1},
    "writes": [
        {"scope": "accounts", "key": "a", "ops": [{"type": "decrement", "path": "balance", "by": 3}]},
        {"scope": "orders", "key": "o", "value": "paid"},
        {"scope": "carts", "key": "c", "delete": True},
    ],
}


def test_an_effect_and_its_record_are_made_once_and_together(call: Call) -> None:
    call("set", scope="accounts", key="a", value={"balance": 10})
    call("set", scope="carts", key="c", value=[1])
    assert call("once", **ONCE) == {"result": {"n": 1}, "replayed": False}
    assert call("once", **ONCE | {"result": "another"}) == {"result": {"n": 1}, "replayed": True}
    found = [call("get", scope=scope, key=key) for scope, key in (("accounts", "a"), ("orders", "o"), ("carts", "c"))]
    assert found == [{"balance": 7}, "paid", None]
    assert call("get", scope="paid", key="job-1") == {"n": 1}


def test_an_effect_that_does_not_fit_leaves_no_record(call: Call) -> None:
    call("set", scope="accounts", key="a", value={"balance": "much"})
    turned = ONCE | {"writes": ONCE["writes"][::-1]}
    assert code_of(call, "once", **turned) == "OPS_DO_NOT_FIT"
    assert [call("get_entry", scope=scope, key=key) for scope, key in (("paid", "job-1"), ("orders", "o"))] == [
        None
    ] * 2
    call("set", scope="accounts", key="a", value={"balance": 10})
    assert call("once", **turned)["replayed"] is False


@pytest.mark.parametrize(
    "writes", [5, [5], [{"scope": "s", "key": "k"}], [{"scope": "s", "key": "k", "value": 1, "ops": []}]]
)
def test_a_malformed_effect_writes_nothing(call: Call, writes: Any) -> None:
    assert code_of(call, "once", scope="paid", key="job-1", writes=writes) == "deserialization_error"
    assert call("list_groups") == {"groups": []}


def test_an_effect_keeps_to_the_limit_of_a_value(store: Store) -> None:
    limited = caller(State(SqliteKeyValue(store), Options(max_value_bytes=8)))
    wide = {"scope": "s", "key": "k", "value": "123456789"}
    assert code_of(limited, "once", scope="paid", key="job-1", writes=[wide]) == "VALUE_TOO_LARGE"


def test_null_is_a_value(call: Call) -> None:
    call("set", scope="s", key="k", value=None)
    assert call("list", scope="s") == [None]
    assert call("get", scope="s", key="k") is None
    assert call("get_entry", scope="s", key="k")["value"] is None
    assert call("get_entry", scope="s", key="other") is None


@pytest.mark.parametrize(
    ("name", "payload"),
    [
        ("set", {"scope": "s", "key": "k"}),
        ("set", {"scope": "s", "key": "k", "value": 1, "data": 1}),
        ("set", {"scope": 1, "key": "k", "value": 1}),
        ("set", {"key": "k", "value": 1}),
        ("set", {"scope": "s", "key": None, "value": 1}),
        ("set", {"scope": "s", "key": "k", "value": 1, "if_version": "1"}),
        ("set", {"scope": "s", "key": "k", "value": 1, "if_version": 1, "expected": 1}),
        ("get", {"scope": "s"}),
        ("delete", {}),
        ("update", {"scope": "s", "key": "k"}),
        ("update", {"scope": "s", "key": "k", "ops": [{"type": "no"}]}),
        ("list", {"scope": ["s"]}),
        ("list_entries", {"scope": "s", "limit": 0}),
        ("list_entries", {"scope": "s", "limit": 1001}),
        ("list_entries", {"scope": "s", "max_bytes": 255}),
        ("list_entries", {"scope": "s", "max_bytes": 8_000_001}),
        ("list_keys", {}),
        ("get_entry", {"scope": "s"}),
    ],
)
def test_a_payload_that_does_not_fit_is_refused(call: Call, name: str, payload: dict[str, Any]) -> None:
    assert code_of(call, name, **payload) == "deserialization_error"


def test_a_payload_that_is_no_object_is_refused(store: Store) -> None:
    with pytest.raises(InvocationError, match="must be an object"):
        State(SqliteKeyValue(store), Options()).get([1])


@pytest.mark.parametrize("value", ["\ud800", object(), deep(3000)], ids=["no UTF-8", "no JSON", "too deep"])
def test_a_value_that_cannot_be_written_down_is_refused(call: Call, value: Any) -> None:
    assert code_of(call, "set", scope="s", key="k", value=value) == "serialization_error"
    assert call("list", scope="s") == []


@pytest.mark.parametrize("name", ["", "a.b", "__proto__", "\0", "é" * 500])
def test_any_text_is_a_scope_and_a_key(call: Call, name: str) -> None:
    call("set", scope=name, key=name, value=1)
    assert call("get", scope=name, key=name) == 1
    assert (call("list_keys", scope=name), call("list_groups")) == ({"keys": [name]}, {"groups": [name]})
    assert call("delete", scope=name, key=name) == 1


def test_removing_the_root_leaves_a_null_and_no_gap(call: Call) -> None:
    call("set", scope="s", key="k", value={"a": 1})
    result = call("update", scope="s", key="k", ops=[{"type": "remove", "path": ""}])
    assert result == {"old_value": {"a": 1}, "new_value": None}
    assert call("get_entry", scope="s", key="k")["value"] is None
    assert call("list", scope="s") == [None]


def test_unknown_fields_are_ignored(call: Call) -> None:
    call("set", scope="s", key="k", value=1, _caller_worker_id="x")
    assert call("get", scope="s", key="k", more=True) == 1


def test_expected_writes_only_over_that_value(call: Call) -> None:
    assert call("set", scope="s", key="k", value=1, expected=None)["new_value"] == 1
    assert code_of(call, "set", scope="s", key="k", value=2, expected=None) == "CONFLICT"
    assert call("set", scope="s", key="k", value=2, expected=1)["old_value"] == 1
    assert call("get", scope="s", key="k") == 2


def test_if_version_writes_only_over_that_version(call: Call) -> None:
    first = call("set", scope="s", key="k", value=1, if_version=0)["version"]
    assert call("get_entry", scope="s", key="k") == {"value": 1, "version": first}
    assert code_of(call, "set", scope="s", key="k", value=2, if_version=0) == "CONFLICT"
    assert call("set", scope="s", key="k", value=2, if_version=first)["version"] > first


def test_only_one_of_many_racing_writers_wins(store: Store) -> None:
    state = State(SqliteKeyValue(store), Options())

    async def attempt(number: int) -> bool:
        try:
            await state.set({"scope": "s", "key": "k", "value": number, "if_version": 0})
        except InvocationError:
            return False
        return True

    async def race() -> list[bool]:
        return await asyncio.gather(*map(attempt, range(32)))

    assert asyncio.run(race()).count(True) == 1


def test_updates_of_many_writers_are_all_counted(store: Store) -> None:
    state = State(SqliteKeyValue(store), Options())

    async def count() -> None:
        ops = [{"type": "increment", "path": "n", "by": 1}]
        await asyncio.gather(*(state.update({"scope": "s", "key": "k", "ops": ops}) for _ in range(100)))

    asyncio.run(count())
    assert state.get({"scope": "s", "key": "k"}) == {"n": 100}


def test_update_lists_errors_only_when_there_are_some(call: Call) -> None:
    fine = call("update", scope="s", key="k", ops=[{"type": "set", "path": "a", "value": 1}])
    assert fine == {"old_value": None, "new_value": {"a": 1}}
    bad = call("update", scope="s", key="k", ops=[{"type": "increment", "path": "", "by": 1}])
    assert bad["new_value"] == {"a": 1}
    assert [error["code"] for error in bad["errors"]] == ["increment.not_number"]


def test_delete_returns_what_was_there(call: Call) -> None:
    call("set", scope="s", key="k", value=1)
    assert call("delete", scope="s", key="k") == 1
    assert call("delete", scope="s", key="k") is None
    assert call("get", scope="s", key="k") is None


def test_lists_keep_the_order_of_first_writes(call: Call) -> None:
    for key in ("z", "a", "m", "z"):
        call("set", scope="s", key=key, value=key)
    assert call("list", scope="s") == ["z", "a", "m"]
    assert call("list_keys", scope="s") == {"keys": ["z", "a", "m"]}
    assert call("list", scope="unknown") == []
    call("set", scope="b", key="k", value=1)
    assert call("list_groups") == {"groups": ["b", "s"]}
    call("delete", scope="b", key="k")
    assert call("list_groups") == {"groups": ["s"]}


def test_entries_come_in_pages_that_miss_and_repeat_nothing(call: Call) -> None:
    for number in range(25):
        call("set", scope="s", key=f"k{number}", value=number)
    seen: list[Any] = []
    cursor = None
    while True:
        page = call("list_entries", scope="s", limit=10, cursor=cursor)
        assert (page["offset"], page["total"]) == (len(seen), 25)
        seen += page["entries"]
        cursor = page["next_cursor"]
        assert page["done"] == (cursor is None)
        if page["done"]:
            break
    assert seen == [{"key": f"k{number}", "value": number} for number in range(25)]


@pytest.mark.parametrize(("limit", "length"), [(None, 100), (1, 1), (1000, 101)])
def test_a_page_has_a_hundred_entries_unless_told_otherwise(call: Call, limit: int | None, length: int) -> None:
    ops = [{"type": "set", "path": "", "value": 1}]
    call("once", scope="o", key="o", writes=[{"scope": "s", "key": str(n), "ops": ops} for n in range(101)])
    page = call("list_entries", scope="s", limit=limit, max_bytes=8_000_000)
    assert (len(page["entries"]), page["done"]) == (length, length == 101)


def test_a_page_holds_a_megabyte_unless_told_otherwise(call: Call) -> None:
    for key in "abc":
        call("set", scope="s", key=key, value="x" * 400_000)
    assert [entry["key"] for entry in call("list_entries", scope="s")["entries"]] == ["a", "b"]
    assert call("list_entries", scope="unknown") == {
        "entries": [],
        "next_cursor": None,
        "done": True,
        "offset": 0,
        "total": 0,
    }


def test_a_page_holds_no_more_bytes_than_asked(call: Call) -> None:
    for number in range(4):
        call("set", scope="s", key=f"k{number}", value="x" * 100)
    page = call("list_entries", scope="s", max_bytes=256)
    assert (len(page["entries"]), page["done"]) == (2, False)


def test_a_row_larger_than_the_page_is_an_error(call: Call) -> None:
    call("set", scope="s", key="k", value="x" * 300)
    assert code_of(call, "list_entries", scope="s", max_bytes=256) == "ROW_TOO_LARGE"


@pytest.mark.parametrize("cursor", ["nonsense", "", 5, "WyJzIl0="])
def test_a_cursor_that_is_none_is_refused(call: Call, cursor: Any) -> None:
    assert code_of(call, "list_entries", scope="s", cursor=cursor) == "INVALID_CURSOR"


def test_a_cursor_of_another_scope_is_refused(call: Call) -> None:
    for key in "ab":
        call("set", scope="s", key=key, value=1)
    cursor = call("list_entries", scope="s", limit=1)["next_cursor"]
    assert code_of(call, "list_entries", scope="t", cursor=cursor) == "INVALID_CURSOR"


# Bytes of compact JSON: no space after a comma, two bytes for an umlaut.
@pytest.mark.parametrize(
    ("value", "fits"), [("x" * 8, True), ("x" * 9, False), ("ü" * 4, True), ("ü" * 5, False), ([1, 2, 3, 45], True)]
)
def test_a_value_over_the_limit_is_refused(store: Store, value: Any, fits: bool) -> None:
    call = caller(State(SqliteKeyValue(store), Options(max_value_bytes=10)))
    if fits:
        call("set", scope="s", key="k", value=value)
    else:
        assert code_of(call, "set", scope="s", key="k", value=value) == "VALUE_TOO_LARGE"
        assert call("list", scope="s") == []


def test_the_limit_of_a_value_does_not_bind_updates(store: Store) -> None:
    call = caller(State(SqliteKeyValue(store), Options(max_value_bytes=10)))
    ops = [{"type": "set", "path": "", "value": "x" * 20}]
    assert call("update", scope="s", key="k", ops=ops)["new_value"] == "x" * 20


def test_values_written_before_a_restart_are_read_from_the_disk(store: Store) -> None:
    pairs = SqliteKeyValue(store)
    caller(State(pairs, Options()))("set", scope="s", key="k", value=1)
    again = caller(State(pairs, Options()))
    assert [again("get", scope="s", key="k") for _ in range(2)] == [1, 1]
    again("set", scope="s", key="k", value=2)
    assert again("get", scope="s", key="k") == 2


def test_the_cache_stays_within_its_bytes_and_drops_the_oldest() -> None:
    cache = Cache(max_bytes=2 * (OVERHEAD + 10))
    for number, key in enumerate("abca"):
        cache.keep("s", key, Entry(b"0123456789", number))
    assert [key for key in "abc" if cache.find("s", key)] == ["a", "c"]
    cache.keep("s", "c", None)
    assert repr(cache) == f"<Cache 1 entries, {OVERHEAD + 10} bytes>"


def test_options_of_the_public_worker_are_understood() -> None:
    adapter = {"name": "kv", "config": {"store_method": "in_memory", "file_path": "x"}}
    config = {"adapter": adapter, "save_interval_ms": 5000, "triggers_enabled": False, "max_value_bytes": 7}
    assert options_from(config) == Options(in_memory=True, triggers_enabled=False, max_value_bytes=7)
    assert options_from({"adapter": {"name": "in_memory"}}) == Options(in_memory=True)
    assert options_from({"adapter": {"name": "kv", "config": None}}) == options_from({}) == Options()


@pytest.mark.parametrize(
    "config",
    [
        {"adapter": {"name": "redis"}},
        {"adapter": {"name": "bridge", "config": {"bridge_url": "ws://localhost:49134"}}},
        {"adapter": "kv"},
        {"adapter": {"name": ["kv"]}},
        {"adapter": {"name": "kv", "confg": {}}},
        {"adapter": {"name": "kv", "config": "in_memory"}},
        {"adapter": {"name": "kv", "config": {"store_methd": "in_memory"}}},
        {"store_method": "s3"},
        {"store_method": ["in_memory"]},
        {"max_value_bytes": 0},
        {"max_value_bytes": True},
        {"save_interval_ms": 99},
        {"save_interval_ms": 3_600_001},
        {"triggers_enabled": "yes"},
        {"colour": 1},
    ],
)
def test_an_option_that_does_not_fit_is_named(config: dict[str, Any]) -> None:
    with pytest.raises(OptionError, match=f"state: .*{next(iter(config))}"):
        options_from(config)
