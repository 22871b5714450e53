"""Fixtures of the tests with the published SDKs."""

from tests.support import official
from tests.support.fixtures import caller, client, engine

__all__ = ["caller", "client", "engine"]


def pytest_report_header() -> list[str]:
    return [] if official.HAS_NODE else ["node is not installed: tests of the npm SDK are with the slow ones"]
