"""A worker as a real process under the launcher: what only an operating system can prove."""

from __future__ import annotations

import os
import select
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest

from tests.support.worker_support import BOUND, LAUNCHER, Process

HEAD = """
import os, sys, threading, time
from iii import register_worker, InitOptions, TriggerAction
worker = register_worker(options=InitOptions(worker_name="t"))
"""


@pytest.fixture
def launch(tmp_path):
    processes = []

    def start(body, *arguments, head=HEAD, env=None):
        script = tmp_path / "script.py"
        script.write_text(head + body)
        processes.append(Process(script, *arguments, env=env))
        return processes[-1]

    yield start
    for process in processes:
        process.close()


def test_a_script_registers_is_ready_serves_and_ends_with_the_wire(launch, tmp_path):
    (tmp_path / "helper.py").write_text("VALUE = 5\n")
    process = launch("import helper\nworker.register_function('m::f', lambda p: p + helper.VALUE)\n")
    engine = process.engine
    assert engine.expect("registerfunction")["source"] == {"file": "script.py", "line": 6}
    assert engine.expect("ready")["files"] == sorted(
        str((tmp_path / name).resolve()) for name in ("helper.py", "script.py")
    )
    assert engine.call("m::f", 1)["result"] == 6
    assert process.finish() == (0, "")


def test_a_process_is_one_worker_however_often_it_asks(launch):
    process = launch(
        "again = register_worker()\n"
        "again.register_function('m::f', lambda p: again is worker)\n"
        "def other(_):\n"
        "    try:\n"
        "        register_worker(options=InitOptions(worker_name='u'))\n"
        "    except Exception as error:\n"
        "        return str(error)\n"
        "worker.register_function('m::other', other)\n"
    )
    assert [process.engine.call("m::f", 1)["result"] for _ in range(10)] == [True] * 10
    assert process.engine.call("m::other", 1)["result"] == (
        "this process is a worker already, with the name t; for u give a script of its own an entry in iii.toml"
    )
    assert process.finish() == (0, "")


def test_a_script_may_bear_the_name_of_a_standard_module(launch, tmp_path):
    for name in ("math", "queue", "random"):
        (tmp_path / f"{name}.py").write_text("raise RuntimeError('a worker was imported')\n")
    process = launch("import math, random, asyncio\nworker.register_function('m::f', lambda p: math.floor(p))\n")
    process.engine.expect("ready")
    answer = process.engine.call("m::f", 1.5)
    assert answer.get("result") == 1, answer
    assert process.finish() == (0, "")


def test_a_slow_start_is_not_taken_for_a_finished_one(launch, tmp_path):
    (tmp_path / "slow.py").write_text("import time\ntime.sleep(0.3)\n")
    process = launch("import slow\nworker.register_function('m::f', lambda p: p)\n")
    process.engine.expect("ready")
    assert [message["type"] for message in process.engine.seen][-1] == "registerfunction"


def test_what_a_handler_prints_goes_to_stderr_and_the_call_succeeds(launch):
    process = launch(
        "def noisy(p):\n"
        "    print('from print', flush=True)\n"
        "    os.system('echo from child')\n"
        "    os.write(1, b'from c\\n')\n"
        "    return sys.stdin.read()\n"
        "worker.register_function('m::noisy', noisy)\n"
    )
    assert process.engine.call("m::noisy")["result"] == ""
    code, text = process.finish()
    assert (code, sorted(text.splitlines())) == (0, ["from c", "from child", "from print"])


def test_what_a_script_prints_before_it_registers_stays_off_the_wire(launch):
    process = launch(HEAD + "worker.register_function('m::f', lambda p: 1)\n", head="print('hello', flush=True)\n")
    assert process.engine.call("m::f")["result"] == 1
    assert process.finish() == (0, "hello\n")


