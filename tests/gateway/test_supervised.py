"""A mixed project under `iii dev`: programs on the official SDKs are workers like any other, reload included."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
import threading
import uuid
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import official
import pytest
from harness import BOUND

ROOT = Path(__file__).resolve().parents[2]

OURS = """
from iii import InitOptions, register_worker
worker = register_worker(options=InitOptions(worker_name="ours"))
worker.register_function("ours::who", lambda data: {"who": "ours", "version": 1})
worker.register_function("ours::ask", lambda data: worker.trigger({"function_id": data["of"], "payload": {}}))
"""
OFFICIAL = """
import threading
from iii import register_worker
worker = register_worker()
print("official python says hello")
def who(data):
    return {"who": "python", "version": 1}
def ask(data):
    return worker.trigger({"function_id": data["of"], "payload": {}})
worker.register_function("python::who", who)
worker.register_function("python::ask", ask)
threading.Event().wait()
"""
NODE = """
import { registerWorker } from 'iii-sdk'
const worker = registerWorker(process.env.III_URL)
console.log('official node says hello')
worker.registerFunction('node::who', async () => ({ who: 'node', version: 1 }))
worker.registerFunction('node::ask', async ({ of }) => worker.trigger({ function_id: of, payload: {} }))
"""
WORKERS = {"ours": "ours.py", "python": "official.py", "node": "official.mjs"}


class Project:
    """A running `iii dev`."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.lines: list[str] = []
        self._heard = threading.Condition()
        command = [sys.executable, "-m", "cli.main", "dev"]
        plain = {key: value for key, value in os.environ.items() if not key.startswith("III_")}
        self.process = subprocess.Popen(
            command, cwd=folder, env=plain | {"PYTHONPATH": str(ROOT)}, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
        )
        self._listening = threading.Thread(target=self._listen)
        self._listening.start()

    def _listen(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            with self._heard:
                self.lines.append(line.decode())
                self._heard.notify_all()

    def hear(self, pattern: str) -> str:
        """Wait for a line of its output; return it."""

        def found() -> str | None:
            return next((line for line in self.lines if re.search(pattern, line)), None)

        with self._heard:
            line = self._heard.wait_for(found, BOUND)
        assert line, f"no {pattern!r} in:\n{''.join(self.lines)}"
        return line

    def stop(self) -> int:
        self.process.send_signal(signal.SIGINT)
        code = self.process.wait(BOUND)
        self._listening.join(BOUND)
        assert self.process.stdout is not None
        self.process.stdout.close()
        return code

    def caller(self) -> Caller:
        facts = json.loads((self.folder / ".iii/run/engine.json").read_text())
        return Caller(facts["socket"])


class Caller:
    """Calls functions over the unix socket."""

    def __init__(self, path: str) -> None:
        self._socket = socket.socket(socket.AF_UNIX)
        self._socket.settimeout(BOUND)
        self._socket.connect(path)
        self._lines = self._socket.makefile("rb")

    def call(self, function_id: str, data: Any = None) -> dict[str, Any]:
        id = str(uuid.uuid4())
        call = {"type": "invokefunction", "invocation_id": id, "function_id": function_id, "data": data}
        self._socket.sendall(json.dumps(call).encode() + b"\n")
        for line in self._lines:
            message: dict[str, Any] = json.loads(line)
            if message.get("invocation_id") == id:
                return message
        raise AssertionError("the engine closed the connection")

    def close(self) -> None:
        self._lines.close()
        self._socket.close()


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    folder = tmp_path_factory.mktemp("mixed")
    (folder / "ours.py").write_text(OURS)
    (folder / "official.py").write_text(OFFICIAL)
    (folder / "official.mjs").write_text(NODE)
    (folder / "node_modules").symlink_to(official.node_with() / "node_modules")
    (folder / "iii.toml").write_text(
        f"""
[engine]
listen = "127.0.0.1:0"
[workers.ours]
run = "ours.py"
[workers.python]
run = "official.py"
python = "{official.python_with("0.25.0")}"
[workers.node]
run = "node official.mjs"
watch = ["official.mjs"]
"""
    )
    running = Project(folder)
    try:
        running.hear(r"ready in")
        yield running
    finally:
        running.stop()


@pytest.fixture
def caller(project: Project) -> Iterator[Caller]:
    opened = project.caller()
    yield opened
    opened.close()


@pytest.mark.parametrize("asked", WORKERS)
@pytest.mark.parametrize("asking", WORKERS)
def test_each_calls_each(caller: Caller, asking: str, asked: str) -> None:
    assert caller.call(f"{asking}::ask", {"of": f"{asked}::who"})["result"]["who"] == asked


def test_what_they_print_is_their_log(project: Project) -> None:
    project.hear(r"python.*official python says hello")
    project.hear(r"node.*official node says hello")


def test_they_are_listed_with_process_and_metrics(project: Project, caller: Caller) -> None:
    rows = {row["name"]: row for row in caller.call("engine::workers::list")["result"]["workers"]}
    assert rows.keys() == WORKERS.keys()
    assert rows["node"]["runtime"] == "node"
    assert rows["python"]["version"] == "0.25.0"
    for row in rows.values():
        assert (row["state"], row["status"], row["function_count"]) == ("ready", "connected", 2)
        assert Path(f"/proc/{row['pid']}").exists()


@pytest.mark.parametrize("name", WORKERS)
def test_a_saved_file_changes_the_answers_without_one_failed_call(project: Project, name: str) -> None:
    outcomes: list[dict[str, Any]] = []
    is_over = threading.Event()

    def load() -> None:
        caller = project.caller()
        while not is_over.is_set():
            outcomes.append(caller.call(f"{name}::who", {}))
        caller.close()

    loading = threading.Thread(target=load)
    loading.start()
    script = project.folder / WORKERS[name]
    script.write_text(re.sub(r'(version"?: )1', r"\g<1>2", script.read_text()))
    project.hear(rf"{name}\s+~.*reloaded")
    caller = project.caller()
    assert caller.call(f"{name}::who", {})["result"]["version"] == 2
    caller.close()
    is_over.set()
    loading.join(BOUND)
    assert len(outcomes) > 10
    assert [outcome for outcome in outcomes if "error" in outcome] == []
    assert [outcome["result"]["version"] for outcome in outcomes] == sorted(
        outcome["result"]["version"] for outcome in outcomes
    )


def test_a_killed_one_says_how_it_died_and_comes_back(project: Project, caller: Caller) -> None:
    row = caller.call("engine::workers::info", {"name": "node"})["result"]["worker"]
    os.kill(row["pid"], signal.SIGKILL)
    project.hear(r"node\s+! killed by SIGKILL")
    assert caller.call("node::who", {})["result"]["who"] == "node"
