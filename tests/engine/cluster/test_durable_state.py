"""State that three NATS servers keep: served by one engine to all, and by another one when that is gone."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path

import pytest

from iii.errors import InvocationError
from tests.support.engine_cluster import EngineCluster
from tests.support.ground import ROOT, Ground, eventually
from tests.support.nats_servers import NatsServers

DURABLE = 'durable = ["state"]\nsync_always = true\n'


@pytest.fixture
def three(cluster: EngineCluster, servers: NatsServers) -> EngineCluster:
    servers.await_jetstream()
    return cluster


def add(cluster: EngineCluster, *names: str, table: str = DURABLE) -> None:
    for name in names:
        cluster.add(name, table=table).head += "[workers.state]\n"


def owner_of(cluster: EngineCluster, seen_from: str) -> str:
    """Return the engine that serves state, once there is one."""

    def found() -> list[str]:
        return cluster.functions(seen_from).get("state::set", [])

    return eventually(found)[0]


def read(ground: Ground, key: str) -> object:
    """Read a key, once an engine serves it."""

    def found() -> list[object]:
        try:
            return [ground.call("state::get", {"scope": "shop", "key": key})]
        except InvocationError:
            return []

    return eventually(found)[0]


def test_one_engine_serves_state_to_all_and_another_one_when_it_dies(three: EngineCluster) -> None:
    add(three, "a", "b", "c")
    three.start()
    owner = owner_of(three, "a")
    others = [name for name in "abc" if name != owner]
    for name in "abc":
        three.await_function(name, "state::set")
        three[name].call("state::set", {"scope": "shop", "key": name, "value": name})
    three.kill(owner)
    for name in others:
        assert [read(three[name], key) for key in "abc"] == ["a", "b", "c"]
    three[others[0]].call("state::set", {"scope": "shop", "key": "d", "value": 1})
    assert read(three[others[1]], "d") == 1
    # Its engine starts again, and waits: the data has an owner.
    three.start_again(owner)
    three.await_function(owner, "state::set")
    assert read(three[owner], "d") == 1
    assert owner_of(three, owner) != owner


def test_an_engine_that_stops_hands_state_over(three: EngineCluster) -> None:
    add(three, "a", "b")
    three.start("a")
    three.await_function("a", "state::set")
    three.start("b")
    three["a"].call("state::set", {"scope": "shop", "key": "k", "value": 1})
    assert three["a"].stop() == 0
    assert read(three["b"], "k") == 1


def test_row_7_a_worker_that_stood_still_past_its_lease_ends_and_answers_nothing_old(three: EngineCluster) -> None:
    add(three, "a", "b")
    three.start("a")
    three.await_function("a", "state::set")
    three.start("b")
    a, b = three["a"], three["b"]
    a.call("state::set", {"scope": "shop", "key": "k", "value": 1})
    pid = a.pid("state")
    os.kill(pid, signal.SIGSTOP)
    try:
        late = a.begin("state::get", {"scope": "shop", "key": "k"})
        eventually(lambda: b.rows("state")[0]["function_count"])
        b.call("state::set", {"scope": "shop", "key": "k", "value": 2})
    finally:
        os.kill(pid, signal.SIGCONT)
    answer = late.result(30)
    assert answer.get("result") != 1, "a value that had been written over"
    eventually(lambda: a.pid("state") not in (0, pid))
    assert read(a, "k") == 2


@pytest.mark.parametrize("declares", [True, False])
def test_row_13_servers_that_do_not_sync_every_write_are_refused(tmp_path: Path, declares: bool) -> None:
    servers = NatsServers(tmp_path, 1, sync="2m")
    cluster = EngineCluster(tmp_path, servers)
    try:
        pages = f'monitors = ["{servers.monitor(0)}"]\n' if declares else ""
        add(cluster, "a", table=f'durable = ["state"]\n{pages}')
        cluster["a"].laws.clear()  # there is no time at which all is well
        cluster["a"].launch()
        cluster["a"].await_line("sync_interval: always")
        eventually(lambda: cluster["a"].rows("state")[0]["state"] == "failed")
        assert "Traceback" not in cluster["a"].output
    finally:
        servers.close()
        cluster.close()


def test_a_single_server_is_refused(tmp_path: Path) -> None:
    servers = NatsServers(tmp_path, 1)
    cluster = EngineCluster(tmp_path, servers)
    try:
        add(cluster, "a", table=f'durable = ["state"]\nmonitors = ["{servers.monitor(0)}"]\n')
        cluster["a"].laws.clear()  # there is no time at which all is well
        cluster["a"].launch()
        cluster["a"].await_line("one NATS server is none; run three")
    finally:
        servers.close()
        cluster.close()


def test_a_state_worker_without_a_cluster_loads_nothing_of_it() -> None:
    code = "import sys, stdlib_workers.state.__main__; print(*sys.modules)"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    loaded = set(run.stdout.split())
    assert "stdlib_workers.storage.store" in loaded
    assert not {name for name in loaded if name.startswith("nats") or "jetstream" in name or "replica" in name}
