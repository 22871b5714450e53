"""A handler that raises, behind everything that can call it without waiting: seen once, whole, in three places."""

from __future__ import annotations

import json
import re
import subprocess
import sys
import urllib.error
import urllib.request
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.command import environment
from tests.support.dev_project import free_port, running_project
from tests.support.ground import eventually
from tests.support.live_project import BOUND, Project, project

TOML = """\
[engine]
listen = "off"
[workers.shop]
run = "shop.py"
[workers.state]
[workers.stream]
config = {{ port = 0 }}
[workers.queue.config.queue_configs.mail]
max_retries = 2
backoff_ms = 1000
[workers.cron]
[workers.pubsub]
[workers.http]
config = {{ port = {port} }}
[workers.observability]
config = {{ sampling_ratio = 1.0, prometheus = false }}
"""
CAUSES = {
    "void": "void call of ",
    "job": r"job \S+ of queue mail, attempt 1 of 2, next in 1 s",
    "tick": r"cron trigger \(expression 0 0 1 1 \*\)",
    "state": r"state trigger \(scope users\)",
    "stream": r"stream trigger \(stream_name news\)",
    "subscriber": r"subscribe trigger \(topic orders\)",
    "http": r"http trigger \(api_path /mail, http_method POST\)",
}
SHOP = """
def check(address):
    raise ValueError(f"no such address: {address}")

def send(payload):
    check("ada")

def bind(name, **config):
    worker.register_trigger({"type": config.pop("type", name), "function_id": f"shop::{name}", "config": config})

for name in ("void", "job", "tick", "state", "stream", "subscriber", "http"):
    worker.register_function(f"shop::{name}", send)
bind("tick", type="cron", expression="0 0 1 1 *")
bind("state", scope="users")
bind("stream", stream_name="news")
bind("subscriber", type="subscribe", topic="orders")
bind("http", api_path="/mail", http_method="POST")
"""


@pytest.fixture(scope="module")
def failed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    """A project in which the same handler has raised once for each cause; the job will a second time."""
    port = free_port()
    folder = tmp_path_factory.mktemp("failed")
    with project(folder, TOML.format(port=port), {"shop": SHOP}) as running:
        with running.connect() as connection:
            connection.send({"type": "invokefunction", "function_id": "shop::void", "data": None})
            connection.settle()
        running.enqueue("shop::job", {}, "mail")
        running.call("state::set", {"scope": "users", "key": "ada", "value": 1})
        running.call("stream::set", {"stream_name": "news", "group_id": "g", "item_id": "1", "data": 1})
        running.call("publish", {"topic": "orders", "data": 1})
        job = running.call("cron::list")["jobs"][0]["job_id"]
        with running.connect() as connection:
            assert connection.request("cron::run", {"job": job}, 20_000)["error"]["message"] == "no such address: ada"
        with pytest.raises(urllib.error.HTTPError) as refused:
            urllib.request.urlopen(f"http://127.0.0.1:{port}/mail", b"{}")
        assert refused.value.code == 500
        refused.value.close()
        for name in CAUSES:
            running.wait(f"shop::{name} failed: ")
        running.wait("now a dead letter")
        yield running


def command(folder: Path, *words: str) -> str:
    """Run `iii WORDS...` in the project; return what it printed."""
    done = subprocess.run(
        [sys.executable, "-m", "cli.main", *words],
        cwd=folder,
        env=environment(),
        capture_output=True,
        text=True,
        timeout=BOUND,
        check=True,
    )
    return done.stdout


@pytest.mark.parametrize("name", CAUSES)
def test_the_terminal_shows_one_block(failed: Project, name: str) -> None:
    source = (failed.folder / "shop.py").read_text().splitlines()
    raised, called = (1 + next(n for n, line in enumerate(source) if text in line) for text in ("raise Va", 'check("a'))
    blocks = [at for at, line in enumerate(failed.lines) if f"x shop::{name} failed: " in line]
    assert len(blocks) == (2 if name == "job" else 1), "\n".join(failed.lines)
    head, *below = [line.partition("shop  ")[2] or line.partition("| ")[2] for line in failed.lines[blocks[0] :]][:4]
    assert head.endswith(f"x shop::{name} failed: ValueError: no such address: ada  shop.py:{raised}")
    assert below[0] == f'{called:>4} | check("ada")  shop.py, in send'
    assert below[1] == f'{raised:>4} | raise ValueError(f"no such address: {{address}}")'
    assert re.fullmatch(CAUSES[name] + r".*; trace [0-9a-f]{32}", below[2]), below[2]
    # The http worker says in its access log which request it was, and nothing else.
    said = [line for line in failed.lines if f"shop::{name}" in line and f"POST /mail 500 shop::{name} " not in line]
    assert len(said) == len(blocks), said


@pytest.mark.parametrize("name", CAUSES)
def test_the_log_has_it_at_level_error_and_the_trace_has_its_place(failed: Project, name: str) -> None:
    shown = command(failed.folder, "logs", "--level", "error")
    assert shown.count(f"shop::{name} failed: ValueError: no such address: ada  shop.py:") == 1 + (name == "job")
    rows = [json.loads(row) for row in command(failed.folder, "logs", "--level", "error", "--json").splitlines()]
    row = next(row for row in rows if row["text"].startswith(f"shop::{name} failed"))
    trace = row["details"][-1].rpartition("trace ")[2]
    tree = eventually(lambda: _trace_with(failed.folder, trace, f"call shop::{name}"))
    assert "! invocation_failed: no such address: ada" in tree
    assert re.search(r"shop\.py:\d+  raise ValueError", tree), tree


def _trace_with(folder: Path, trace: str, text: str) -> str:
    """Return the tree of a trace, "" as long as the text is not in it: spans are stored a moment later."""
    tree = command(folder, "trace", trace)
    return tree if text in tree else ""


def test_nine_workers_that_cannot_start_are_nine_blocks(tmp_path: Path) -> None:
    names = [f"w{number}" for number in range(9)]
    (tmp_path / "iii.toml").write_text(
        '[engine]\nlisten = "off"\n' + "".join(f'[workers.{name}]\nrun = "{name}.py"\n' for name in names)
    )
    for name in names:
        (tmp_path / f"{name}.py").write_text("import a_module_that_nobody_has\n")
    with running_project(tmp_path) as running:
        running.hear("to try again", count=9)
    assert len(running.lines) < 9 * 4 + 10, "".join(running.lines)
    assert sum("a_module_that_nobody_has" in line and ".py:1" in line for line in running.lines) == 9


def test_a_running_project_says_what_it_cannot_take_over_and_all_that_is_wrong(tmp_path: Path) -> None:
    worker = '[workers.a]\nrun = "a.py"\n'
    (tmp_path / "a.py").write_text("from iii import register_worker\nregister_worker()\n")
    file = tmp_path / "iii.toml"
    file.write_text(f'[engine]\nlisten = "off"\n{worker}')
    with running_project(tmp_path) as running:
        file.write_text(f'[engine]\nlisten = "127.0.0.1:{free_port()}"\n{worker}')
        running.hear(r"\[engine\] listen has changed: that applies after `iii stop` and a new start")
        file.write_text(f"[engine]\nlisten = 1\n{worker}[workers.http.config]\nprot = 1\n")
        running.hear(r"iii.toml:2:1: listen must be a string, got 1; nothing was changed")
        running.hear(r"\| iii.toml:6:1: unknown key `prot`; did you mean `port`\?")
