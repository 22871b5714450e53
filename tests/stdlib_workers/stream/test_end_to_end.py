"""Stream as a process under a real engine: what its sockets see when it dies, and when everything stops."""

from __future__ import annotations

import json
import os
import signal
from pathlib import Path
from typing import Any

import pytest
from websockets.exceptions import ConnectionClosed, InvalidStatus
from websockets.sync.client import ClientConnection, connect
from websockets.typing import Origin

from tests.support.live_project import BOUND, Project, free_ports, project
from tests.support.stream_setup import address, join

TOML = '[engine]\nlisten = "off"\n[workers.stream]\n[workers.stream.config]\nport = 0\n'
PRESENCE = TOML + '[workers.presence]\nrun = "presence.py"\nafter = ["stream"]\n'
SAY_PRESENCE = """
def seen(event): say("joined" if "join" in current_invocation().function_id else "left", event["subscription_id"])
for kind in ("join", "leave"):
    worker.register_function(f"presence::{kind}", seen)
    worker.register_trigger({"type": f"stream:{kind}", "function_id": f"presence::{kind}", "config": {}})
"""
OWN = TOML + '[workers.orders]\nrun = "orders.py"\n'
ORDERS = """
from iii.helpers import create_stream
from iii.stream import IStream, StreamDeleteResult, StreamSetResult

class Dumped:
    def __init__(self, **fields): self.fields = fields
    def model_dump(self, **options):
        return {k: v for k, v in self.fields.items() if v is not None} if options.get("exclude_none") else self.fields

class Orders(IStream[dict]):
    def __init__(self): self.items = {}
    async def get(self, input): return self.items.get((input.group_id, input.item_id))
    async def set(self, input):
        old = self.items.get((input.group_id, input.item_id))
        self.items[input.group_id, input.item_id] = input.data
        return Dumped(old_value=old, new_value=input.data)
    async def delete(self, input): return StreamDeleteResult(self.items.pop((input.group_id, input.item_id)))
    async def list(self, input): return [item for (group, _), item in self.items.items() if group == input.group_id]
    async def list_groups(self, input): return sorted({group for group, _ in self.items})
    async def update(self, input):
        old = self.items.get((input.group_id, input.item_id))
        self.items[input.group_id, input.item_id] = new = [*old, *input.ops]
        return StreamSetResult(old, new)

create_stream(worker, "orders", Orders())
"""
GOING_AWAY = 1001


def socket_of(running: Project, after: int = 0) -> ClientConnection:
    port = running.wait("stream: ws://", after=after)[-1].rpartition(":")[2]
    return connect(f"ws://127.0.0.1:{port}/", open_timeout=BOUND)


def receive(ws: ClientConnection) -> dict[str, Any]:
    message: dict[str, Any] = json.loads(ws.recv(BOUND))
    return message


def write(running: Project, number: int) -> None:
    running.call("stream::set", address("i") | {"data": number})


def closing_code(ws: ClientConnection) -> int | None:
    try:
        while True:
            ws.recv(BOUND)
    except ConnectionClosed as error:
        return error.rcvd.code if error.rcvd else None


def test_q21_a_reader_goes_on_after_a_crash_without_gap_or_repeat(tmp_path: Path) -> None:
    with project(tmp_path, TOML, {}) as running:
        with socket_of(running) as ws:
            ws.send(join())
            assert receive(ws)["event"]["type"] == "sync"
            write(running, 0)
            offset = receive(ws)["offset"]
            write(running, 1)
            seen = len(running.lines)
            os.kill(running.pid_of("stream"), signal.SIGKILL)
            assert closing_code(ws) is None
        write(running, 2)
        with socket_of(running, seen) as ws:
            ws.send(join(offset=offset))
            assert [receive(ws)["event"]["data"] for _ in range(2)] == [1, 2]
            write(running, 3)
            assert receive(ws)["event"]["data"] == 3


def test_a_stop_of_everything_says_goodbye_to_the_sockets(tmp_path: Path) -> None:
    with project(tmp_path, TOML, {}) as running, socket_of(running) as ws:
        ws.send(join())
        assert receive(ws)["event"]["type"] == "sync"
        running.process.send_signal(signal.SIGTERM)
        assert closing_code(ws) == GOING_AWAY


