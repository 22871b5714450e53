"""One engine for the tests of a module that only connect to it; those that change it make their own."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from harness import Client, Engine


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine() as running:
        yield running


@pytest.fixture
def client(engine: Engine) -> Iterator[Client]:
    with engine.client() as connected:
        yield connected
