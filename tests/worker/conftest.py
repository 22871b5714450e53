"""Fixtures of the SDK's tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from worker_support import pair

# `live_project`: real engines, shared with the tests of the standard workers.
sys.path.append(str(Path(__file__).resolve().parents[1] / "stdlib"))


@pytest.fixture
def joined():
    """A worker in this process and the engine's end of its wire."""
    with pair() as both:
        yield both
