"""One engine for the tests of a module that only connect to it; those that change it make their own.

`caller` calls into the `project` of the module that asks for it.
"""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.support.dev_project import Caller, Project
from tests.support.harness import Client, Engine


@pytest.fixture
def engine() -> Iterator[Engine]:
    with Engine() as running:
        yield running


@pytest.fixture
def client(engine: Engine) -> Iterator[Client]:
    with engine.client() as connected:
        yield connected


@pytest.fixture
def caller(project: Project) -> Iterator[Caller]:
    opened = project.caller()
    yield opened
    opened.close()
