"""What a disk does to the storage: locks held outside, no room, errors of fsync, files that may not be written.

The short tests make SQLite itself report the fault, at every statement in turn; the slow ones let the kernel do it, at
every system call in turn (they need strace).
"""

from __future__ import annotations

import asyncio
import os
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path
from threading import Timer
from typing import Any

import pytest

from iii import InvocationError
from stdlib_workers.state.functions import Options, State
from stdlib_workers.storage import KEY_VALUE_SCHEMA, SqliteKeyValue, Store
from stdlib_workers.storage.errors import FULL, Refusal

ROOT = Path(__file__).resolve().parents[3]
NOBODY = 65534
EXIT_REFUSED, EXIT_IO = 5, 74
WRITES = 8
MIB = 1024 * 1024


@pytest.fixture
def quick_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder whose fsync costs nothing, where the system has one, and that every user may enter."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else None
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        Path(folder).chmod(0o755)
        yield Path(folder)


def stored(path: Path) -> set[str]:
    """Return the keys of a file."""
    store = Store(path, KEY_VALUE_SCHEMA)
    try:
        return {row.key for row in SqliteKeyValue(store).list("b").result(10)}
    finally:
        store.close()


# Q13: another process holds the write lock


@pytest.mark.parametrize("seconds", [0.5, pytest.param(3.0, marks=pytest.mark.slow)])
async def test_q13_a_short_lock_from_outside_is_waited_for_and_holds_up_nobody_else(
    tmp_path: Path, seconds: float
) -> None:
    store = Store(tmp_path / "state.db", KEY_VALUE_SCHEMA)
    pairs = SqliteKeyValue(store)
    outside = sqlite3.connect(tmp_path / "state.db", isolation_level=None, check_same_thread=False)
    outside.execute("BEGIN IMMEDIATE")
    release = Timer(seconds, outside.execute, ("ROLLBACK",))
    release.start()
    writing = asyncio.ensure_future(awaited(pairs.put("b", "k", b"1")))
    turns = 0
    while not writing.done():
        await asyncio.sleep(0.01)  # the loop must go on turning while the disk is slow
        turns += 1
    assert (await writing).new.value == b"1"
    assert turns >= 5  # the loop went round meanwhile
    release.join()
    outside.close()
    store.close()


def test_q13_a_file_that_is_locked_at_the_start_may_be_tried_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "state.db"
    Store(path, KEY_VALUE_SCHEMA).close()
    outside = sqlite3.connect(path, isolation_level=None)
    outside.execute("BEGIN IMMEDIATE")
    monkeypatch.setattr("stdlib_workers.storage.database.BUSY_TIMEOUT", 0.02)
    with pytest.raises(Refusal, match="locked") as caught:
        Store(path, KEY_VALUE_SCHEMA)
    assert caught.value.exit_code == EXIT_IO
    outside.close()
    Store(path, KEY_VALUE_SCHEMA).close()


async def awaited(pending: Any) -> Any:
    return await pending


# Q14: no room


class Full(sqlite3.Connection):
    """A connection to a disk that has no room from the `room`-th write or commit on."""

    room = sys.maxsize
    done = 0

    changes = 0

    def execute(self, sql: str, *arguments: Any) -> sqlite3.Cursor:
        word = sql.split(maxsplit=1)[0]
        if word == "BEGIN":
            self.changes = self.total_changes
        # The commit of what only reads needs no room.
        is_write = word in ("INSERT", "UPDATE", "DELETE") or (word == "COMMIT" and self.total_changes > self.changes)
        Full.done += is_write
        if is_write and Full.done > Full.room:
            error = sqlite3.OperationalError("database or disk is full")
            error.sqlite_errorcode = sqlite3.SQLITE_FULL
            raise error
        return super().execute(sql, *arguments)


def put_one(pairs: SqliteKeyValue, number: int) -> bool:
    """Write a key; returns whether it was acknowledged. Any error but `storage_full` is a failure."""
    try:
        pairs.put("b", str(number), b"1").result(10)
    except InvocationError as error:
        if (error.code, error.retryable) != (FULL, True):
            raise
        return False
    return True


