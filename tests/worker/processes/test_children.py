"""Processes that a worker starts: the wire is the worker's alone, and its children do their own work undisturbed."""

from __future__ import annotations

import pytest

from tests.support.worker_support import Process

HEAD = """
import asyncio, multiprocessing, os, pty, subprocess, sys, threading
from iii import InvocationError, register_worker
"""
# How a handler waits for a child: the child's exit code.
WAIT = """
def code_of(pid):
    return os.waitstatus_to_exitcode(os.waitpid(pid, 0)[1])
"""
REGISTER = "worker = register_worker()\n"


@pytest.fixture
def launch(tmp_path):
    processes = []

    def start(body, *, head=HEAD + REGISTER):
        script = tmp_path / "script.py"
        script.write_text(head + WAIT + body)
        processes.append(Process(script))
        return processes[-1]

    yield start
    for process in processes:
        process.close()


@pytest.mark.parametrize(
    ("ending", "code"),
    [
        ("sys.exit(3)", 3),
        ("sys.exit()", 0),
        ("sys.exit('text')", 1),
        ("return 'child'", 0),
        ("raise ValueError('of the child')", 1),
        ("os._exit(4)", 4),
        ("raise KeyboardInterrupt", 1),
    ],
)
@pytest.mark.parametrize("kind", ["def", "async def"])
def test_a_child_that_a_handler_forks_never_answers_for_the_worker(launch, ending, code, kind):
    engine = launch(
        f"""
@worker.function("m::fork")
{kind} fork():
    pid = os.fork()
    if pid == 0:
        {ending}
    return [code_of(pid), os.getpid()]
worker.register_function("m::pid", lambda _: os.getpid())
"""
    ).engine
    pid = engine.call("m::pid")["result"]
    assert engine.call("m::fork", invocation_id="f")["result"] == [code, pid]
    assert [engine.call("m::pid", invocation_id=f"p{n}")["result"] for n in range(20)] == [pid] * 20


def test_a_child_of_an_async_handler_that_awaits_ends_and_disturbs_no_loop(launch):
    engine = launch(
        """
@worker.function("m::fork")
async def fork():
    pid = os.fork()
    if pid == 0:
        await asyncio.sleep(0)
    return code_of(pid)
@worker.function("m::sleep")
async def sleep():
    await asyncio.sleep(0.01)
    return os.getpid()
"""
    ).engine
    assert engine.call("m::fork")["result"] == 1
    assert len({engine.call("m::sleep", invocation_id=f"p{n}")["result"] for n in range(20)}) == 1


def test_what_a_forked_child_calls_or_registers_is_refused_by_name(launch):
    process = launch(
        """
@worker.function("m::fork")
def fork():
    read, write = os.pipe()
    pid = pty.fork()[0]
    if pid == 0:
        said = []
        for attempt in (
            lambda: worker.trigger("o::f"),
            lambda: worker.trigger({"function_id": "o::f", "action": {"type": "void"}}),
            lambda: asyncio.run(worker.trigger_async("o::f")),
            lambda: list(worker.stream("o::f")),
            lambda: worker.register_function("m::more", print),
            lambda: worker.register_trigger({"type": "t", "function_id": "m::fork"}),
            lambda: register_worker().register_function("m::again", print),
        ):
            try:
                attempt()
            except InvocationError as error:
                said.append(error.code)
        os.write(write, " ".join(said).encode())
        os._exit(0)
    os.close(write)
    return os.read(read, 1000).decode()
worker.register_function("m::pid", lambda _: os.getpid())
"""
    )
    assert process.engine.call("m::fork")["result"] == " ".join(["not_connected"] * 7)
    assert process.engine.call("m::pid", invocation_id="p")["result"] == process.child.pid


@pytest.mark.parametrize("method", ["fork", "spawn", "forkserver"])
def test_a_child_of_multiprocessing_does_its_work_to_the_end(launch, tmp_path, method):
    process = launch(
        f"""
import time
def work(path):
    try:
        worker.trigger("o::f")
    except InvocationError as error:
        answer = error.code
    time.sleep(1)  # longer than a process that has lost its engine lives
    with open(path, "w") as file:
        file.write(answer)
@worker.function("m::work")
def start():
    child = multiprocessing.get_context("{method}").Process(target=work, args=({str(tmp_path / "done")!r},))
    child.start()
    child.join(15)
    return child.exitcode
worker.register_function("m::pid", lambda _: os.getpid())
"""
    )
    process.engine.invoke("m::work", invocation_id="w")
    assert process.engine.call("m::pid")["result"] == process.child.pid
    assert process.engine.result("w")["result"] == 0
    assert (tmp_path / "done").read_text() == "not_connected"
    assert process.engine.call("m::pid")["result"] == process.child.pid
    assert process.finish() == (0, "")


