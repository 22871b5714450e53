"""No acknowledgment leaves before its fdatasync has returned: read off the system calls of a real process.

Needs strace, so it runs with the slow tests. A store that does without FULL must fail the same check.
"""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parents[3]
WRITES = 20
PROGRAM = f"""
import os, sys
from pathlib import Path
from stdlib_workers.storage import KEY_VALUE_SCHEMA, SqliteKeyValue, Store

class Chosen(Store):
    def _serve(self, connection):
        connection.execute("PRAGMA synchronous = " + sys.argv[2])
        super()._serve(connection)

pairs = SqliteKeyValue(Chosen(Path(sys.argv[1]), KEY_VALUE_SCHEMA))
for number in range({WRITES}):
    pairs.put("b", str(number), b"1").result()
    os.write(1, b"ack %d" % number)
os._exit(0)
"""


def system_calls(folder: Path, synchronous: str) -> list[str]:
    trace = folder / "trace"
    tool = ["strace", "-f", "-y", "-e", "trace=pwrite64,fdatasync,fsync,write", "-o", str(trace)]
    subprocess.run(
        [*tool, sys.executable, "-c", PROGRAM, str(folder / "state.db"), synchronous],
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        stdout=subprocess.DEVNULL,
        check=True,
    )
    return trace.read_text(errors="replace").splitlines()


def acknowledged_too_early(calls: list[str]) -> list[str]:
    """Return the acknowledgments that left while a write to the log was not known to be on the disk."""
    is_dirty, early, acks = False, [], 0
    for call in calls:
        if "pwrite64(" in call and "-wal>" in call:
            is_dirty = True
        elif re.search(r"f(data)?sync(\(.*-wal>| resumed>)\) += 0", call):
            is_dirty = False
        elif found := re.search(r'"ack \d+"', call):
            acks += 1
            early += [found[0]] if is_dirty else []
    assert acks == WRITES
    return early


@pytest.mark.slow
def test_q03_an_acknowledgment_leaves_only_after_the_disk_has_the_write(tmp_path: Path) -> None:
    assert acknowledged_too_early(system_calls(tmp_path, "FULL")) == []


@pytest.mark.slow
def test_q03_the_check_fails_where_the_disk_is_not_waited_for(tmp_path: Path) -> None:
    assert len(acknowledged_too_early(system_calls(tmp_path, "NORMAL"))) == WRITES
