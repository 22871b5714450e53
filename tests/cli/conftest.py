"""What the tests of the command line share: a fake engine in a fresh folder, and the command as a real process."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.command import Iii, environment
from tests.support.fake_engine import FakeEngine


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    """Return an empty folder whose parents hold no project."""
    return tmp_path


@pytest.fixture
def engine(folder: Path) -> Iterator[FakeEngine]:
    """Run a fake engine in `folder`."""
    with FakeEngine(folder) as running:
        yield running


@pytest.fixture
def iii(folder: Path) -> Iii:
    """Return a function that runs `iii WORDS...` in `folder` and returns the finished process."""

    def run(*words: str, stdin: str = "", **env: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "cli.main", *words]
        return subprocess.run(
            command,
            cwd=folder,
            env=environment(**env),
            input=stdin,
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )

    return run