def test_children_do_not_inherit_the_wire(launch):
    process = launch(
        "import subprocess\n"
        "def start(p):\n"
        "    worker.child = subprocess.Popen(['sleep', '60'], close_fds=False)\n"
        "    return worker.child.pid\n"
        "worker.register_function('m::start', start)\n"
    )
    pid = process.engine.call("m::start")["result"]
    links = set()
    for fd in os.listdir(f"/proc/{pid}/fd"):
        with suppress(FileNotFoundError):  # the loader of the child's program closes what it has opened
            links.add(os.readlink(f"/proc/{pid}/fd/{fd}"))
    wire = {os.readlink(f"/proc/self/fd/{stream.fileno()}") for stream in (process.child.stdin, process.child.stdout)}
    os.kill(pid, signal.SIGKILL)
    assert not links & wire


@pytest.mark.parametrize(
    "ending",
    [
        "while True: time.sleep(3600)\n",
        "import asyncio\nasync def main(): await asyncio.Event().wait()\nasyncio.run(main())\n",
        "import signal\nsignal.pause()\n",
        "",
        "worker.ready()\n",
        "threading.Thread(target=time.sleep, args=(3600,)).start()\n",
    ],
    ids=["sleeps", "asyncio", "pause", "ends", "explicit", "thread"],
)
def test_every_ending_of_a_script_is_ready_serves_and_ends_with_the_wire(launch, ending):
    process = launch("worker.register_function('m::f', lambda p: p)\n" + ending)
    process.engine.expect("ready")
    assert process.engine.call("m::f", 1)["result"] == 1
    assert process.finish()[0] == 0


def test_a_stuck_handler_does_not_keep_the_process(launch):
    process = launch(
        "def stuck(p):\n    worker.trigger({'function_id': 'o::started', 'action': TriggerAction.Void()})\n"
        "    time.sleep(3600)\n"
        "worker.register_function('m::stuck', stuck)\n"
    )
    process.engine.invoke("m::stuck")
    process.engine.expect("invokefunction", function_id="o::started")
    assert process.finish()[0] == 0


def test_exit_handlers_run_at_the_end_of_the_wire_and_on_stop(launch):
    body = "import atexit\natexit.register(lambda: print('bye', flush=True))\n"
    for ending in ("", "while True: time.sleep(3600)\n"):
        closed = launch(body + ending)
        closed.engine.expect("ready")
        assert closed.finish() == (0, "bye\n")
        stopped = launch(body + ending)
        stopped.engine.expect("ready")
        stopped.engine.send({"type": "stop", "deadline_ms": 5000})
        assert stopped.wait() == (0, "bye\n")


def test_stop_waits_for_the_running_handler(launch):
    process = launch("def slow(p):\n    return worker.trigger('o::gate')\nworker.register_function('m::slow', slow)\n")
    process.engine.invoke("m::slow")
    call = process.engine.expect("invokefunction", function_id="o::gate")
    process.engine.send({"type": "stop", "deadline_ms": 10_000})
    process.engine.settle(call, result=4)
    assert process.engine.result()["result"] == 4
    assert process.wait()[0] == 0


def test_the_body_of_a_script_may_call(launch):
    process = launch("print(worker.trigger('o::f', 1), flush=True)\n")
    call = process.engine.expect("invokefunction", function_id="o::f")
    process.engine.settle(call, result=9)
    process.engine.expect("ready")
    assert process.finish() == (0, "9\n")


def test_a_script_without_a_worker_sends_nothing_and_ends(launch):
    process = launch("print(sys.argv[1:], __name__, __file__)\n", "a", "--b", head="import sys\n")
    code, text = process.wait()
    assert code == 0
    assert text.startswith("['a', '--b'] __main__ /")
    with pytest.raises(EOFError, match=r"seen: \[\]"):
        process.engine.expect("anything")


@pytest.mark.parametrize(
    ("body", "last"),
    [
        ("def broken(:\n", "SyntaxError: invalid syntax"),
        ("import no_such_module\n", "ModuleNotFoundError: No module named 'no_such_module'"),
        ("1 / 0\n", "ZeroDivisionError: division by zero"),
    ],
)
def test_a_broken_script_shows_pythons_own_traceback_and_exits_1(launch, body, last):
    process = launch(body, head="")
    code, text = process.wait()
    assert code == 1
    assert text.strip().splitlines()[-1] == last
    assert "launch.py" not in text
    assert "launcher.py" not in text
    assert "script.py" in text


