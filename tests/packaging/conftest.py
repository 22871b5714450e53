"""The wheel, built once for all tests of the installed package."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest

from tests.support.installed import run
from tests.support.live_project import ROOT


@pytest.fixture(scope="session")
def wheel(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Build the project's wheel."""
    folder = tmp_path_factory.mktemp("wheel")
    run(sys.executable, "-m", "pip", "wheel", "-q", "--no-deps", "-w", folder, ROOT, cwd=folder)
    return next(folder.glob("*.whl"))
