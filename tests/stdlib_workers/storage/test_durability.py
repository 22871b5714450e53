"""Acknowledged and still there: files that vanish, logs that are damaged, files behind links, a clean close."""

from __future__ import annotations

import os
import shutil
import sqlite3
import struct
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from threading import Event

import pytest

from iii import InvocationError
from stdlib_workers.storage import KEY_VALUE_SCHEMA, SqliteKeyValue, Store
from stdlib_workers.storage.commit_mark import CommitMark, LogPosition, read_mark
from stdlib_workers.storage.database import examine, lock
from stdlib_workers.storage.errors import CORRUPT, UNUSABLE, FileGone, Refusal

# Writes so many keys, one commit each, and dies like a killed process.
WRITE_AND_DIE = """
import os, sys
from pathlib import Path
from stdlib_workers.storage import KEY_VALUE_SCHEMA, SqliteKeyValue, Store
pairs = SqliteKeyValue(Store(Path(sys.argv[1]), KEY_VALUE_SCHEMA))
for number in range(int(sys.argv[2])):
    pairs.put("b", "k", b"%d" % number).result()
os._exit(9)
"""


def crashed(path: Path, writes: int = 5) -> Path:
    """Leave a file with a log, as a process leaves it that is killed."""
    subprocess.run([sys.executable, "-c", WRITE_AND_DIE, str(path), str(writes)], check=False)
    return path.with_name(f"{path.name}-wal")


def value(path: Path, key: str = "k") -> bytes | None:
    store = Store(path, KEY_VALUE_SCHEMA)
    try:
        entry = SqliteKeyValue(store).get("b", key).result(10)
        return None if entry is None else entry.value
    finally:
        store.close()


def flip(path: Path, offset: int) -> None:
    data = bytearray(path.read_bytes())
    data[offset] ^= 1
    path.write_bytes(data)


# Files that vanish


def deleted(path: Path) -> None:
    path.unlink()


def replaced(path: Path) -> None:
    shutil.copy(path, path.with_name("other"))
    path.with_name("other").rename(path)


def log_deleted(path: Path) -> None:
    path.with_name(f"{path.name}-wal").unlink()


def folder_deleted(path: Path) -> None:
    shutil.rmtree(path.parent)


def folder_moved(path: Path) -> None:
    path.parent.rename(path.parent.with_name("elsewhere"))


@pytest.mark.parametrize("vanish", [deleted, replaced, log_deleted, folder_deleted, folder_moved])
def test_a_write_to_a_file_that_is_gone_is_an_error_and_ends_the_worker(
    tmp_path: Path, vanish: Callable[[Path], None]
) -> None:
    path = tmp_path / "project" / "state.db"
    ended: list[BaseException] = []
    has_ended = Event()

    def on_fatal(error: BaseException) -> None:
        ended.append(error)
        has_ended.set()

    store = Store(path, KEY_VALUE_SCHEMA, on_fatal=on_fatal)
    pairs = SqliteKeyValue(store)
    pairs.put("b", "k", b"1").result(10)
    vanish(path)
    with pytest.raises(InvocationError, match=r"state\.db(-wal)? was (deleted|replaced)") as caught:
        pairs.put("b", "k", b"2").result(10)
    assert caught.value.code == UNUSABLE
    assert has_ended.wait(10)
    assert isinstance(ended[0], FileGone)
    with pytest.raises(InvocationError, match="closed"):
        pairs.put("b", "k", b"3").result(10)


