"""Durable storage of the standard workers: one SQLite file each, owned by one thread, committed in groups.

`Store.run` is for a worker with tables of its own (queue, cron), `SqliteKeyValue` for workers that need keys and a
journal (state, stream).
"""

from stdlib_workers.storage.backup import copy_closed
from stdlib_workers.storage.checksums import check_row, row_checksum
from stdlib_workers.storage.database import Schema, examine, lock, real_path
from stdlib_workers.storage.errors import CORRUPT, EXIT_REFUSED, UNUSABLE, Refusal, StorageFailure, map_storage_errors
from stdlib_workers.storage.log_retention import Bounds
from stdlib_workers.storage.pending import Pending, wake
from stdlib_workers.storage.serving import serve
from stdlib_workers.storage.sqlite_journal import JournalEntry, SqliteJournal
from stdlib_workers.storage.sqlite_keyvalue import KEY_VALUE_SCHEMA, Change, Decide, Row, SqliteKeyValue
from stdlib_workers.storage.sqlite_records import SqliteRecords
from stdlib_workers.storage.store import BACKUP, Store, TransactionHook, look_after, open_store
from stdlib_workers.storage.write_buffer import Entry

__all__ = [
    "BACKUP",
    "CORRUPT",
    "EXIT_REFUSED",
    "KEY_VALUE_SCHEMA",
    "UNUSABLE",
    "Bounds",
    "Change",
    "Decide",
    "Entry",
    "JournalEntry",
    "Pending",
    "Refusal",
    "Row",
    "Schema",
    "SqliteJournal",
    "SqliteKeyValue",
    "SqliteRecords",
    "StorageFailure",
    "Store",
    "TransactionHook",
    "check_row",
    "copy_closed",
    "examine",
    "lock",
    "look_after",
    "map_storage_errors",
    "open_store",
    "real_path",
    "row_checksum",
    "serve",
    "wake",
]