def test_q14_no_room_at_every_write_in_turn_loses_nothing_that_was_acknowledged(
    quick_folder: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(sqlite3, "connect", partial(sqlite3.connect, factory=Full))
    outcomes = []
    for room in range(1, 100):
        path = quick_folder / f"{room}.db"
        store = Store(path, KEY_VALUE_SCHEMA)
        pairs = SqliteKeyValue(store)
        Full.done, Full.room = 0, room
        acknowledged = {str(number) for number in range(WRITES) if put_one(pairs, number)}
        # Readers go on: what is there is still served.
        assert {row.key for row in pairs.list("b").result(10)} == acknowledged
        Full.room = sys.maxsize
        assert put_one(pairs, WRITES)  # there is room again
        store.close()
        assert stored(path) == acknowledged | {str(WRITES)}
        outcomes.append(len(acknowledged))
        if len(acknowledged) == WRITES:
            break
    assert outcomes[0] == 0
    assert outcomes == sorted(outcomes)
    assert outcomes[-1] == WRITES


# The kernel's own faults. The program says what it was told; the file must agree.

PROGRAM = """
import os, sys
from pathlib import Path
from threading import Event
from iii import InvocationError
from stdlib_workers.storage import KEY_VALUE_SCHEMA, SqliteKeyValue, Store
from stdlib_workers.storage.errors import Refusal

def tell(error, number):
    print(error.code, number, flush=True)
    return error.code

codes = set()
try:
    pairs = SqliteKeyValue(Store(Path(sys.argv[1]), KEY_VALUE_SCHEMA))
    for number in range(int(sys.argv[2])):
        try:
            pairs.put("b", str(number), b"1" * 3000).result()
            print("acknowledged", number, flush=True)
        except InvocationError as error:
            codes.add(tell(error, number))
    if "storage_error" not in codes:
        print("read", len(pairs.list("b").result()), flush=True)
        os._exit(0)
except Refusal as refusal:
    os._exit(refusal.exit_code)
except InvocationError as error:
    if tell(error, -1) == "storage_full":
        os._exit(1)
Event().wait()  # the storage ends the process
"""


def under_fault(path: Path, fault: str, writes: int = WRITES) -> tuple[int, list[list[str]]]:
    """Run the program with a fault injected; return its exit code and what it said, a word and a number a line."""
    tool = ["strace", "-f", "-qqq", "-o", "/dev/null", "-e", "signal=none", "-e", f"inject={fault}"]
    done = subprocess.run(
        [*tool, sys.executable, "-c", PROGRAM, str(path), str(writes)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        text=True,
        check=False,
        timeout=60,
    )
    return done.returncode, [line.split() for line in done.stdout.splitlines()]


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_q14_the_kernel_has_no_room_at_every_write_in_turn(tmp_path: Path) -> None:
    fulls = 0
    for number in range(1, 40):
        path = tmp_path / f"{number}.db"
        Store(path, KEY_VALUE_SCHEMA).close()
        code, said = under_fault(path, f"pwrite64:error=ENOSPC:when={number}..{number + 3}")
        acknowledged = {n for word, n in said if word == "acknowledged"}
        refused = {n for word, n in said if word == FULL}
        if code == 0:
            assert len(acknowledged) + len(refused) == WRITES
            assert len(refused) <= 4  # then there is room again
            assert said[-1] == ["read", str(len(acknowledged))]
            fulls += bool(refused)
        else:
            assert code in (1, EXIT_IO), said
            assert not acknowledged
        assert stored(path) == acknowledged
    assert fulls > 0


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_q15_an_error_of_every_fdatasync_in_turn_ends_the_process(tmp_path: Path) -> None:
    codes = []
    for number in range(1, WRITES + 9):
        path = tmp_path / f"{number}.db"
        Store(path, KEY_VALUE_SCHEMA).close()
        code, said = under_fault(path, f"fdatasync:error=EIO:when={number}")
        words = [word for word, _ in said]
        acknowledged = [n for word, n in said if word == "acknowledged"]
        if code == EXIT_IO and said:
            # Once it has failed, nobody is told that something is durable.
            assert words[: len(acknowledged)] == ["acknowledged"] * len(acknowledged)
            assert set(words[len(acknowledged) :]) == {"storage_error"}
        # Recovery may find more than was acknowledged, never less.
        assert set(acknowledged) <= stored(path)
        codes.append(code)
    assert set(codes) <= {0, EXIT_IO}
    assert codes.count(EXIT_IO) >= WRITES
    # SQLite itself overlooks one: that of the folder. A log that is lost with it is noticed at the next start.
    assert codes[:-1].count(0) <= 1


# Q16: a file or folder that may not be written


@pytest.mark.parametrize("what", ["file", "folder"])
def test_q16_what_may_not_be_written_is_refused(quick_folder: Path, what: str) -> None:
    path = quick_folder / "data" / "state.db"
    Store(path, KEY_VALUE_SCHEMA).close()
    path.chmod(0o444)
    path.parent.chmod(0o777 if what == "file" else 0o555)
    for other in path.parent.glob("*.lock"):
        other.chmod(0o666)
    before = path.read_bytes()
    code, words = open_as_nobody(path)
    assert code == EXIT_REFUSED
    assert str(path) in words
    assert path.read_bytes() == before


OPEN = """
import os, sys
from pathlib import Path
from stdlib_workers.storage import KEY_VALUE_SCHEMA, Store
from stdlib_workers.storage.errors import Refusal
if os.geteuid() == 0:
    os.setgroups([])
    os.setresgid(*[int(sys.argv[2])] * 3)
    os.setresuid(*[int(sys.argv[2])] * 3)
try:
    Store(Path(sys.argv[1]), KEY_VALUE_SCHEMA)
except Refusal as refusal:
    print(refusal)
    os._exit(refusal.exit_code)
"""


def open_as_nobody(path: Path) -> tuple[int, str]:
    """Open a store without root's right to write everything; return exit code and words."""
    done = subprocess.run(
        [sys.executable, "-c", OPEN, str(path), str(NOBODY)],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        check=False,
        timeout=60,
    )
    return done.returncode, done.stdout + done.stderr


# Q17: a long reader


def test_q17_a_listing_that_is_read_slowly_does_not_keep_the_log_from_being_cut(quick_folder: Path) -> None:
    path = quick_folder / "state.db"
    store = Store(path, KEY_VALUE_SCHEMA)
    state = State(SqliteKeyValue(store), Options())
    for number in range(4):
        asyncio.run(state.set({"scope": "s", "key": str(number), "value": number}))
    page = asyncio.run(state.list_entries({"scope": "s", "limit": 1}))
    for number in range(48):  # while the reader thinks about its first page
        asyncio.run(state.set({"scope": "s", "key": "large", "value": str(number) * MIB}))
    log = path.with_name("state.db-wal").stat().st_size
    rest = asyncio.run(state.list_entries({"scope": "s", "limit": 3, "cursor": page["next_cursor"]}))
    store.close()
    assert log < 48 * MIB
    assert [entry["key"] for entry in rest["entries"]] == ["1", "2", "3"]


# Q19: odd keys and large values


@pytest.mark.parametrize("key", ["", "a\0b", "🦆 ü", "k" * 4096, "a/b:c\n"])
def test_q19_any_text_is_a_key(quick_folder: Path, key: str) -> None:
    store = Store(quick_folder / "state.db", KEY_VALUE_SCHEMA)
    state = State(SqliteKeyValue(store), Options())
    address = {"scope": key, "key": key}
    asyncio.run(state.set({**address, "value": key}))
    assert asyncio.run(state.list_keys({"scope": key})) == {"keys": [key]}
    assert asyncio.run(state.list_groups({})) == {"groups": [key]}
    store.close()
    store = Store(quick_folder / "state.db", KEY_VALUE_SCHEMA)
    assert State(SqliteKeyValue(store), Options()).get(address) == key
    store.close()


def test_q19_a_large_value_is_exact_and_null_is_told_from_nothing(quick_folder: Path) -> None:
    store = Store(quick_folder / "state.db", KEY_VALUE_SCHEMA)
    state = State(SqliteKeyValue(store), Options())
    large = "x" * (4 * MIB + 1)
    asyncio.run(state.set({"scope": "s", "key": "large", "value": large}))
    asyncio.run(state.set({"scope": "s", "key": "null", "value": None}))
    store.close()
    store = Store(quick_folder / "state.db", KEY_VALUE_SCHEMA)
    state = State(SqliteKeyValue(store), Options())
    assert state.get({"scope": "s", "key": "large"}) == large
    assert state.get_entry({"scope": "s", "key": "null"}) == {"value": None, "version": 2}
    assert state.get_entry({"scope": "s", "key": "absent"}) is None
    bounded = State(SqliteKeyValue(store), Options(max_value_bytes=4 * MIB))
    with pytest.raises(InvocationError) as caught:
        asyncio.run(bounded.set({"scope": "s", "key": "large", "value": large}))
    assert caught.value.code == "VALUE_TOO_LARGE"
    store.close()
