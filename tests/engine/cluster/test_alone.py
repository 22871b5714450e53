"""A project on one machine pays for no cluster."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from iii.engine.cluster.connection import Connection
from iii.engine.config.spec import ClusterSpec
from iii.errors import ProjectError

ROOT = Path(__file__).resolve().parents[3]


def test_an_engine_without_a_cluster_loads_nothing_of_it() -> None:
    code = "import sys, iii.engine.start, iii.engine.engine, cli.commands.engine; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(run.stdout.split())
    assert "iii.engine.engine" in loaded
    assert not {
        name for name in loaded if name.startswith(("nats", "iii.engine.cluster", "iii.engine.boot.local_nats"))
    }


def test_without_nats_py_a_cluster_says_how_to_get_it(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "nats.aio.client", None)
    with pytest.raises(ProjectError) as refused:
        Connection(ClusterSpec(("nats://127.0.0.1:4222",), "shop", "a"), lambda _: None)
    assert "needs nats-py, which is not installed; pip install 'iii-engine[cluster]'" in str(refused.value)
