"""Fixtures of the SDK's tests."""

from __future__ import annotations

import sys
from pathlib import Path

import pytest
from worker_support import pair, piped

# `live_project`: real engines, shared with the tests of the standard workers. `harness`: a gateway in this process.
sys.path += [str(Path(__file__).resolve().parents[1] / name) for name in ("stdlib", "gateway")]


@pytest.fixture(params=[pair, piped], ids=["memory", "pipes"])
def joined(request):
    """A worker in this process and the engine's end of its wire, over everything that can carry it."""
    with request.param() as both:
        yield both
