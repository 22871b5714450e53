"""What `iii check` says of keys of a queue that cannot be, or not together: each at its line and column."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

# A queue, the column at which its mistake begins, and what is said of it.
PATH = "field must be a path such as customer.id"
ORDER = 'cannot be used with type = "fifo"; a fifo queue runs its jobs one by one'
FIFO = 'type = "fifo", message_group_field = "g"'
BATCH = 'batch = { max_size = 2, max_wait_ms = 5, field = "a" }'
IMPOSSIBLE = [
    ("rate_limit = { |limit = 0, period_ms = 9 }", "limit must be a whole number from 1 to 1000000, got 0"),
    ("rate_limit = { |limit = 9_999_999, period_ms = 9 }", "limit must be a whole number from 1 to 1000000"),
    ("|rate_limit = { limit = 5 }", "period_ms is missing: it must be a whole number"),
    ('rate_limit = { limit = 5, |period_ms = "1s" }', "period_ms must be a whole number from 1 to 2147483648"),
    ('rate_limit = { limit = 5, period_ms = 9, |fields = "a" }', "unknown key `fields`; did you mean `field`?"),
    ('rate_limit = { limit = 5, period_ms = 9, |field = "" }', PATH),
    ('rate_limit = { limit = 5, period_ms = 9, |field = "a..b" }', PATH),
    ("|rate_limit = 5", "rate_limit must be a table, got 5"),
    ("|rate_limt = { limit = 5, period_ms = 9 }", "unknown key `rate_limt`; did you mean `rate_limit`?"),
    ("throttle = { |limit = 1.5, period_ms = 9 }", "limit must be a whole number from 1 to 1000000, got 1.5"),
    ("throttle = { limit = 1, period_ms = 9, |burst = 0 }", "burst must be a whole number from 1 to 1000000, got 0"),
    ('throttle = { |limit = "1", period_ms = 9 }', 'limit must be a whole number from 1 to 1000000, got "1"'),
    ("throttle = { limit = 1, |period_ms = 0 }", "period_ms must be a whole number from 1 to 2147483648, got 0"),
    ('|concurrency_key = { field = "a" }', "limit is missing: it must be a whole number"),
    ("|concurrency_key = { limit = 1 }", "field is missing: it must be a path such as customer.id"),
    ('concurrency_key = { field = "a", |limit = -1 }', "limit must be a whole number from 1 to 2147483648, got -1"),
    ('debounce = { period_ms = 9, |keep = "first" }', 'keep must be "last" or "all", got "first"'),
    ("|debounce = { max_wait_ms = 9 }", "period_ms is missing: it must be a whole number"),
    ("batch = { |max_size = 0, max_wait_ms = 9 }", "max_size must be a whole number from 1 to 1000, got 0"),
    ("|batch = { max_size = 9 }", "max_wait_ms is missing: it must be a whole number"),
    ("|fair_field = 5", "fair_field must be a path such as customer.id, got 5"),
    (f'{FIFO}, |fair_field = "a"', f"fair_field {ORDER}"),
    (f"{FIFO}, |{BATCH}", f"batch {ORDER}"),
    (f"{FIFO}, |debounce = {{ period_ms = 5 }}", f"debounce {ORDER}"),
    (f'{BATCH}, |concurrency_key = {{ field = "b", limit = 1 }}', 'the field "b", and batch about the field "a"'),
    (f'{BATCH}, |throttle = {{ limit = 1, period_ms = 5, field = "b" }}', 'give batch the field "b"'),
    (f'{BATCH}, |fair_field = "b"', 'fair_field is about the field "b", and batch about the field "a"'),
    ('batch = { max_size = 2, max_wait_ms = 5 }, |fair_field = "b"', "and batch about no field; give batch"),
    (f'{BATCH}, |condition_function_id = "a::b"', "cannot be used with batch; a condition is asked about one job"),
]
HEAD = '[engine]\nlisten = "off"\n[workers.queue.config.queue_configs]\n'


def test_each_impossible_key_is_refused_with_line_column_and_reason(tmp_path: Path) -> None:
    lines = [f"q{number} = {{ {text} }}" for number, (text, _) in enumerate(IMPOSSIBLE)]
    (tmp_path / "iii.toml").write_text(HEAD + "\n".join(line.replace("|", "") for line in lines) + "\n")
    command = [sys.executable, "-m", "cli.main", "check"]
    done = subprocess.run(command, check=False, cwd=tmp_path, capture_output=True, text=True, timeout=60)
    said = done.stderr.splitlines()
    assert (done.returncode, len(said)) == (2, len(IMPOSSIBLE)), done
    first = HEAD.count("\n") + 1
    for number, (line, (_, reason), found) in enumerate(zip(lines, IMPOSSIBLE, said, strict=True)):
        assert found.startswith(f"error: iii.toml:{first + number}:{line.index('|') + 1}: "), found
        assert reason in found, found