def test_a_log_without_its_file_is_refused_and_a_mark_alone_is_not(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "state.db"
    log = crashed(path)
    path.unlink()
    with pytest.raises(Refusal, match=r"state\.db is gone, and its log state\.db-wal is still there"):
        Store(path, KEY_VALUE_SCHEMA)
    log.unlink()
    assert value(path) is None
    assert "state.db was deleted; a new, empty one is made" in capfd.readouterr().err


# Damaged logs


def test_a_flipped_bit_anywhere_in_the_log_is_never_an_older_value(tmp_path: Path) -> None:
    source = tmp_path / "source"
    source.mkdir()
    log = crashed(source / "state.db")
    size = log.stat().st_size
    outcomes = set()
    # The headers of the log and of its last frames, and places within pages.
    for offset in [*range(0, 32, 4), *range(32, 56, 4), *range(size - 4120, size - 4096, 4), size // 2, size - 1]:
        folder = tmp_path / f"at{offset}"
        shutil.copytree(source, folder)
        flip(folder / log.name, offset)
        try:
            assert value(folder / "state.db") == b"4", offset
            outcomes.add("served")
        except Refusal as refusal:
            assert "state.db-wal is damaged" in str(refusal)  # noqa: PT017 - both outcomes are right
            outcomes.add("refused")
            assert (folder / log.name).stat().st_size == size  # what is left can still be saved
    assert "refused" in outcomes


def test_a_log_that_is_cut_off_is_refused(tmp_path: Path) -> None:
    log = crashed(tmp_path / "state.db")
    os.truncate(log, log.stat().st_size - 5000)
    with pytest.raises(Refusal, match="acknowledged commits in it cannot be read"):
        value(tmp_path / "state.db")


def test_without_a_mark_a_damaged_commit_that_another_one_followed_is_refused(tmp_path: Path) -> None:
    log = crashed(tmp_path / "state.db")
    (tmp_path / "state.db.mark").unlink()
    flip(log, 32 + 24 + 4096 + 24 + 100)
    with pytest.raises(Refusal, match="is damaged"):
        value(tmp_path / "state.db")


def test_a_commit_that_was_never_finished_is_none(tmp_path: Path) -> None:
    log = crashed(tmp_path / "state.db")
    # As a power cut leaves it: the mark is older than the log, and the last frame is torn.
    (tmp_path / "state.db.mark").unlink()
    flip(log, log.stat().st_size - 1)
    assert value(tmp_path / "state.db") == b"3"


def test_dying_while_the_log_is_moved_into_the_file_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    crashed(path)
    examine(path)
    code = f"""if 1:
        import os
        from pathlib import Path
        from stdlib_workers.storage import KEY_VALUE_SCHEMA, database
        path = Path({str(path)!r})
        database.OpenFile = lambda *_: os._exit(9)  # the log has just been moved
        database.open_database(path, KEY_VALUE_SCHEMA)
    """
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    assert path.with_name("state.db-wal").stat().st_size == 0
    assert value(path) == b"4"


def test_the_mark_keeps_its_last_whole_note(tmp_path: Path) -> None:
    path = tmp_path / "x.mark"
    mark = CommitMark(path)
    assert read_mark(path) is None
    for frames in (1, 2, 3):
        mark.note(LogPosition(7, 8, frames, b"checksum"))
    assert read_mark(path) == LogPosition(7, 8, 3, b"checksum")
    torn = bytearray(path.read_bytes())
    torn[64 + 10] ^= 0xFF  # the slot of the third note
    path.write_bytes(torn)
    assert read_mark(path) == LogPosition(7, 8, 2, b"checksum")
    mark.clear()
    assert read_mark(path) is None
    mark.remove()
    assert read_mark(path) is None


@pytest.mark.parametrize(
    ("found", "is_lost"),
    [
        ((5, 1, 10, b"same"), False),
        ((5, 1, 11, b"more"), False),
        ((5, 1, 9, b"less"), True),
        ((5, 1, 10, b"other"), True),
        ((6, 2, 1, b"new"), False),  # begun anew: what was before is in the file
        ((4, 2, 99, b"old"), True),
        ((0, 0, 0, b"none"), True),
        ((5 + 2**20, 9, 5, b"foreign"), True),
    ],
)
def test_what_a_log_must_reach(found: tuple[int, int, int, bytes], is_lost: bool) -> None:
    assert LogPosition(*found).has_lost(LogPosition(5, 1, 10, b"same")) is is_lost
    assert not LogPosition(*found).has_lost(LogPosition(9, 9, 0, b"a log without commits"))


def test_dying_before_the_first_write_loses_nothing(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    crashed(path)
    code = f"""if 1:
        import os
        from pathlib import Path
        from stdlib_workers.storage import KEY_VALUE_SCHEMA, Store
        Store(Path({str(path)!r}), KEY_VALUE_SCHEMA).run(lambda connection: None).result()  # a commit without a write
        os._exit(9)
    """
    assert subprocess.run([sys.executable, "-c", code], check=False).returncode == 9
    assert value(path) == b"4"


# Damaged rows


@pytest.mark.parametrize(
    ("damage", "named"),
    [
        ("UPDATE entry SET value = x'32' WHERE key = 'k'", "k in b"),
        ("UPDATE entry SET version = version + 1 WHERE key = 'k'", "k in b"),
        ("UPDATE bucket SET entries = 7", "the count of b"),
        ("UPDATE record SET body = x'00'", "the record r of kind"),
        ("UPDATE journal SET body = x'00'", "the entry of topic at position 1"),
        ("UPDATE version SET reserved = 0", "the counter of versions"),
    ],
)
def test_a_damaged_row_of_every_table_is_refused_by_name(tmp_path: Path, damage: str, named: str) -> None:
    path = tmp_path / "state.db"
    store = Store(path, KEY_VALUE_SCHEMA)
    pairs = SqliteKeyValue(store)
    pairs.put("b", "k", b"1").result(10)
    pairs.records.put("kind", "r", b"{}").result(10)
    pairs.journal.append([("topic", b"{}")]).result(10)
    store.close()
    outside = sqlite3.connect(path)
    with outside:
        outside.execute(damage)
    outside.close()
    store = Store(path, KEY_VALUE_SCHEMA)
    with pytest.raises(InvocationError, match=named) as caught:
        read_everything(store)
    assert caught.value.code == CORRUPT
    store.close()


def read_everything(store: Store) -> None:
    pairs = SqliteKeyValue(store)
    for reading in (
        pairs.get("b", "k"),
        pairs.list("b"),
        pairs.count("b"),
        pairs.buckets(),
        pairs.records.read("kind"),
        pairs.journal.read("topic", 0, 10),
    ):
        reading.result(10)


# Links, clean ends, older versions


def test_a_file_behind_a_link_is_guarded_beside_itself(tmp_path: Path) -> None:
    real, link = tmp_path / "disk" / "real.db", tmp_path / "project" / "state.db"
    real.parent.mkdir()
    link.parent.mkdir()
    link.symlink_to(real)
    crashed(link)
    assert real.with_name("real.db-wal").exists()
    descriptor = lock(real)
    with pytest.raises(Refusal, match=r"real\.db is in use by process"):
        Store(link, KEY_VALUE_SCHEMA)
    os.close(descriptor)
    assert value(link) == b"4"


def test_a_link_whose_log_was_left_behind_is_refused(tmp_path: Path) -> None:
    real, link = tmp_path / "disk" / "real.db", tmp_path / "project" / "state.db"
    real.parent.mkdir()
    link.parent.mkdir()
    link.symlink_to(real)
    crashed(link)
    # A log beside the link is no log of the file.
    real.with_name("real.db-wal").rename(link.with_name("state.db-wal"))
    with pytest.raises(Refusal, match=r"real\.db-wal is missing"):
        value(link)


def test_a_link_into_a_folder_that_is_not_there_makes_no_empty_store(tmp_path: Path) -> None:
    link = tmp_path / "state.db"
    link.symlink_to(tmp_path / "unmounted" / "state.db")
    with pytest.raises(Refusal, match="is its disk mounted"):
        Store(link, KEY_VALUE_SCHEMA)
    assert not (tmp_path / "unmounted").exists()


def test_a_closed_store_is_one_file_that_can_be_copied(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    store = Store(path, KEY_VALUE_SCHEMA)
    SqliteKeyValue(store).put("b", "k", b"1").result(10)
    store.close()
    assert sorted(file.name for file in tmp_path.iterdir()) == ["state.db", "state.db.lock"]
    copy = tmp_path / "elsewhere" / "state.db"
    copy.parent.mkdir()
    shutil.copy(path, copy)
    assert value(copy) == b"1"


def test_a_reader_from_outside_keeps_the_log_and_nothing_is_lost(
    tmp_path: Path, capfd: pytest.CaptureFixture[str]
) -> None:
    path = tmp_path / "state.db"
    store = Store(path, KEY_VALUE_SCHEMA)
    SqliteKeyValue(store).put("b", "k", b"1").result(10)
    outside = sqlite3.connect(path)
    outside.execute("BEGIN")
    outside.execute("SELECT * FROM entry").fetchall()
    store.close()
    assert "another program has" in capfd.readouterr().err
    assert value(path) == b"1"
    outside.close()


OLD_TABLES = """
    CREATE TABLE entry (
        id INTEGER PRIMARY KEY, bucket TEXT NOT NULL, key TEXT NOT NULL,
        value BLOB NOT NULL, version INTEGER NOT NULL, checksum INTEGER NOT NULL, UNIQUE (bucket, key)
    ) STRICT;
    CREATE INDEX entry_of_bucket ON entry (bucket, id);
    CREATE TABLE bucket (name TEXT PRIMARY KEY, entries INTEGER NOT NULL) STRICT, WITHOUT ROWID;
    CREATE TABLE journal (
        position INTEGER PRIMARY KEY AUTOINCREMENT, topic TEXT NOT NULL, body BLOB NOT NULL, checksum INTEGER NOT NULL
    ) STRICT;
    CREATE INDEX journal_of_topic ON journal (topic, position);
    CREATE TABLE version (reserved INTEGER NOT NULL) STRICT;
    INSERT INTO version VALUES (1048576);
    CREATE TABLE iii_life (is_open INTEGER NOT NULL) STRICT;
    INSERT INTO iii_life VALUES (0);
    INSERT INTO entry VALUES (1, 'b', 'k', x'31', 7, 3640713214);
    INSERT INTO bucket VALUES ('b', 1), ('emptied', 0);
    INSERT INTO journal VALUES (5, 'outbox', x'7b7d', 2048952841);
    PRAGMA application_id = 1768516470; PRAGMA user_version = 1;
"""


def test_a_file_of_the_first_version_is_upgraded_without_loss(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    old = sqlite3.connect(path)
    old.executescript(OLD_TABLES)
    old.close()
    store = Store(path, KEY_VALUE_SCHEMA)
    pairs = SqliteKeyValue(store)
    entry = pairs.get("b", "k").result(10)
    assert entry is not None
    assert (entry.value, entry.version) == (b"1", 7)
    assert (pairs.buckets().result(10), pairs.count("b").result(10)) == (["b"], 1)
    assert [entry.position for entry in pairs.journal.read("outbox", 0, 10).result(10)] == [5]
    new = pairs.put("b", "k", b"2").result(10).new
    assert new is not None
    assert new.version > 1048576
    assert store.epoch > 0
    store.close()


# Copies


def test_a_copy_of_a_working_store_holds_what_was_acknowledged_and_begins_a_new_epoch(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    store = Store(path, KEY_VALUE_SCHEMA)
    pairs = SqliteKeyValue(store)
    for number in range(200):
        pairs.put("b", f"k{number}", b'"' + b"x" * 20_000 + b'"')
    pairs.put("b", "before", b"1").result(10)
    copying = store.backup()
    meanwhile = [pairs.put("b", f"later{number}", b"2") for number in range(50)]
    copy = copying.result(30)
    assert copy == tmp_path / "state.db.copy"
    for pending in meanwhile:
        pending.result(10)
    epoch = store.epoch
    store.close()
    copied = Store(copy, KEY_VALUE_SCHEMA)
    found = {row.key for row in SqliteKeyValue(copied).list("b").result(10)}
    assert {"before", *(f"k{number}" for number in range(200))} <= found
    assert copied.epoch != epoch
    copied.close()


def test_a_copy_fails_by_itself_and_a_store_in_memory_has_none(tmp_path: Path) -> None:
    store = Store(tmp_path / "state.db", KEY_VALUE_SCHEMA)
    (tmp_path / "state.db.copy").mkdir()
    with pytest.raises(InvocationError, match="the copy was not made") as caught:
        store.backup().result(10)
    assert caught.value.code == UNUSABLE
    SqliteKeyValue(store).put("b", "k", b"1").result(10)
    store.close()
    memory = Store(None, KEY_VALUE_SCHEMA)
    assert memory.backup().result(10) is None
    memory.close()


def test_the_header_of_the_log_index_is_read_as_sqlite_documents_it(tmp_path: Path) -> None:
    """Version 3007000, whole frames, and the salts that the log itself has."""
    connection = sqlite3.connect(tmp_path / "x.db", isolation_level=None)
    connection.execute("PRAGMA journal_mode = WAL")
    connection.execute("CREATE TABLE t (x)")
    index = (tmp_path / "x.db-shm").read_bytes()
    log = (tmp_path / "x.db-wal").read_bytes()
    assert struct.unpack_from("=I", index)[0] == 3007000
    assert 32 + struct.unpack_from("=I", index, 16)[0] * (24 + 4096) == len(log)
    assert index[32:40] == log[16:24]
    connection.close()
