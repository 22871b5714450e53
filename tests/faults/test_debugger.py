"""`iii dev --debug NAME`: the worker listens for a debugger, and nobody is hurried meanwhile."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.ground import Ground
from tests.support.scene import HEAD

# Stands for debugpy: says where it was told to listen.
DEBUGPY = """
import sys
def listen(address): print("listens at", *address, file=sys.stderr, flush=True)
"""
SLOW = """
@on("slow::sleep")
def sleep(seconds):
    time.sleep(seconds)
    return sys._xoptions.get("frozen_modules")
"""


@pytest.fixture
def python(tmp_path: Path) -> str:
    """Make an environment that has a debugpy; return its interpreter."""
    folder = tmp_path / "environment"
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    (site,) = folder.glob("lib/python3*/site-packages")
    (site / "debugpy.py").write_text(DEBUGPY)
    return str(folder / "bin" / "python")


def test_a_debugged_worker_listens_and_no_deadline_passes(ground: Ground, python: str) -> None:
    ground.worker("slow", HEAD + SLOW, python=python, instances=2)
    ground.start("dev", "--debug", "slow")
    host, port = ground.await_log("slow", "listens at")["text"].split()[-2:]
    assert host == "127.0.0.1"
    assert any(f"debugger {host}:{port}" in " ".join(line.split()) for line in ground.shown)
    assert len(ground.rows("slow")) == 1  # two instances could not listen at one address
    answer = ground.outcome("slow::sleep", 1.2, timeout_ms=100)
    assert answer.get("result") == "off"


@pytest.mark.parametrize(
    ("name", "words"),
    [
        ("nobody", "there is no worker nobody; there are: "),
        ("plain", "has no debugpy; "),
        ("raw", "worker raw is no Python script"),
    ],
)
def test_a_worker_that_cannot_be_debugged_is_a_clear_error(name: str, words: str, ground: Ground, python: str) -> None:
    environment = Path(python).parent.parent
    next(environment.glob("lib/python3*/site-packages/debugpy.py")).unlink()
    ground.worker("plain", "", python=python)
    ground.program("raw", "take()")
    ground.launch("dev", "--debug", name)
    assert ground.await_exit() == 2
    (line,) = ground.complaints
    assert line.startswith(f"error: --debug {name}: ")
    assert words in line
