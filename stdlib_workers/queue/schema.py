"""The tables of the queue's database.

Partial indexes keep each query as small as its answer: a million waiting jobs do not slow down a claim. The
unique index on group heads is the ordering guarantee itself. AUTOINCREMENT: a sequence number, half of a job's
fence, is never used twice.

Every row has a checksum. A job's is that of its content, which does not change while it moves from state to state:
what it calls and with what, and its keys. Where it stands changes with every move; `mark` is a sum over those columns,
which SQLite keeps by itself: a move adds to it what the move has changed, so a mark that was wrong stays wrong.
"""

from __future__ import annotations

from collections.abc import Mapping

from stdlib_workers.storage import Schema

# Where a job stands. Each column has its own weight, and no single bit is worth a multiple of the prime.
_PRIME = 4_294_967_291
_FIRST_WEIGHTS = {"state": 3, "due": 1, "attempt": 5, "spent": 7, "interrupted": 11, "suspect": 13}
_WEIGHTS = {**_FIRST_WEIGHTS, "turn": 17, "batched": 19, "alone": 23, "waits": 29}


def _mark(row: str = "", weights: Mapping[str, int] = _WEIGHTS) -> str:
    return f"({' + '.join(f'{weight} * ({row}{column} % {_PRIME})' for column, weight in weights.items())})"


def new_mark(state: int, due: int, *, waits: bool = False) -> int:
    """Return the mark of a job that has not run yet."""
    return _WEIGHTS["state"] * state + _WEIGHTS["due"] * (due % _PRIME) + _WEIGHTS["waits"] * waits


