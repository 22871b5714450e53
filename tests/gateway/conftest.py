"""One engine for the tests of a module that only connect to it; those that change it make their own.

`caller` calls into the `project` of the module that asks for it.
"""

from __future__ import annotations

from collections.abc import Iterator

import official
import pytest
from dev_project import Caller, Project
from harness import Client, Engine


def pytest_report_header() -> list[str]:
    return [] if official.HAS_NODE else ["node is not installed: tests of the npm SDK are with the slow ones"]


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
