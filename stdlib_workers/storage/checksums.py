"""Checksums of rows: each table has a column with the checksum of the row's other columns, looked at by every read.

CRC-32, because the enemy is a disk and no forger: it finds every flipped bit and every damaged run of up to 32 bits,
and costs a fraction of a microsecond. A cryptographic digest would cost more than twice as much and find the same;
a forger who can write the file could write the digest too.
"""

from __future__ import annotations

import sqlite3
import zlib

import msgspec

from stdlib_workers.storage.errors import CORRUPT, StorageFailure

# What SQLite gives and takes.
Field = str | bytes | int | float | None

# Its bytes tell types and lengths apart: ("a", "b") is not ("ab", "") and 1 is not "1".
_encode = msgspec.msgpack.Encoder().encode


def row_checksum(*fields: Field) -> int:
    """Return the checksum of a row's fields, 32 bits. In SQL it is `row_checksum(column, ...)`, on every connection."""
    return zlib.crc32(_encode(fields))


def check_row(what: str, checksum: int, *fields: Field) -> None:
    """Compare a row with its stored checksum. InvocationError `storage_corrupt`; `what` names the row for the user."""
    if row_checksum(*fields) != checksum:
        raise StorageFailure(CORRUPT, f"{what} is damaged on the disk and is not served")


def add_checksum_function(connection: sqlite3.Connection) -> None:
    """Make `row_checksum` known to a connection: statements that change some columns, and upgrades, compute it."""
    connection.create_function("row_checksum", -1, row_checksum, deterministic=True)
