"""Group X: descriptors, processes, memory, disks and processors run out, and the engine goes on or says why."""

from __future__ import annotations

import os
import resource
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Sequence
from concurrent.futures import Future
from pathlib import Path

import psutil
import pytest

from iii.errors import EngineNotRunning
from tests.support.caller import Outcome
from tests.support.ground import Ground, eventually
from tests.support.scene import HEAD, Scene

MIB = 1024 * 1024

ECHO = """
@on("shop::echo")
def echo(payload):
    return payload
"""


def limit(pid: int, kind: int, soft: int) -> None:
    """Lower a limit of a running process."""
    resource.prlimit(pid, kind, (soft, resource.prlimit(pid, kind)[1]))


def connect(path: str, count: int) -> list[socket.socket]:
    """Open connections to the engine and leave them open."""
    opened = [socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) for _ in range(count)]
    for one in opened:
        one.settimeout(5)
        one.connect(path)
    return opened


def close(opened: Sequence[socket.socket]) -> None:
    for one in opened:
        one.close()


def test_x01_without_descriptors_accepting_pauses_and_a_spawn_says_emfile(scene: Scene) -> None:
    scene.play({"shop": ECHO})
    engine, worker = psutil.Process(scene.engine_pid), scene.pid("shop")
    before = resource.prlimit(engine.pid, resource.RLIMIT_NOFILE)[0]
    room = engine.num_fds() + 20
    limit(engine.pid, resource.RLIMIT_NOFILE, room)
    opened = connect(scene.facts()["socket"], 60)  # more than the engine can accept; the kernel holds the rest
    try:
        eventually(lambda: engine.num_fds() >= room)
        used = engine.cpu_times()
        began = time.monotonic()
        assert scene.ask("shop::echo", 1).value == 1  # those who are in are served
        os.kill(worker, signal.SIGKILL)
        scene.wait("Exited", "shop")
        told = eventually(lambda: [event for event in scene.events if "EMFILE" in str(event)])
        assert "cannot start" in str(told[0])
        eventually(lambda: time.monotonic() - began > 1.0)
        spent = sum(engine.cpu_times()[:2]) - sum(used[:2])
        assert spent < 0.5 * (time.monotonic() - began)  # a spin on accept takes a whole processor
    finally:
        close(opened)
    assert scene.outcome("shop::echo", 2).get("result") == 2
    limit(engine.pid, resource.RLIMIT_NOFILE, before)


def test_x02_a_process_that_cannot_be_made_is_tried_again(scene: Scene) -> None:
    # RLIMIT_NPROC does not bind root; the same EAGAIN comes from a limit on the engine as a user without privileges,
    # and where we are root from the count of descriptors: the nearest that the kernel will do to us.
    scene.play({"shop": ECHO})
    pid, worker = scene.engine_pid, scene.pid("shop")
    before = resource.prlimit(pid, resource.RLIMIT_NOFILE)[0]
    limit(pid, resource.RLIMIT_NOFILE, psutil.Process(pid).num_fds() - 3)
    os.kill(worker, signal.SIGKILL)
    eventually(lambda: len([event for event in scene.events if "EMFILE" in str(event)]) >= 2)
    waiting: Future[Outcome] = scene.caller.begin("shop::echo", 3)
    limit(pid, resource.RLIMIT_NOFILE, before)
    assert waiting.result(30).value == 3


def test_x03_a_request_that_does_not_fit_into_memory_costs_only_itself(scene: Scene) -> None:
    scene.play({"shop": ECHO + "on('shop::size')(len)\n"})
    pid = scene.engine_pid
    limit(pid, resource.RLIMIT_AS, psutil.Process(pid).memory_info().vms + 20 * MIB)
    with pytest.raises(EngineNotRunning, match="stopped before it answered"):  # as far as this connection can tell
        scene.outcome("shop::size", "x" * 15 * MIB)
    limit(pid, resource.RLIMIT_AS, resource.prlimit(pid, resource.RLIMIT_AS)[1])
    assert scene.ask("shop::echo", 1).value == 1
    assert scene.outcome("shop::size", "x" * 15 * MIB)["result"] == 15 * MIB


def test_x04_a_log_that_cannot_be_written_is_counted_and_opened_again(scene: Scene) -> None:
    scene.play({"shop": "@on('shop::say')\ndef tell(payload):\n    say(payload)\n    return payload\n"})
    logs = scene.folder / ".iii/logs"
    assert scene.ask("shop::say", "one").value == "one"
    scene.await_log("shop", "one")
    (logs / "shop.log").unlink()
    assert scene.ask("shop::say", "two").value == "two"
    scene.await_log("shop", "two")
    shutil.rmtree(logs)
    logs.write_text("a file stands in the way")
    for number in range(20):
        assert scene.ask("shop::say", f"lost {number}").value == f"lost {number}"
    eventually(lambda: scene.counter("log_lines_dropped") >= 20)
    logs.unlink()

    def is_logged_again() -> bool:
        scene.ask("shop::say", "back")
        return any(line["text"] == "back" for line in scene.log("shop"))

    eventually(is_logged_again)


def test_x05_the_state_folder_may_vanish_and_stop_still_works(scene: Scene) -> None:
    # Durable operations are the state and queue workers' own tests.
    scene.play({"shop": ECHO})
    shutil.rmtree(scene.folder / ".iii")
    assert scene.caller.call("shop::echo", 1).value == 1
    scene._canary.stop()
    assert scene._canary.errors == []
    assert scene.stop() == 0
    scene.laws.clear()


