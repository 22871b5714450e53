"""Fixtures of the SDK's tests."""

from __future__ import annotations

import pytest

from tests.support.worker_support import pair, piped


@pytest.fixture(params=[pair, piped], ids=["memory", "pipes"])
def joined(request):
    """A worker in this process and the engine's end of its wire, over each transport."""
    with request.param() as both:
        yield both
