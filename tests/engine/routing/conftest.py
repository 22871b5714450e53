"""A router without processes, and a caller that is connected to it."""

from __future__ import annotations

import pytest

from iii.engine.routing.peer import Peer
from tests.support.routing import Net


@pytest.fixture
def net() -> Net:
    return Net()


@pytest.fixture
def caller(net: Net) -> Peer:
    return net.peer("caller", kind="client")
