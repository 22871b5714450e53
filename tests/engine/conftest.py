"""Fixtures of the tests that speak to a gateway."""

from tests.support.fixtures import caller, client, engine

__all__ = ["caller", "client", "engine"]
