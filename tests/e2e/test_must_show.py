"""What a newcomer is promised, each line shown with a real engine, real workers and the real command."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import textwrap
import threading
from pathlib import Path
from typing import Any

import pytest

from tests.support.ground import Ground, eventually

ANSWER = """
    import shared
    from iii import register_worker

    worker = register_worker()
    worker.register_function("{name}::value", lambda payload: shared.VALUE)
"""
VERSION = """
    from iii import register_worker

    worker = register_worker()
    worker.register_function("page::version", lambda payload: {version})
"""


def iii(ground: Ground, *words: str) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "cli.main", *words]
    return subprocess.run(command, cwd=ground.folder, capture_output=True, text=True, timeout=30, check=False)


def test_the_terminal_calls_a_function_and_explains_what_went_wrong(ground: Ground) -> None:
    ground.start()
    good = iii(ground, "trigger", "math::add", "a=2", "b=3")
    assert (good.stdout.strip(), good.returncode) == ('{"c": 5}', 0)
    described = iii(ground, "trigger", "math::add", "--help")
    assert described.returncode == 0
    assert "Add two numbers" in described.stdout
    assert "a" in described.stdout.split()
    misspelt = iii(ground, "trigger", "math::ad", "a=2", "b=3")
    assert (misspelt.stdout, misspelt.returncode) == ("", 1)
    assert "math::add" in misspelt.stderr
    unfit = iii(ground, "trigger", "math::add", "a=two", "b=3")
    assert (unfit.stdout, unfit.returncode) == ("", 1)
    assert "a must be a number" in unfit.stderr


def test_the_engine_lists_its_workers_with_metrics_and_every_binding(ground: Ground) -> None:
    ground.worker(
        "ears",
        """
        from iii import register_worker
        worker = register_worker()
        worker.register_function("ears::hear", lambda payload: None)
        worker.register_trigger(
            {"type": "engine::workers-available", "function_id": "ears::hear", "config": {"loud": True}}
        )
        worker.register_trigger({"type": "nobody-provides-this", "function_id": "ears::hear", "config": {}})
        """,
    )
    ground.start()
    rows = {row["name"]: row for row in ground.call("engine::workers::list")["workers"]}
    assert rows.keys() == {"canary", "math", "ears"}
    pids = {row["pid"] for row in rows.values()}
    assert all(Path(f"/proc/{pid}").is_dir() for pid in pids)
    assert all(row["os"] and row["runtime"].startswith("python") for row in rows.values())
    assert all(row["state"] == "ready" for row in rows.values())

    def metrics() -> Any:
        [row] = ground.rows("math")
        return row["metrics"] if (row.get("metrics") or {}).get("memory_rss") else None

    found = eventually(metrics)
    assert found["memory_rss"] > 1_000_000
    assert found["threads"] >= 1
    rows = [row for kind in ground.call("engine::triggers::list")["triggers"] for row in kind["bindings"]]
    bindings = {row["trigger_type"]: row for row in rows}
    assert bindings["engine::workers-available"]["config"] == {"loud": True}
    assert bindings["engine::workers-available"]["worker_name"] == "ears"
    assert bindings["nobody-provides-this"]["state"] == "parked"


def test_workers_call_each_other_nested_blocking_and_async(ground: Ground) -> None:
    ground.worker(
        "chain",
        """
        import asyncio
        from iii import register_worker

        worker = register_worker()

        def call(id, payload):
            return {"function_id": id, "payload": payload}

        def down(payload):
            if payload["n"] <= 0:
                return worker.trigger(call("math::add", {"a": 1, "b": 1}))["c"]
            other = "chain::up" if payload["n"] % 2 else "chain::down"
            return worker.trigger(call(other, {"n": payload["n"] - 1}))

        async def up(payload):
            return await worker.trigger_async(call("chain::down", {"n": payload["n"] - 1}))

        async def both(payload):
            calls = [worker.trigger_async(call("math::add", {"a": n, "b": 1})) for n in range(20)]
            return [answer["c"] for answer in await asyncio.gather(*calls)]

        worker.register_function("chain::down", down)
        worker.register_function("chain::up", up)
        worker.register_function("chain::both", both)
        """,
        after=["math"],
    )
    ground.start()
    assert ground.call("chain::down", {"n": 10}) == 2
    assert ground.call("chain::both") == list(range(1, 21))


def test_a_void_call_returns_at_once_and_still_runs(ground: Ground) -> None:
    ground.worker(
        "slow",
        """
        import threading
        from iii import TriggerAction, register_worker

        worker = register_worker()
        gate = threading.Event()

        def start(payload):
            worker.trigger({"function_id": "slow::wait", "payload": 7, "action": TriggerAction.Void()})
            return "started"

        def wait(payload):
            gate.wait(20)
            print("waited", payload)

        worker.register_function("slow::start", start)
        worker.register_function("slow::wait", wait)
        worker.register_function("slow::open", lambda payload: gate.set())
        """,
    )
    ground.start()
    assert ground.call("slow::start") == "started"
    ground.call("slow::open")
    assert ground.await_log("slow", "waited 7")


def test_a_timeout_ends_the_call_at_its_deadline_and_the_worker_serves_on(ground: Ground) -> None:
    ground.worker(
        "slow",
        """
        import threading
        from iii import register_worker
        worker = register_worker()
        worker.register_function("slow::forever", lambda payload: threading.Event().wait(15))
        worker.register_function("slow::quick", lambda payload: "ok")
        """,
        stop_timeout="1s",
    )
    ground.start()
    outcome = ground.outcome("slow::forever", timeout_ms=200)
    assert outcome["error"]["code"] == "TIMEOUT"
    assert ground.call("slow::quick") == "ok"
    assert iii(ground, "trigger", "slow::forever", "--timeout-ms", "200").returncode == 124


def test_an_exception_reaches_the_caller_with_its_words_and_its_traceback(ground: Ground) -> None:
    ground.start()
    pid = ground.pid("math")
    error = ground.outcome("math::fail", {"zero": 0})["error"]
    assert error["code"] == "invocation_failed"
    assert "division by zero" in error["message"]
    assert "ZeroDivisionError" in error["stacktrace"]
    assert "math.py" in error["stacktrace"]
    assert ground.pid("math") == pid


class Load:
    """Calls a function all the time from several connections, and keeps every answer."""

    def __init__(self, ground: Ground, function: str) -> None:
        self.answers: list[Any] = []
        self.errors: list[Any] = []
        self._over = threading.Event()
        self._threads = [threading.Thread(target=self._run, args=(ground, function)) for _ in range(4)]

    def __enter__(self) -> Load:
        for thread in self._threads:
            thread.start()
        return self

    def __exit__(self, *_: object) -> None:
        self._over.set()
        for thread in self._threads:
            thread.join()

    def _run(self, ground: Ground, function: str) -> None:
        with ground.connection() as connection:
            while not self._over.is_set():
                outcome = connection.request(function, None, 20_000)
                (self.errors if outcome.get("error") else self.answers).append(outcome.get("result"))


def test_edits_under_load_change_the_answers_and_fail_no_call(ground: Ground) -> None:
    ground.worker("page", VERSION.format(version=1))
    ground.start()
    with Load(ground, "page::version") as load:
        for version in (2, 3):
            ground.write("workers/page.py", VERSION.format(version=version))
            eventually(lambda wanted=version: ground.call("page::version") == wanted)
        shown = len(ground.shown)
        ground.write("workers/page.py", VERSION.format(version=4) + "    def broken(:\n")
        ground.await_line("page.py:6", after=shown)
        assert ground.call("page::version") == 3
        ground.write("workers/page.py", VERSION.format(version=5))
        eventually(lambda: ground.call("page::version") == 5)
    assert load.errors == []
    assert set(load.answers) == {1, 2, 3, 5}
    assert load.answers.count(5) > 0


def test_a_shared_module_reloads_exactly_the_workers_that_import_it(ground: Ground) -> None:
    ground.write("workers/shared.py", "VALUE = 'old'\n")
    for name in ("left", "right"):
        ground.worker(name, ANSWER.format(name=name))
    ground.start()
    before = {name: ground.pid(name) for name in ("left", "right", "math", "canary")}
    ground.write("workers/shared.py", "VALUE = 'new'\n")
    for name in ("left", "right"):
        eventually(lambda name=name: ground.call(f"{name}::value") == "new")
    after = {name: ground.pid(name) for name in before}
    assert {name for name in before if before[name] != after[name]} == {"left", "right"}
    generations = {name: ground.rows(name)[0]["generation"] for name in before}
    assert generations == {"left": 2, "right": 2, "math": 1, "canary": 1}


NOISY = """
    import ctypes, os
    from iii import register_worker

    worker = register_worker()

    def talk(payload):
        print("from print")
        os.system("echo from a shell")
        libc = ctypes.CDLL(None)
        libc.puts(b"from C")
        libc.fflush(None)
        return "intact"

    worker.register_function("noisy::talk", talk)
