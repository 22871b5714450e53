"""What the fault tests share: a ground that checks the laws when the test is over."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.ground import Ground
from tests.support.scene import Scene


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    """Return the ground of one test: declare workers, then `start()`."""
    made = Ground(tmp_path)
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def scene(tmp_path: Path) -> Iterator[Scene]:
    """Return a ground that follows the engine's events: `play({...})` starts it."""
    made = Scene(tmp_path)
    try:
        yield made
    finally:
        made.close()
