"""The tables of `.iii/observability.db`. Pure.

`id` numbers spans in the order of their arrival. `root` is 1 for a span that has no parent, or whose parent is not
stored; every write and every forgetting keeps it right. The partial indexes hold only such spans. `checksum` covers the
other columns, but for `id` and `root`, which nothing serves.
"""

from __future__ import annotations

from stdlib_workers.storage import Schema

_CREATE = """
CREATE TABLE spans (
  id INTEGER PRIMARY KEY, trace TEXT NOT NULL, span TEXT NOT NULL, parent TEXT, name TEXT NOT NULL,
  service TEXT NOT NULL, status TEXT NOT NULL, start INTEGER NOT NULL, finish INTEGER NOT NULL,
  internal INTEGER NOT NULL, root INTEGER NOT NULL, attributes TEXT NOT NULL, detail TEXT,
  checksum INTEGER
) STRICT;
CREATE UNIQUE INDEX span_ids ON spans (trace, span);
CREATE INDEX span_starts ON spans (start);
CREATE INDEX root_starts ON spans (internal, start) WHERE root = 1;
CREATE INDEX orphans ON spans (trace, parent) WHERE root = 1 AND parent IS NOT NULL;
CREATE TABLE logs (
  id INTEGER PRIMARY KEY, time INTEGER NOT NULL, observed INTEGER NOT NULL, severity INTEGER NOT NULL,
  level TEXT NOT NULL, body TEXT NOT NULL, trace TEXT, span TEXT, service TEXT NOT NULL, detail TEXT NOT NULL,
  checksum INTEGER
) STRICT;
CREATE INDEX log_times ON logs (time);
CREATE INDEX log_traces ON logs (trace) WHERE trace IS NOT NULL;
CREATE TABLE metrics (
  id INTEGER PRIMARY KEY, name TEXT NOT NULL, service TEXT NOT NULL, kind TEXT NOT NULL, time INTEGER NOT NULL,
  record TEXT NOT NULL, checksum INTEGER
) STRICT;
CREATE INDEX metric_times ON metrics (time);
CREATE INDEX metric_names ON metrics (name, time);
CREATE TABLE rollups (
  level INTEGER NOT NULL, bucket INTEGER NOT NULL, name TEXT NOT NULL, count INTEGER NOT NULL, sum REAL NOT NULL,
  min REAL NOT NULL, max REAL NOT NULL, last REAL, checksum INTEGER,
  PRIMARY KEY (level, bucket, name)
) STRICT, WITHOUT ROWID;
CREATE TABLE histogram_rollups (
  level INTEGER NOT NULL, bucket INTEGER NOT NULL, name TEXT NOT NULL, bounds TEXT NOT NULL, count INTEGER NOT NULL,
  sum REAL NOT NULL, min REAL, max REAL, counts TEXT NOT NULL, checksum INTEGER,
  PRIMARY KEY (level, bucket, name, bounds)
) STRICT, WITHOUT ROWID;
CREATE TABLE alerts (name TEXT PRIMARY KEY, state TEXT NOT NULL, checksum INTEGER) STRICT, WITHOUT ROWID;
CREATE TABLE figures (name TEXT PRIMARY KEY, value INTEGER NOT NULL, checksum INTEGER) STRICT, WITHOUT ROWID;
"""

# Version 1 summed up the readings of counters and histograms: those sums mean nothing.
_TO_2 = """
ALTER TABLE rollups ADD COLUMN last REAL;
DELETE FROM rollups WHERE name IN (SELECT name FROM metrics WHERE kind = 'counter')
  OR name LIKE 'iii.invocations.%' OR name IN ('iii.workers.spawns', 'iii.workers.deaths');
DELETE FROM histogram_rollups;
"""

# What an older version has kept is history, and has no checksums: to give it some would take as long as to write it.
_TABLES = ("spans", "logs", "metrics", "rollups", "histogram_rollups", "alerts", "figures")
_TO_3 = f"""
{"".join(f"ALTER TABLE {table} ADD COLUMN checksum INTEGER;" for table in _TABLES)}
INSERT INTO figures SELECT 'spans_history_end', coalesce(max(id), 0), NULL FROM spans;
INSERT INTO figures SELECT 'logs_history_end', coalesce(max(id), 0), NULL FROM logs;
"""

SCHEMA = Schema(0x69696F62, _CREATE, (_TO_2, _TO_3))  # "iiob"
