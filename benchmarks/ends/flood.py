"""A program that offers spans of its own, `sys.argv[1]` a second in messages of 500, and does nothing else."""

from __future__ import annotations

import json
import sys
import time

MESSAGE = 500
span: dict[str, object] = {
    "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
    "span_id": "00f067aa0ba902b7",
    "parent_span_id": None,
    "name": "work",
    "start_time_unix_nano": 1,
    "end_time_unix_nano": 2,
    "status": "ok",
    "attributes": {"n": 1},
    "events": [],
    "flags": 1,
}
line = json.dumps({"type": "telemetry", "spans": [span] * MESSAGE}, separators=(",", ":")) + "\n"
pause = MESSAGE / int(sys.argv[1])
sys.stdout.write('{"type":"ready"}\n')
due = time.monotonic()
while True:
    sys.stdout.write(line)
    sys.stdout.flush()
    due += pause
    time.sleep(max(0.0, due - time.monotonic()))
