"""Two engines on one machine and a bridge between them: calls both ways, errors, and an engine that goes and comes."""

from __future__ import annotations

import socket
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import suppress
from pathlib import Path
from queue import Queue
from threading import Thread

import pytest
from websockets.exceptions import ConnectionClosed
from websockets.sync.server import ServerConnection, serve

from iii import InvocationError
from tests.support.live_project import Project, project

SERVICE = """
def fail(data):
    raise InvocationError("mine", "this is why", details={"a": 1})
def ask(data):
    return worker.trigger({"function_id": data["of"], "payload": data["payload"], "metadata": {"by": "NAME"}})
worker.register_function("NAME::echo", lambda data, metadata=None: {"data": data, "metadata": metadata})
worker.register_function("NAME::fail", fail)
worker.register_function("NAME::ask", ask)
worker.register_function("NAME::nothing", lambda data: None)
"""
FAR = '[engine]\nlisten = "127.0.0.1:PORT"\n[workers.far]\nrun = "far.py"\n'
NEAR = """
[engine]
listen = "127.0.0.1:0"
[workers.near]
run = "near.py"
[workers.bridge.config]
url = "ws://127.0.0.1:PORT"
expose = [{ local_function = "near::echo", remote_function = "shop::echo" }, { local_function = "near::fail" }]
forward = [
  { local_function = "there::echo", remote_function = "far::echo" },
  { local_function = "there::fail", remote_function = "far::fail" },
  { local_function = "there::nothing", remote_function = "far::nothing" },
]
"""


def free_port() -> int:
    with socket.create_server(("127.0.0.1", 0)) as found:
        port: int = found.getsockname()[1]
        return port


@pytest.fixture(scope="module")
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[tuple[Project, Project]]:
    """The near engine, which has the bridge, and the far one."""
    port = str(free_port())
    folders = [tmp_path_factory.mktemp(name) for name in ("far", "near")]
    with (
        project(folders[0], FAR.replace("PORT", port), {"far": SERVICE.replace("NAME", "far")}) as far,
        project(folders[1], NEAR.replace("PORT", port), {"near": SERVICE.replace("NAME", "near")}) as near,
    ):
        near.wait("bridge: ws://")
        yield near, far


def test_what_is_forwarded_runs_there(engines: tuple[Project, Project]) -> None:
    near, _ = engines
    assert near.call("there::echo", {"x": "é"}) == {"data": {"x": "é"}, "metadata": None}
    assert near.call("near::ask", {"of": "there::echo", "payload": [1]}) == {"data": [1], "metadata": {"by": "near"}}
    assert near.call("there::nothing", {}) is None
    assert near.call("bridge.invoke", {"function_id": "far::echo", "data": 7})["data"] == 7


def test_what_is_exposed_runs_here(engines: tuple[Project, Project]) -> None:
    _, far = engines
    assert far.call("far::ask", {"of": "shop::echo", "payload": 1}) == {"data": 1, "metadata": {"by": "far"}}
    rows = {row["name"]: row for row in far.call("engine::workers::list")["workers"]}
    assert rows["iii-bridge-client"]["function_count"] == 2
    with pytest.raises(InvocationError) as caught:
        far.call("near::ask", {"of": "far::echo", "payload": 1})
    assert caught.value.code == "function_not_found"


def test_errors_come_through_as_they_are(engines: tuple[Project, Project]) -> None:
    near, far = engines
    for engine, function_id in ((near, "there::fail"), (far, "near::fail")):
        with pytest.raises(InvocationError) as caught:
            engine.call(function_id, {})
        assert caught.value.code == "mine"
        assert caught.value.message.endswith(": this is why")
        assert caught.value.details == {"a": 1}
    with pytest.raises(InvocationError) as caught:
        near.call("bridge.invoke", {"function_id": "no::such"})
    assert caught.value.code == "bridge_error"


def test_a_call_made_while_the_other_engine_is_away_waits_for_it(engines: tuple[Project, Project]) -> None:
    near, far = engines
    far.kill()
    with ThreadPoolExecutor(1) as pool:
        waiting = pool.submit(near.call, "there::echo", 3)
        far.start()
        assert waiting.result(30)["data"] == 3
    far.call("engine::functions::info", {"function_id": "shop::echo"})
    assert far.call("shop::echo", 4)["data"] == 4


def test_a_name_that_is_taken_there_fails_the_bridge_with_the_reason(
    engines: tuple[Project, Project], tmp_path: Path
) -> None:
    _, far = engines
    url = far.said("ws://127.0.0.1:")[-1].split()[-1]
    toml = f'[engine]\nlisten = "127.0.0.1:0"\n[workers.bridge.config]\nurl = "{url}"\n'
    with project(tmp_path, toml, {}) as second:
        second.wait("has a worker 'iii-bridge-client' already")


CIRCLE = """
def a(payload):
    say("round", current_invocation().baggage)
    return worker.trigger({"function_id": "loop::c", "payload": {}, "timeout_ms": 60_000})
worker.register_function("loop::a", a)
"""


def test_a_circle_over_the_bridge_ends_with_an_error_that_names_it(
    engines: tuple[Project, Project], tmp_path: Path
) -> None:
    _, far = engines
    url = far.said("ws://127.0.0.1:")[-1].split()[-1]
    toml = (
        f'[engine]\nlisten = "127.0.0.1:0"\n[workers.w]\nrun = "w.py"\n[workers.bridge.config]\nurl = "{url}"\n'
        'name = "circle"\nexpose = [{ local_function = "loop::a", remote_function = "loop::b" }]\n'
        'forward = [{ local_function = "loop::c", remote_function = "loop::b" }]\n'
    )
    with project(tmp_path, toml, {"w": CIRCLE}) as running:
        running.wait("bridge: ws://")
        with pytest.raises(InvocationError, match="calls are nested deeper than 32: loop::b") as caught:
            running.call("loop::a", {})
        assert caught.value.code == "loop_detected"
        assert 1 < len(running.said("round ")) <= 32


def test_a_stop_of_the_other_engine_is_the_loss_of_a_connection(tmp_path: Path) -> None:
    greeted: Queue[ServerConnection] = Queue()

    def serve_bridge(connection: ServerConnection) -> None:
        with suppress(ConnectionClosed):
            for message in connection:
                if message == '{"type":"ping"}':
                    connection.send('{"type":"pong"}')
                    greeted.put(connection)

    with serve(serve_bridge, "127.0.0.1", 0) as server:
        thread = Thread(target=server.serve_forever)
        thread.start()
        url = f"ws://127.0.0.1:{server.socket.getsockname()[1]}"
        toml = f'[engine]\nlisten = "off"\n[workers.bridge.config]\nurl = "{url}"\n'
        with project(tmp_path, toml, {}):
            for message in ('{"type":"stop","deadline_ms":1000}', '{"type":"stop"}'):
                greeted.get(timeout=30).send(message)
            greeted.get(timeout=30)
        server.shutdown()
        thread.join(30)