# No job has this mark: that of a row that SQLite is still to give one, or could not.
_NO_MARK = -1
TRIGGERS = f"""
CREATE TRIGGER moved AFTER UPDATE OF {", ".join(_WEIGHTS)} ON jobs WHEN new.mark = old.mark BEGIN
  UPDATE jobs SET mark = coalesce(old.mark + {_mark("new.")} - {_mark("old.")}, {_NO_MARK}) WHERE seq = new.seq;
END;
CREATE TRIGGER added AFTER INSERT ON jobs WHEN new.mark = {_NO_MARK} BEGIN
  UPDATE jobs SET mark = {_mark()} WHERE seq = new.seq;
END;
"""
# What the first step of an attempt, from READY to RUNNING, adds to a mark.
CLAIMED_MARK = 2 * _WEIGHTS["state"] + _WEIGHTS["attempt"]
# From BEHIND, in a batch.
BATCHED_MARK = _WEIGHTS["attempt"] + _WEIGHTS["batched"] - _WEIGHTS["state"]
# A job's checksum, or NULL, which no content has, when it does not stand where it was put.
CHECKSUM = f"iif(mark = {_mark()}, checksum, NULL)"
# Of a job: its JobKeys but the last. `turn` orders the first jobs of keys that take turns, `batched` is 1 while the job
# runs in a batch behind its first, `alone` once a batch with it has failed, `waits` if a caller wants the result.
KEYS = "lane, ckey, tkey, fkey, dkey"
_JOB_KEYS = """
ALTER TABLE jobs ADD COLUMN turn INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN batched INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN alone INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN waits INTEGER NOT NULL DEFAULT 0;
ALTER TABLE jobs ADD COLUMN lane TEXT;
ALTER TABLE jobs ADD COLUMN ckey TEXT;
ALTER TABLE jobs ADD COLUMN tkey TEXT;
ALTER TABLE jobs ADD COLUMN fkey TEXT;
ALTER TABLE jobs ADD COLUMN dkey TEXT;
ALTER TABLE queues ADD COLUMN turn INTEGER NOT NULL DEFAULT 0;
"""
# `accepted`: when the last jobs of a key were taken in, numbered. `throttles`: up to when the starts of a key are
# taken, in microseconds, and when a job that waits for one has to be looked at again. `outcomes`: results that callers
# wait for, kept for those who ask again.
_FLOW_TABLES = """
CREATE TABLE accepted (
    queue INTEGER NOT NULL, key TEXT NOT NULL, number INTEGER NOT NULL, at INTEGER NOT NULL, expires INTEGER NOT NULL,
    checksum INTEGER NOT NULL, PRIMARY KEY (queue, key, number)
) STRICT, WITHOUT ROWID;
CREATE TABLE throttles (
    queue INTEGER NOT NULL, key TEXT NOT NULL, until INTEGER NOT NULL, wake INTEGER, checksum INTEGER NOT NULL,
    PRIMARY KEY (queue, key)
) STRICT, WITHOUT ROWID;
CREATE TABLE outcomes (
    job TEXT PRIMARY KEY, outcome BLOB NOT NULL, expires INTEGER NOT NULL, checksum INTEGER NOT NULL
) STRICT, WITHOUT ROWID;
CREATE INDEX accepted_expiry ON accepted (expires);
CREATE INDEX wakes ON throttles (queue, wake) WHERE wake IS NOT NULL;
CREATE INDEX idle_throttles ON throttles (until) WHERE wake IS NULL;
CREATE INDEX outcomes_expiry ON outcomes (expires);
CREATE INDEX keys_of ON keys (job);
DROP INDEX IF EXISTS ready;
DROP INDEX IF EXISTS running;
DROP INDEX IF EXISTS heads;
CREATE INDEX ready ON jobs (queue, priority DESC, turn, seq) WHERE state = 0 AND suspect = 0;
CREATE INDEX running ON jobs (queue, batched) WHERE state = 2;
CREATE UNIQUE INDEX heads ON jobs (queue, grp) WHERE state IN (0, 1, 2, 4, 6) AND grp IS NOT NULL;
CREATE UNIQUE INDEX firsts ON jobs (queue, lane, priority)
    WHERE lane IS NOT NULL AND grp IS NULL AND state IN (0, 6, 7) AND suspect = 0 AND alone = 0;
CREATE INDEX lanes ON jobs (queue, lane, priority, seq) WHERE lane IS NOT NULL AND grp IS NULL AND state = 3;
CREATE INDEX limited ON jobs (queue, state, due) WHERE lane IS NOT NULL AND state IN (6, 7);
CREATE INDEX by_concurrency ON jobs (queue, ckey, state, priority DESC, turn, seq)
    WHERE ckey IS NOT NULL AND state IN (0, 2, 6);
CREATE INDEX by_throttle ON jobs (queue, tkey, state, priority DESC, turn, seq)
    WHERE tkey IS NOT NULL AND state IN (0, 6);
CREATE INDEX fair ON jobs (queue, fkey, priority) WHERE fkey IS NOT NULL AND state IN (0, 6, 7);
CREATE INDEX debounced ON jobs (queue, dkey, seq) WHERE dkey IS NOT NULL AND attempt = 0;
"""
# What a file had before there was flow control.
FIRST_TABLES = f"""
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
    checksum INTEGER NOT NULL, mark INTEGER NOT NULL DEFAULT {_NO_MARK}
) STRICT;
CREATE TABLE failures (
    job TEXT NOT NULL, attempt INTEGER NOT NULL, started INTEGER, ended INTEGER NOT NULL, error TEXT NOT NULL,
    checksum INTEGER NOT NULL
) STRICT;
CREATE TABLE keys (
    queue INTEGER NOT NULL, key TEXT NOT NULL, job TEXT NOT NULL, expires INTEGER NOT NULL, checksum INTEGER NOT NULL,
    PRIMARY KEY (queue, key)
) STRICT, WITHOUT ROWID;
CREATE INDEX suspects ON jobs (queue, seq) WHERE state = 0 AND suspect = 1;
CREATE INDEX delayed ON jobs (queue, due) WHERE state = 1;
CREATE INDEX behind ON jobs (queue, grp, seq) WHERE state = 3;
CREATE INDEX held ON jobs (function_id, seq) WHERE state = 4;
CREATE INDEX dead ON jobs (queue, ended) WHERE state = 5;
CREATE INDEX dead_heads ON jobs (queue, grp) WHERE state = 5 AND grp IS NOT NULL;
CREATE INDEX failures_of ON failures (job);
CREATE INDEX expiry ON keys (expires);
"""
TABLES = f"{FIRST_TABLES}{_JOB_KEYS}{_FLOW_TABLES}{TRIGGERS}"
# What the checksum of a row covers, by table.
CONTENT = {
    "queues": "name, config, topic, namespace, function_id, metadata",
    "jobs": f"id, queue, grp, priority, function_id, namespace, traceparent, baggage, metadata, data, {KEYS}",
    "failures": "job, attempt, started, ended, error",
    "keys": "queue, key, job, expires",
}
# The checksum of a job without keys does not cover them, so those of older files stay right; so do marks.
_ADD_CHECKSUMS = "".join(
    f"ALTER TABLE {table} ADD COLUMN checksum INTEGER NOT NULL DEFAULT 0; "
    f"UPDATE {table} SET checksum = row_checksum({columns.removesuffix(f', {KEYS}')}); "
    for table, columns in CONTENT.items()
)
_ADD_MARKS = f"""
ALTER TABLE jobs ADD COLUMN mark INTEGER NOT NULL DEFAULT {_NO_MARK};
UPDATE jobs SET mark = {_mark(weights=_FIRST_WEIGHTS)};
"""
_ADD_FLOW_CONTROL = f"""
DROP TRIGGER IF EXISTS moved;
DROP TRIGGER IF EXISTS added;
{_JOB_KEYS}
{_FLOW_TABLES}
{TRIGGERS}
"""
# "iiiQ": tells this file from any other SQLite file.
SCHEMA = Schema(0x69696951, TABLES, (_ADD_CHECKSUMS, _ADD_MARKS, _ADD_FLOW_CONTROL))
