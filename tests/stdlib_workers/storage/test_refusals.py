"""What a database file must be before the storage touches it, and what it says when it is not."""

from __future__ import annotations

import os
import random
import sqlite3
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from iii import InvocationError
from stdlib_workers.storage import KEY_VALUE_SCHEMA, Schema, SqliteKeyValue, Store
from stdlib_workers.storage.database import lock
from stdlib_workers.storage.errors import CORRUPT, Refusal

KEEP_OPEN = """
import os, sys
from pathlib import Path
from stdlib_workers.storage import KEY_VALUE_SCHEMA, SqliteKeyValue, Store
store = Store(Path(sys.argv[1]), KEY_VALUE_SCHEMA)
SqliteKeyValue(store).put("b", "k", b"1").result()
print(os.getpid(), flush=True)
sys.stdin.read()
os._exit(9)
"""


def filled(path: Path, keys: int = 50) -> Path:
    store = Store(path, KEY_VALUE_SCHEMA)
    pairs = SqliteKeyValue(store)
    for number in range(keys):
        pairs.put("bucket", f"key{number}", f'"{number:0200}"'.encode()).result(10)
    store.close()
    return path


def refused(path: Path, schema: Schema = KEY_VALUE_SCHEMA) -> Refusal:
    before = path.read_bytes() if path.is_file() else None
    with pytest.raises(Refusal) as caught:
        Store(path, schema)
    assert (path.read_bytes() if path.is_file() else None) == before
    assert str(path) in str(caught.value)
    return caught.value


def test_q12_a_second_owner_is_told_the_first_ones_pid_and_path(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    first = subprocess.Popen(
        [sys.executable, "-c", KEEP_OPEN, str(path)], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
    )
    with first:
        assert first.stdout is not None
        pid = first.stdout.readline().strip()
        with pytest.raises(Refusal) as caught:
            lock(path, timeout=0)
        assert caught.value.exit_code == 4
        assert f"{path} is in use by process {pid}" in str(caught.value)
        first.kill()
    os.close(lock(path))


def crashed(path: Path) -> None:
    """Leave a file as a process leaves it that dies without closing."""
    subprocess.run(
        [sys.executable, "-c", KEEP_OPEN, str(path)], stdin=subprocess.DEVNULL, stdout=subprocess.DEVNULL, check=False
    )


def test_q16_a_crash_leaves_everything_that_was_acknowledged(tmp_path: Path) -> None:
    crashed(tmp_path / "state.db")
    store = Store(tmp_path / "state.db", KEY_VALUE_SCHEMA)
    found = SqliteKeyValue(store).get("b", "k").result(10)
    store.close()
    assert found is not None
    assert found.value == b"1"


def test_q16_a_lost_log_is_not_taken_for_an_older_truth(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    crashed(path)
    path.with_name("state.db-wal").unlink()
    assert "state.db-wal is missing" in str(refused(path))


def test_q16_an_empty_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.touch()
    error = refused(path)
    assert error.exit_code == 5
    assert ".recover" in str(error)


def test_q16_a_foreign_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    connection = sqlite3.connect(path)
    connection.execute("CREATE TABLE t (x)")
    connection.close()
    assert "belongs to another program" in str(refused(path))


def test_q16_no_database_at_all_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.write_bytes(b"hello, this is a text file\n" * 400)
    assert "not a database" in str(refused(path))


def test_q16_a_newer_schema_is_refused_and_an_older_one_is_upgraded(tmp_path: Path) -> None:
    path = tmp_path / "items.db"
    old = Schema(0x77, "CREATE TABLE item (name TEXT) STRICT;")
    new = Schema(0x77, "CREATE TABLE item (name TEXT, size INT) STRICT;", ("ALTER TABLE item ADD COLUMN size INT;",))
    Store(path, old).close()
    store = Store(path, new)
    assert store.run(lambda connection: connection.execute("SELECT size FROM item").fetchall()).result(10) == []
    store.close()
    assert "schema version 2, this iii knows up to 1" in str(refused(path, old))


def test_q16_a_truncated_file_is_refused(tmp_path: Path) -> None:
    path = filled(tmp_path / "state.db")
    os.truncate(path, path.stat().st_size // 2)
    refused(path)


def test_q16_what_is_no_file_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    path.mkdir()
    assert "it is not a file" in str(refused(path))


@pytest.fixture
def quick_folder(tmp_path: Path) -> Iterator[Path]:
    """A folder whose fsync costs nothing, where the system has one: what is tested is the file's content."""
    memory = "/dev/shm" if os.access("/dev/shm", os.W_OK) else tmp_path
    with tempfile.TemporaryDirectory(dir=memory) as folder:
        yield Path(folder)


def test_q16_a_flipped_bit_is_refused_reported_or_harmless_but_never_served(quick_folder: Path) -> None:
    path = filled(quick_folder / "state.db", keys=20)
    sound = path.read_bytes()
    dice = random.Random(4)
    outcomes = {"refused": 0, "reported": 0, "harmless": 0}
    for _ in range(150):
        damaged = bytearray(sound)
        damaged[dice.randrange(len(damaged))] ^= 1 << dice.randrange(8)
        path.write_bytes(damaged)
        outcomes[outcome(path)] += 1
    assert outcomes["refused"] > 0
    assert outcomes["reported"] > 0


def outcome(path: Path) -> str:
    try:
        store = Store(path, KEY_VALUE_SCHEMA)
    except Refusal:
        return "refused"
    pairs = SqliteKeyValue(store)
    try:
        rows = pairs.list("bucket").result(10)
        entries = [pairs.get("bucket", f"key{number}").result(10) for number in range(20)]
    except InvocationError as error:
        return "reported" if error.code == CORRUPT else error.code
    finally:
        store.close()
    assert [entry.value for entry in entries if entry] == [f'"{number:0200}"'.encode() for number in range(20)]
    assert len(rows) == 20
    return "harmless"


def test_files_are_for_their_owner_only(tmp_path: Path) -> None:
    path = tmp_path / "new" / "state.db"
    store = Store(path, KEY_VALUE_SCHEMA)
    modes = {file.name: file.stat().st_mode & 0o777 for file in path.parent.iterdir()}
    assert path.parent.stat().st_mode & 0o777 == 0o700
    assert set(modes.values()) == {0o600}
    store.close()
