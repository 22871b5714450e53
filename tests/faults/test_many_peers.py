"""A thousand workers over WebSocket: accepted, listed, answering, and cheap while they do nothing."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.live_project import BOUND, ROOT, project

COUNT = 1000
# Bytes of the engine that an idle worker may cost. It takes about 20 KB; the bound is for a kind of growth.
MOST = 80_000


def memory_of(pid: int) -> int:
    """Return the private memory of a process, in bytes."""
    rows = dict(line.split(":", 1) for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines()[1:])
    return sum(int(rows[name].split()[0]) for name in ("Private_Clean", "Private_Dirty")) * 1024


@pytest.mark.slow
@pytest.mark.timeout(600)
def test_a_thousand_workers_are_accepted_and_answer(tmp_path: Path, record_property: pytest.RecordProperty) -> None:
    with project(tmp_path, '[engine]\nlisten = "127.0.0.1:0"\n', {}) as running:
        run = json.loads((tmp_path / ".iii" / "run" / "engine.json").read_text())
        before = memory_of(run["pid"])
        command = [sys.executable, str(ROOT / "tests/support/many_peers.py"), run["url"], str(COUNT)]
        with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as peers:
            try:
                assert peers.stdout is not None
                assert peers.stdout.readline() == "connected\n"
                per_peer = (memory_of(run["pid"]) - before) / COUNT
                record_property("bytes_per_idle_peer", per_peer)
                listed = {row["name"] for row in running.call("engine::workers::list")["workers"]}
                assert {f"many-{number}" for number in range(COUNT)} <= listed
                with running.connect() as connection:
                    for number in range(COUNT):
                        assert connection.call(f"many-{number}::echo", number) == number
                assert per_peer < MOST
                assert running.process.poll() is None
            finally:
                assert peers.stdin is not None
                peers.stdin.close()
                peers.wait(BOUND)
