"""State of three engines on three servers, whose engines, owners and servers die: what clients see is linearizable."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.support.cluster_torture import torture
from tests.support.nats_servers import NatsServers


@pytest.mark.slow
@pytest.mark.timeout(900)
@pytest.mark.parametrize(("operations", "faults", "seed"), [(3_000, 4, 3), (30_000, 16, 5)])
def test_rows_6_7_and_21_what_clients_see_is_linearizable(
    tmp_path: Path, servers: NatsServers, operations: int, faults: int, seed: int
) -> None:
    servers.await_jetstream()
    outcome = torture(tmp_path, servers, operations, faults, seed, limit=600.0)
    assert outcome.acknowledged >= operations
    assert min(outcome.kills.values()) >= faults // 4
    assert outcome.violations() == []