"""


def test_whatever_a_handler_writes_to_stdout_is_log(ground: Ground) -> None:
    ground.worker("noisy", NOISY)
    ground.start()
    assert ground.call("noisy::talk") == "intact"
    for text in ("from print", "from a shell", "from C"):
        assert ground.await_log("noisy", text)


STUBBORN = """
    import signal, subprocess, sys
    from iii import register_worker

    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    subprocess.Popen(["sh", "-c", "trap '' TERM HUP INT; sleep 300 & wait; wait"])
    worker = register_worker()
    worker.register_function("stubborn::ping", lambda payload: "pong")
"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP], ids=lambda number: number.name)
def test_a_stop_leaves_nothing_behind_whatever_a_worker_ignores(ground: Ground, number: signal.Signals) -> None:
    ground.worker("stubborn", STUBBORN, stop_timeout="0.3s")
    ground.start()
    assert ground.call("stubborn::ping") == "pong"
    assert len(ground.left()) >= 4
    assert ground.stop(number) == 0
    assert ground.left() == []


def test_a_killed_engine_takes_everything_along(ground: Ground) -> None:
    ground.worker("stubborn", STUBBORN)
    ground.laws -= {"canary", "descriptors", "traceback", "exit"}
    ground.start()
    workers = [ground.pid(name) for name in ("canary", "math", "stubborn")]
    os.kill(ground.engine_pid, signal.SIGKILL)
    eventually(lambda: not any(Path(f"/proc/{pid}").exists() for pid in workers), bound=10)


def test_the_engine_announces_itself_with_facts_that_json_can_read(ground: Ground) -> None:
    ground.start()
    listed = iii(ground, "ps", "--json")
    assert listed.returncode == 0
    assert {row["name"] for row in json.loads(listed.stdout)["workers"]} == {"canary", "math"}
    assert textwrap.dedent(ground.facts()["socket"]).endswith(".sock")