def test_a_restart_says_goodbye_and_tells_who_has_left(tmp_path: Path) -> None:
    with project(tmp_path, PRESENCE, {"presence": SAY_PRESENCE}) as running, socket_of(running) as ws:
        ws.send(join())
        assert receive(ws)["event"]["type"] == "sync"
        running.wait("joined u")
        running.call("engine::workers::restart", {"name": "stream"})
        assert closing_code(ws) == GOING_AWAY
        running.wait("left u")


def test_sockets_end_even_when_who_hears_of_it_never_answers(tmp_path: Path) -> None:
    stuck = SAY_PRESENCE.replace(
        "def seen(event):", "def seen(event):\n    if is_leave(): threading.Event().wait(60)\n   "
    )
    stuck = "def is_leave(): return 'leave' in current_invocation().function_id\n" + stuck
    with project(tmp_path, PRESENCE, {"presence": stuck}) as running, socket_of(running) as ws:
        ws.send(join())
        assert receive(ws)["event"]["type"] == "sync"
        pid = running.pid_of("stream")
        running.process.send_signal(signal.SIGTERM)
        assert closing_code(ws) == GOING_AWAY
        running.process.wait(BOUND)
        assert not Path(f"/proc/{pid}").exists()


def test_pages_of_the_projects_own_http_worker_may_connect(tmp_path: Path) -> None:
    ports = free_ports("http")
    toml = TOML + f"[workers.http.config]\nport = {ports['http']}\n"
    with project(tmp_path, toml, {}) as running:
        port = running.wait("stream: ws://")[-1].rpartition(":")[2]
        for name in ("localhost", "127.0.0.1"):
            with connect(f"ws://127.0.0.1:{port}/", origin=Origin(f"http://{name}:{ports['http']}")) as ws:
                ws.send(join())
                assert receive(ws)["event"]["type"] == "sync"
        for origin in ("http://localhost:3111", f"http://evil.test:{ports['http']}"):
            with pytest.raises(InvalidStatus, match="403"):
                connect(f"ws://127.0.0.1:{port}/", origin=Origin(origin))


def test_items_are_listed_with_their_ids_page_by_page(tmp_path: Path) -> None:
    with project(tmp_path, "[workers.stream.config]\nport = 0\n", {}) as running:
        group = {"stream_name": "chat", "group_id": "room"}
        for name in ("b", "a", "c"):
            running.call("stream::set", group | {"item_id": name, "data": name.upper()})
        first = running.call("stream::list_entries", group | {"limit": 2})
        assert first["entries"] == [{"id": "b", "value": "B"}, {"id": "a", "value": "A"}]
        rest = running.call("stream::list_entries", group | {"limit": 2, "cursor": first["next_cursor"]})
        assert rest == {"entries": [{"id": "c", "value": "C"}], "next_cursor": None}


def test_a_stream_object_of_a_worker_stands_in_for_the_storage(tmp_path: Path) -> None:
    with project(tmp_path, OWN, {"orders": ORDERS}) as running:
        place = {"stream_name": "orders", "group_id": "g", "item_id": "i"}
        assert running.call("stream::set", place | {"data": [1]}) == {"old_value": None, "new_value": [1]}
        assert running.call("stream::get", place) == [1]
        updated = running.call("stream::update", place | {"ops": [{"type": "set", "path": "", "value": 2}]})
        assert updated["new_value"] == [1, {"type": "set", "path": "", "value": 2}]
        assert running.call("stream::list_groups", {"stream_name": "orders"}) == ["g"]
        assert running.call("stream::list", {"stream_name": "orders", "group_id": "g"}) == [updated["new_value"]]
        entries = running.call("stream::list_entries", {"stream_name": "orders", "group_id": "g"})
        assert entries == {"entries": [{"id": None, "value": updated["new_value"]}], "next_cursor": None}
        assert running.call("stream::delete", place) == {"old_value": updated["new_value"]}
        assert running.call("stream::get", place) is None
