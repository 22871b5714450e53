"""A mixed project under `iii dev`: programs on the official SDKs are workers like any other, reload included."""

from __future__ import annotations

import os
import re
import signal
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import official
from tests.support.dev_project import Caller, Project, running_project
from tests.support.harness import BOUND

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
NODE_TABLE = """
[workers.node]
run = "node official.mjs"
watch = ["official.mjs"]
"""
WORKERS = {"ours": "ours.py", "python": "official.py"} | ({"node": "official.mjs"} if official.HAS_NODE else {})


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    folder = tmp_path_factory.mktemp("mixed")
    (folder / "ours.py").write_text(OURS)
    (folder / "official.py").write_text(OFFICIAL)
    if official.HAS_NODE:
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
"""
        + (NODE_TABLE if official.HAS_NODE else "")
    )
    with running_project(folder) as running:
        yield running


@pytest.mark.parametrize("asked", WORKERS)
@pytest.mark.parametrize("asking", WORKERS)
def test_each_calls_each(caller: Caller, asking: str, asked: str) -> None:
    assert caller.call(f"{asking}::ask", {"of": f"{asked}::who"})["result"]["who"] == asked


def test_what_they_print_is_their_log(project: Project) -> None:
    project.hear(r"python.*official python says hello")
    if official.HAS_NODE:
        project.hear(r"node.*official node says hello")


def test_they_are_listed_with_process_and_metrics(project: Project, caller: Caller) -> None:
    rows = {row["name"]: row for row in caller.call("engine::workers::list")["result"]["workers"]}
    assert rows.keys() == WORKERS.keys()
    assert all(rows[name]["runtime"] == name for name in WORKERS.keys() - {"ours"})
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
    row = caller.call("engine::workers::info", {"name": "python"})["result"]["worker"]
    os.kill(row["pid"], signal.SIGKILL)
    project.hear(r"python\s+! killed by SIGKILL")
    assert caller.call("python::who", {})["result"]["who"] == "python"