@pytest.mark.parametrize(("argument", "code"), [("3", 3), ("", 0), ("'no'", 1)])
def test_the_scripts_own_exit_code_is_kept(launch, argument, code):
    assert launch(f"import sys\nsys.exit({argument})\n", head=HEAD).wait()[0] == code


def test_a_module_is_run_by_name(launch, tmp_path):
    (tmp_path / "package").mkdir()
    (tmp_path / "package" / "__main__.py").write_text(
        HEAD + "worker.register_function('m::argv', lambda p: sys.argv[1:])\n"
    )
    child = subprocess.Popen(
        [sys.executable, str(LAUNCHER), "-m", "package", "x"],
        cwd=tmp_path,
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        env={**os.environ, "III_URL": "stdio:"},
    )
    line = b'{"type":"invokefunction","invocation_id":"i","function_id":"m::argv","data":null}\n'
    out, _ = child.communicate(line, BOUND)
    assert b'"result":["x"]' in out
    assert child.returncode == 0


def test_the_launchers_folder_hides_no_module_and_the_sdk_comes_last(launch):
    process = launch("import sys\nprint(sys.path[0], sys.path[-1])\n", head="")
    first, last = process.wait()[1].split()
    assert Path(first).name != "worker"
    assert Path(last) == LAUNCHER.parents[2]


def test_started_by_hand_a_script_serves_the_same(launch, tmp_path):
    script = tmp_path / "hand.py"
    script.write_text(HEAD + "print('noise', flush=True)\nworker.register_function('m::f', lambda p: p)\n")
    child = subprocess.run(
        [sys.executable, str(script)],
        input=b'{"type":"invokefunction","invocation_id":"i","function_id":"m::f","data":5}\n',
        capture_output=True,
        timeout=BOUND,
        env={**os.environ, "III_URL": "stdio:", "PYTHONPATH": str(LAUNCHER.parents[2])},
        check=True,
    )
    assert b"noise" not in child.stdout
    assert b'"type":"ready"' in child.stdout
    assert b'"invocation_id":"i","function_id":"m::f","result":5}' in child.stdout


def test_modules_imported_by_a_handler_are_reported(launch, tmp_path):
    (tmp_path / "late.py").write_text("VALUE = 1\n")
    process = launch("def f(p):\n    import late\n    return late.VALUE\nworker.register_function('m::f', f)\n")
    assert len(process.engine.expect("ready")["files"]) == 1
    assert process.engine.call("m::f")["result"] == 1
    assert str((tmp_path / "late.py").resolve()) in process.engine.expect("ready")["files"]


def test_handlers_may_start_threads_that_call(launch):
    process = launch(
        "from concurrent.futures import ThreadPoolExecutor\n"
        "def fan(p):\n"
        "    with ThreadPoolExecutor(8) as pool:\n"
        "        return list(pool.map(lambda n: worker.trigger('o::f', n), range(20)))\n"
        "worker.register_function('m::fan', fan)\n"
    )
    process.engine.invoke("m::fan")
    for _ in range(20):
        call = process.engine.expect("invokefunction", function_id="o::f")
        process.engine.send(
            {
                "type": "invocationresult",
                "invocation_id": call["invocation_id"],
                "function_id": "o::f",
                "result": call["data"],
            }
        )
    assert process.engine.result()["result"] == list(range(20))


def test_a_large_payload_passes_in_both_directions(launch):
    process = launch("worker.register_function('m::echo', lambda p: p)\n")
    process.engine.expect("ready")
    text = "x" * 60_000
    process.engine.invoke("m::echo", [text])
    assert process.engine.result()["result"] == [text]


def test_the_worker_dies_with_its_parent(launch, tmp_path):
    script = tmp_path / "worker.py"
    script.write_text(HEAD + "worker.register_function('m::f', lambda p: time.sleep(3600))\n")
    # The test holds the wire itself, so that only the kernel's signal can end the worker.
    parent = (
        "import subprocess, sys, time\n"
        f"child = subprocess.Popen([sys.executable, {str(LAUNCHER)!r}, {str(script)!r}])\n"
        "print(child.pid, file=sys.stderr, flush=True)\n"
        "time.sleep(3600)\n"
    )
    process = subprocess.Popen(
        [sys.executable, "-c", parent],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        env={**os.environ, "III_URL": "stdio:"},
    )
    with process:
        pid = int(process.stderr.readline())
        while b'"ready"' not in process.stdout.readline():
            pass
        handle = os.pidfd_open(pid)
        process.kill()
        gone, _, _ = select.select([handle], [], [], BOUND)
        os.close(handle)
    assert gone


