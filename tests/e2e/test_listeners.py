"""Listeners in a running project: nobody becomes a worker by naming its pid, and changed rules hold at once."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import connect

from tests.support.harness import BOUND, Client
from tests.support.live_project import Project, free_ports, project

TOML = """
[engine]
listen = "127.0.0.1:{root}"
[[engine.listeners]]
port = {guarded}
[engine.listeners.rbac]
auth_function_id = "gate::{auth}"
expose_functions = ['match("{exposed}::*")']
[workers.gate]
run = "gate.py"
[workers.pay]
run = "pay.py"
"""
WORKERS = {
    "gate": 'for name in ("auth", "other"): worker.register_function(f"gate::{name}", lambda p: {})\n',
    "pay": 'worker.register_function("pay::charge", lambda p: "real")\n',
}


class Guarded(Project):
    """A project in `iii dev` with both kinds of listeners."""

    def __init__(self, folder: Path) -> None:
        self.ports = free_ports("root", "guarded")
        super().__init__(folder, self.toml(), WORKERS)

    def toml(self, *, exposed: str = "api", auth: str = "auth") -> str:
        return TOML.format(**self.ports, exposed=exposed, auth=auth)

    @contextmanager
    def client(self, listener: str) -> Iterator[Client]:
        with connect(f"ws://127.0.0.1:{self.ports[listener]}", open_timeout=BOUND, close_timeout=1) as connection:
            client = Client(connection)
            client.expect("workerregistered")
            yield client


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Guarded]:
    made = Guarded(tmp_path_factory.mktemp("guarded"))
    made.start("dev")
    yield made
    made.stop()


@pytest.mark.parametrize("listener", ["root", "guarded"])
def test_who_names_the_pid_of_a_worker_does_not_become_it(running: Guarded, listener: str) -> None:
    with running.client(listener) as client:
        client.register("pay::charge")
        answer = client.invoke("engine::workers::register", {"name": f"evil-{listener}", "pid": running.pid_of("pay")})
        assert answer["result"] == {"success": True}
        assert running.call("pay::charge", {"card": 4111}) == "real"
        client.sync()
        assert not [message for message in client.seen if message["type"] == "invokefunction"]
        names = [row["name"] for row in running.call("engine::workers::list")["workers"]]
        assert names.count("pay") == 1


def test_rules_that_change_hold_at_once_for_those_who_are_in(running: Guarded) -> None:
    with running.client("guarded") as client:
        assert client.invoke("pay::charge")["error"]["code"] == "FORBIDDEN"
        seen = len(running.lines)
        (running.folder / "iii.toml").write_text(running.toml(exposed="pay"))
        running.wait("goes by its new expose_functions from now on", after=seen)
        assert client.invoke("pay::charge")["result"] == "real"
        seen = len(running.lines)
        (running.folder / "iii.toml").write_text(running.toml(exposed="pay", auth="other"))
        running.wait("from now on", after=seen)
        with pytest.raises(ConnectionClosed) as closed:
            client.invoke("pay::charge")
        assert closed.value.rcvd is not None
        assert closed.value.rcvd.code == 1008
    with running.client("guarded") as client:
        assert client.invoke("pay::charge")["result"] == "real"
    # A listener that is gone from iii.toml is closed; a new one has to wait, and both are said.
    seen = len(running.lines)
    text = running.toml().replace(f"port = {running.ports['guarded']}", "port = 0")
    (running.folder / "iii.toml").write_text(text)
    running.wait("is closed: it is no longer in iii.toml", after=seen)
    running.wait("opens after `iii stop` and a new start", after=seen)
    with pytest.raises(ConnectionRefusedError), running.client("guarded"):
        pass


def test_each_change_of_the_engine_holds_at_once_or_is_said_once_to_need_a_new_start(tmp_path: Path) -> None:
    """A key that is set back to what the engine runs with needs nothing, nor does one that was told before."""
    project = Guarded(tmp_path)
    project.start("dev")
    try:
        toml, address = project.toml(), f"127.0.0.1:{project.ports['root']}"
        steps = [
            (toml.replace(address, "off"), "[engine] listen has changed"),
            (
                toml.replace("[workers.gate]", "[[engine.listeners]]\nport = 1\n[workers.gate]"),
                "127.0.0.1:1 opens after",
            ),
            (
                toml.replace("[engine]", "[engine]\nmemory = '100MB'\ncheck_results = false"),
                "check_results has changed",
            ),
            (project.toml(auth="other"), "goes by its new auth_function_id from now on"),
        ]
        for text, said in steps:
            seen = len(project.lines)
            (tmp_path / "iii.toml").write_text(text)
            project.wait(said, after=seen)
            assert [line for line in project.lines[seen:] if " iii " in line and said not in line] == []
    finally:
        project.stop()


def test_a_listener_has_as_many_connections_as_the_project_says(tmp_path: Path) -> None:
    ports = free_ports("root")
    toml = f'[engine]\nlisten = "127.0.0.1:{ports["root"]}"\nconnections = 2\n[workers.pay]\nrun = "pay.py"\n'
    with project(tmp_path, toml, WORKERS):
        url = f"ws://127.0.0.1:{ports['root']}"
        with connect(url, open_timeout=BOUND), connect(url, open_timeout=BOUND):
            with pytest.raises(InvalidStatus) as refused:
                connect(url, open_timeout=BOUND)
            assert refused.value.response.status_code == 503