@pytest.mark.slow
def test_x06_of_fifty_workers_two_start_at_a_time(ground: Ground) -> None:
    for number in range(50):
        ground.worker(f"w{number}", HEAD)
    ground.laws.remove("descriptors")  # nobody has looked what it had before
    ground.launch("dev", "--json")
    most = 0
    while not any('"AllReady"' in line for line in ground.shown):
        waiting = [line for line in ground.shown if '"Became"' in line]
        engine = Path(ground.folder / ".iii/run/engine.json")
        if engine.exists():
            alive = len(psutil.Process(ground.engine_pid).children())
            most = max(most, alive - len(waiting))
        assert ground.guard.poll() is None
    # One may have reported between our two looks, and the launcher of one that is ready may be seen twice.
    assert most <= 4
    assert len([line for line in ground.shown if '"Became"' in line]) == 51


def test_x07_ten_thousand_cancelled_calls_leave_no_memory(scene: Scene) -> None:
    waiter = "import asyncio\n@on('waiter::wait')\nasync def wait(payload):\n    await asyncio.sleep(payload)\n"
    scene.play({"waiter": waiter})

    def cancel(count: int) -> None:
        with scene.connection() as connection:
            for number in range(count):
                call = {"type": "invokefunction", "function_id": "waiter::wait", "data": 600, "deadline_ms": 3_600_000}
                connection.send({**call, "invocation_id": f"c{number}"})
                connection.send({"type": "cancel", "invocation_id": f"c{number}"})
            connection.settle()

    for _ in range(2):
        cancel(10_000)  # what stays after the first rounds is room that the allocator keeps
    settled = scene.memory()
    for _ in range(4):
        cancel(10_000)
    # A call that stays takes 600 bytes and more: forty thousand of them would be 24 MB.
    assert scene.memory() - settled < 8 * MIB


@pytest.mark.slow
def test_x09_a_busy_machine_costs_no_call_and_no_worker(scene: Scene) -> None:
    scene.play({"shop": ECHO})
    pid = scene.pid("shop")
    hog = [sys.executable, "-c", "while True: pass"]
    hogs = [subprocess.Popen(hog) for _ in range(os.cpu_count() or 1)]
    try:
        deadline = time.monotonic() + 20
        count = 0
        while time.monotonic() < deadline:
            count += 1
            assert scene.ask("shop::echo", count).value == count
    finally:
        for one in hogs:
            one.kill()
            one.wait()
    assert scene.pid("shop") == pid
    assert count > 20


@pytest.mark.parametrize("environment", [{"HOME": ""}, {"TMPDIR": "/nonexistent"}], ids=["no home", "no temporary"])
def test_x10_without_home_or_temporary_folder_everything_works(environment: dict[str, str], scene: Scene) -> None:
    scene.worker("shop", HEAD + ECHO)
    scene.open(environment)
    assert scene.ask("shop::echo", 1).value == 1


def test_x10_in_a_folder_that_is_gone_a_command_says_so(tmp_path: Path) -> None:
    gone = tmp_path / "gone"
    gone.mkdir()
    script = f'rmdir "{gone}"; exec "$0" -m cli.main "$@"'
    root = str(Path(__file__).resolve().parents[2])
    for words in (["ps"], ["dev"], ["check"], ["logs"]):
        gone.mkdir(exist_ok=True)
        done = subprocess.run(
            ["sh", "-c", script, sys.executable, *words],
            cwd=gone,
            env={"PATH": os.environ["PATH"], "PYTHONPATH": root},
            capture_output=True,
            text=True,
            timeout=30,
            check=False,
        )
        assert done.returncode in (2, 3), done
        assert "Traceback" not in done.stderr, done.stderr
        assert done.stderr.startswith("error: ")


# Takes what the engine saw happen, slowly, and counts.
OBSERVER = """
seen = {"logs": 0, "dropped": 0, "batches": 0}
@on("observer::ingest")
def ingest(batch):
    time.sleep(0.1)
    seen["logs"] += sum(log["service_name"] == "flood" for log in batch["logs"])
    seen["dropped"] += batch["dropped"]["logs"]
    seen["batches"] += 1
on("observer::seen")(lambda _: seen)
worker.register_trigger({"type": "telemetry", "function_id": "observer::ingest", "config": {"max_batch": 2000}})
"""
FLOOD = """
@on("flood::flood")
def flood(lines):
    os.write(2, b"x\\n" * lines)
"""


def test_x08_a_flood_of_telemetry_is_dropped_by_count_and_calls_go_on(scene: Scene) -> None:
    # Records of a log, because tens of thousands of them come within a second: spans cost a call each. Both wait in
    # buffers of the same kind (tests/engine/telemetry/test_exporter.py).
    offered = 30_000
    scene.play({"observer": OBSERVER, "flood": FLOOD, "shop": ECHO})
    before = worst_of([scene.ask("shop::echo", number).seconds for number in range(300)])
    flood = scene.caller.begin("flood::flood", offered)
    during = worst_of([scene.ask("shop::echo", number).seconds for number in range(300)])
    assert flood.result(40).error is None

    def is_accounted_for() -> bool:
        seen = scene.ask("observer::seen").value
        return bool(seen["dropped"] > 0 and seen["logs"] + seen["dropped"] >= offered)

    eventually(is_accounted_for)
    seen = scene.ask("observer::seen").value
    assert seen["logs"] + seen["dropped"] <= offered + 100  # what the other workers said meanwhile
    assert during < 2 * before + 0.25  # the second term is the processors' that this machine has


def worst_of(seconds: list[float]) -> float:
    """The 99th percentile."""
    return sorted(seconds)[len(seconds) * 99 // 100]
