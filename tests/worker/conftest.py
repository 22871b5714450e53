"""Fixtures of the SDK's tests."""

from __future__ import annotations

import pytest
from worker_support import pair


@pytest.fixture
def joined():
    """A worker in this process and the engine's end of its wire."""
    with pair() as both:
        yield both
