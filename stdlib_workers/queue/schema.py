"""The tables of the queue's database.

Partial indexes keep each query as small as its answer: a million waiting jobs do not slow down a claim. The
unique index on group heads is the ordering guarantee itself. AUTOINCREMENT: a sequence number, half of a job's
fence, is never used twice.

Every row has a checksum. A job's is that of its content, which does not change while it moves from state to state:
what it calls and with what. What it is counted and found by is held against its indexes when the file is opened.
"""

from __future__ import annotations

from stdlib_workers.storage import Schema

TABLES = """
CREATE TABLE queues (
    id INTEGER PRIMARY KEY, name TEXT NOT NULL UNIQUE, config TEXT NOT NULL,
    topic TEXT, namespace TEXT, function_id TEXT, metadata BLOB,
    paused INTEGER NOT NULL DEFAULT 0, done INTEGER NOT NULL DEFAULT 0, failed INTEGER NOT NULL DEFAULT 0,
    fenced INTEGER NOT NULL DEFAULT 0, checksum INTEGER NOT NULL
) STRICT;
CREATE TABLE jobs (
    seq INTEGER PRIMARY KEY AUTOINCREMENT, id TEXT NOT NULL UNIQUE, queue INTEGER NOT NULL,
    state INTEGER NOT NULL, priority INTEGER NOT NULL DEFAULT 0, due INTEGER NOT NULL, grp TEXT,
    attempt INTEGER NOT NULL DEFAULT 0, spent INTEGER NOT NULL DEFAULT 0, interrupted INTEGER NOT NULL DEFAULT 0,
    suspect INTEGER NOT NULL DEFAULT 0,
    created INTEGER NOT NULL, started INTEGER, ended INTEGER, run TEXT,
    function_id TEXT NOT NULL, namespace TEXT, traceparent TEXT, baggage TEXT, metadata BLOB, data BLOB NOT NULL,
    checksum INTEGER NOT NULL
) STRICT;
CREATE TABLE failures (
    job TEXT NOT NULL, attempt INTEGER NOT NULL, started INTEGER, ended INTEGER NOT NULL, error TEXT NOT NULL,
    checksum INTEGER NOT NULL
) STRICT;
CREATE TABLE keys (
    queue INTEGER NOT NULL, key TEXT NOT NULL, job TEXT NOT NULL, expires INTEGER NOT NULL, checksum INTEGER NOT NULL,
    PRIMARY KEY (queue, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX ready ON jobs (queue, priority DESC, seq) WHERE state = 0 AND suspect = 0;
CREATE INDEX suspects ON jobs (queue, seq) WHERE state = 0 AND suspect = 1;
CREATE INDEX delayed ON jobs (queue, due) WHERE state = 1;
CREATE INDEX running ON jobs (queue) WHERE state = 2;
CREATE INDEX behind ON jobs (queue, grp, seq) WHERE state = 3;
CREATE INDEX held ON jobs (function_id, seq) WHERE state = 4;
CREATE INDEX dead ON jobs (queue, ended) WHERE state = 5;
CREATE INDEX dead_heads ON jobs (queue, grp) WHERE state = 5 AND grp IS NOT NULL;
CREATE UNIQUE INDEX heads ON jobs (queue, grp) WHERE state IN (0, 1, 2, 4) AND grp IS NOT NULL;
CREATE INDEX failures_of ON failures (job);
CREATE INDEX expiry ON keys (expires);
"""
# What the checksum of a row covers, by table.
CONTENT = {
    "queues": "name, config, topic, namespace, function_id, metadata",
    "jobs": "id, queue, grp, priority, function_id, namespace, traceparent, baggage, metadata, data",
    "failures": "job, attempt, started, ended, error",
    "keys": "queue, key, job, expires",
}
_ADD_CHECKSUMS = "".join(
    f"ALTER TABLE {table} ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0; "
    f"UPDATE {table} SET checksum = row_checksum({columns}); "
    for table, columns in CONTENT.items()
)
# "iiiQ": tells this file from any other SQLite file.
SCHEMA = Schema(0x69696951, TABLES, (_ADD_CHECKSUMS,))
