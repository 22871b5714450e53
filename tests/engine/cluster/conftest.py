"""Three NATS nodes, as of a production cluster; and three engines on them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.engine_cluster import EngineCluster
from tests.support.nats_servers import NatsServers, running_servers


@pytest.fixture
def servers(tmp_path: Path) -> Iterator[NatsServers]:
    with running_servers(tmp_path / "nats") as started:
        yield started


@pytest.fixture
def cluster(tmp_path: Path, servers: NatsServers) -> Iterator[EngineCluster]:
    """Return engines to be declared and started."""
    made = EngineCluster(tmp_path, servers)
    try:
        yield made
    finally:
        made.close()
