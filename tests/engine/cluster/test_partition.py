"""A network that breaks between engines: each on a machine of its own, as the kernel's network namespaces make them."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.engine.cluster.test_engines_over_nats import MATH, running
from tests.support.engine_cluster import EngineCluster
from tests.support.ground import eventually
from tests.support.nats_servers import NatsServers, Networks, why_no_networks


@pytest.fixture
def networks() -> Iterator[Networks]:
    if why := why_no_networks():
        pytest.skip(f"a partition {why}")
    made = Networks()
    try:
        yield made
    finally:
        made.close()


@pytest.fixture
def apart(tmp_path: Path, networks: Networks) -> Iterator[EngineCluster]:
    """Return engines a, b and c on machines 0, 1 and 2; b and c have `math`."""
    servers = NatsServers(tmp_path, networks=networks)
    cluster = EngineCluster(tmp_path, servers)
    try:
        for index, name in enumerate("abc"):
            ground = cluster.add(name, urls=[servers.url(index)])
            if name != "a":
                ground.worker("math", MATH)
            cluster.start(name, prefix=networks.prefix(index))
            if name == "b":
                cluster.await_function("a", "math::once")
        eventually(lambda: cluster.functions("a").get("math::once") == ["b", "c"])
        yield cluster
    finally:
        cluster.close()
        servers.close()


def test_row_4_a_partition_ends_its_calls_as_unreachable_others_answer_and_it_heals(
    apart: EngineCluster, networks: Networks
) -> None:
    a = apart["a"]
    calls = {}
    for number in range(2):  # one on b and one on c: the least busy is chosen
        name = f"run{number}"
        calls[name] = a.begin("math::run", {"file": str(a.folder / name), "until": str(a.folder / "until")})
        eventually(lambda name=name: running(a.folder, name))  # type: ignore[misc]
    on_b = next(name for name in calls if running(a.folder, name)[0].suffix == f".{apart['b'].pid('math')}")
    networks.cut(1)
    error = calls.pop(on_b).result(30)["error"]
    assert error["code"] == "invocation_stopped"
    assert (error["details"]["reason"], error["details"]["engine"]) == ("engine_unreachable", "b")
    assert a.call("math::once", {})["pid"] == apart["c"].pid("math")
    eventually(lambda: apart.knows("b") == {"b"})
    assert apart["b"].call("math::once", {})["pid"] == apart["b"].pid("math")  # what it has, it still runs
    (a.folder / "until").touch()
    (on_c,) = calls.values()
    assert "result" in on_c.result(30)
    networks.heal(1)
    eventually(lambda: apart.functions("a").get("math::once") == ["b", "c"])
    eventually(lambda: apart.knows("b") == {"a", "b", "c"})
