"""A project on one machine pays for no cluster."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).resolve().parents[3]


def test_an_engine_without_a_cluster_loads_nothing_of_it() -> None:
    code = "import sys, iii.engine.start, iii.engine.engine, cli.commands.engine; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(run.stdout.split())
    assert "iii.engine.engine" in loaded
    assert not {
        name for name in loaded if name.startswith(("nats", "iii.engine.cluster", "iii.engine.boot.local_nats"))
    }