def test_a_program_that_imports_a_worker_module_prints_what_it_prints(launch):
    process = launch(
        """
worker.register_function("m::f", lambda _: 1)
@worker.function("m::run")
def run():
    program = "import script; print(sorted(script.worker._receiver.functions))"
    done = subprocess.run([sys.executable, "-c", program], input="{}\\n", capture_output=True, text=True,
        env=os.environ | {"PYTHONPATH": os.pathsep.join(sys.path)}, cwd=os.path.dirname(__file__))
    return [done.returncode, done.stdout, done.stderr]
"""
    )
    code, printed, said = process.engine.call("m::run")["result"]
    assert (code, printed) == (0, "['m::f', 'm::run']\n")
    assert said.startswith("iii: process ")
    assert f"was started by process {process.child.pid}, and only that has the connection" in said


@pytest.mark.parametrize("head", [HEAD, HEAD + REGISTER], ids=["before", "after"])
def test_a_script_that_forks_has_one_worker_in_its_first_process(launch, head):
    process = launch(
        """
ready = os.pipe()
pid = os.fork()
if pid == 0:
    os.close(ready[0])
worker = register_worker()
if pid == 0:
    sys.exit(7)
worker.register_function("m::pid", lambda _: [os.getpid(), code_of(pid)])
""",
        head=head,
    )
    assert process.engine.call("m::pid")["result"] == [process.child.pid, 7]


@pytest.mark.parametrize(
    "error",
    ["TimeoutError('slow')", "ValueError('odd')", "OSError(5, 'io')", "BaseExceptionGroup('g', [ValueError()])"],
)
def test_a_signal_handler_that_raises_ends_neither_the_worker_nor_a_call(launch, error):
    process = launch(
        f"""
import signal
def on_alarm(*_):
    heard.set()
    raise {error}
heard = threading.Event()
signal.signal(signal.SIGALRM, on_alarm)
@worker.function("m::late")
def late():
    heard.clear()
    signal.setitimer(signal.ITIMER_REAL, 0.01)
    return heard.wait(15)
worker.register_function("m::f", lambda _: 2)
"""
    )
    for number in range(3):
        assert process.engine.call("m::late", invocation_id=f"l{number}")["result"] is True
        assert process.engine.call("m::f", invocation_id=f"f{number}")["result"] == 2
    code, said = process.finish()
    assert code == 0
    assert "a signal handler has raised" in said
    assert "on_alarm" in said


def test_a_signal_handler_that_exits_ends_the_worker_with_its_code(launch):
    process = launch(
        """
import signal
signal.signal(signal.SIGTERM, lambda *_: sys.exit(5))
worker.register_function("m::f", lambda _: 2)
"""
    )
    assert process.engine.call("m::f")["result"] == 2
    process.child.terminate()
    assert process.wait()[0] == 5


def test_a_call_that_a_signal_handler_interrupts_leaves_the_wire_to_the_next(launch):
    process = launch(
        """
import signal
def on_alarm(*_):
    raise TimeoutError("too slow")
signal.signal(signal.SIGALRM, on_alarm)
worker.register_function("m::f", lambda _: 2)
signal.setitimer(signal.ITIMER_REAL, 0.2)
try:
    worker.trigger("o::never")
except TimeoutError:
    worker.trigger("o::now")
"""
    )
    engine = process.engine
    engine.expect("invokefunction", function_id="o::never")
    engine.settle(engine.expect("invokefunction", function_id="o::now"))
    assert engine.call("m::f")["result"] == 2


def test_a_worker_by_hand_that_forks_serves_in_its_first_process_alone(tmp_path):
    script = tmp_path / "script.py"
    script.write_text(
        HEAD
        + REGISTER
        + WAIT
        + """
def nothing():
    pass
child = multiprocessing.get_context("fork").Process(target=nothing)
child.start()
child.join()
worker.register_function("m::pid", lambda _: [os.getpid(), child.exitcode])
"""
    )
    process = Process(script, by_hand=True)
    try:
        assert process.engine.call("m::pid")["result"] == [process.child.pid, 0]
    finally:
        process.close()