def test_a_script_that_its_own_module_imports_again_is_told_who_imports_it(launch, tmp_path):
    (tmp_path / "other.py").write_text("import os\nimport script\n")
    process = launch("@worker.function('m::f')\ndef f(): pass\nimport other\n")
    code, text = process.wait()
    last = text.strip().splitlines()[-1]
    assert code == 1
    assert last.startswith("ValueError: function m::f is registered already in this worker: script.py runs as __main__")
    assert f"{tmp_path / 'other.py'}:2 has imported it a second time as the module script" in last


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("for _ in range(2):\n    worker.register_function('m::f', lambda p: p)\n", ": script.py:6 has run twice"),
        ("worker.register_function('m::f', print)\nworker.register_function('m::f', lambda p: p)\n", "in this worker"),
        (
            "def f(p): ...\ndef g(p): ...\nfor h in (f, g):\n    worker.register_function('m::f', h)\n",
            ", at script.py:5",
        ),
    ],
)
def test_a_function_that_is_registered_twice_is_told_where_it_was_first(launch, body, said):
    code, text = launch(body).wait()
    assert code == 1
    assert "function m::f is registered already in this worker" in text
    assert said in text.strip().splitlines()[-1]


UNRESOLVED = """
from __future__ import annotations
from dataclasses import dataclass
from typing import TypedDict
from iii import register_worker
worker = register_worker()
@dataclass
class Base:
    item: str
    price: Decimal
@dataclass
class Order(Base):
    count: int
class Line(TypedDict):
    of: list["Article"]
"""


@pytest.mark.parametrize(
    ("body", "said"),
    [
        ("@worker.function('m::f')\ndef f(order: Order): ...\n", "'Decimal' of Base.price ({}:10) cannot be resolved"),
        ("@worker.function('m::f')\ndef f() -> Base: ...\n", "'Decimal' of Base.price ({}:10) cannot be resolved"),
        ("def f(orders: list[Order]): ...\nworker.register_function('m::f', f)\n", "'Decimal' of Base.price ({}:10)"),
        ("@worker.function('m::f')\ndef f(line: Line): ...\n", "of Line.of ({}:15) cannot be resolved: NameError"),
    ],
)
def test_an_annotation_that_cannot_be_resolved_is_one_error_with_function_and_line(launch, tmp_path, body, said):
    code, text = launch(body, head=UNRESOLVED).wait()
    last = text.strip().splitlines()[-1]
    assert code == 1
    assert last.startswith("TypeError: m::f: the annotation ")
    assert said.format(tmp_path / "script.py") in last


def test_a_missing_module_is_told_with_the_interpreter_that_lacks_it(launch):
    code, text = launch("import no_such_module\n", head="").wait()
    first, *_, last = text.strip().splitlines()
    assert code == 1
    assert first.startswith(f"iii: {sys.executable} has no module no_such_module; install it there")
    assert last == "ModuleNotFoundError: No module named 'no_such_module'"


@pytest.mark.parametrize("package", ["gevent", "eventlet"])
def test_threads_that_a_package_has_replaced_are_told_at_the_start_with_the_way_out(launch, tmp_path, package):
    (tmp_path / package).mkdir()
    (tmp_path / package / "__init__.py").write_text("def start(*arguments): return original(*arguments)\n")
    head = f"import threading, {package}\n{package}.original = threading._start_new_thread\n"
    process = launch("", head=f"{head}threading._start_new_thread = {package}.start\n{HEAD}")
    process.engine.expect("ready")
    code, text = process.finish()
    assert code == 0
    assert text.startswith(f"iii: {package} has replaced the threads of this process")
    assert "thread=False" in text
