"""B9: what a person waits for: a call from the terminal, a project's start, the new answer after a save."""

from __future__ import annotations

import compileall
import json
import os
import shutil
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from typing import IO, Any

from benchmarks.harness import Comparison, Options, Row, interleave
from benchmarks.setups import ROOT, engine

TARGET_TRIGGER = 2.5
TARGET_READY = 1.5
# A save may cost one and a half bare starts and this much for noticing and swapping.
SAVE_FACTOR, SAVE_ALLOWANCE_MS = 1.5, 100.0
WORKERS = 10
BARE = [sys.executable, "-c", "pass"]
PATIENCE = 60.0

WORKER = """\
from iii import register_worker

worker = register_worker()


def add(payload):
    return {"c": payload["a"] + payload["b"] + 0}


worker.register_function("NAME::add", add)
"""


def run(options: Options) -> list[Row]:
    """Compare all three with a bare interpreter on the same machine."""
    compile_packages()
    return [*trigger(options), *ready(options), *save(options)]


def compile_packages() -> None:
    """Compile what is loaded, as an installation does: in an editable one, told to write no bytecode, nobody has."""
    for package in ("iii", "cli"):
        compileall.compile_dir(ROOT / package, quiet=1)


def trigger(options: Options) -> list[Row]:
    """`iii trigger` against `python -c pass`, each the wall time of one process."""
    with project(1) as folder, engine(folder, "dev"):
        await_answer(folder, 5)
        call = [*installed_command(), "trigger", "w0::add", "a=2", "b=3"]
        runs: dict[str, Callable[[], float]] = {
            "bare": partial(wall_ms, BARE, folder),
            "trigger": partial(wall_ms, call, folder),
        }
        figures = interleave(runs, options.rounds * 3)
    what = "iii trigger, against python -c pass"
    return [Comparison("B9", what, "ms", TARGET_TRIGGER).row(figures["trigger"], figures["bare"])]


def ready(options: Options) -> list[Row]:
    """`iii dev` until its workers are ready, against as many interpreters started at once."""
    with project(WORKERS) as folder:
        starts: dict[str, Callable[[], float]] = {"bare": bare_starts_ms, "dev": partial(ready_ms, folder)}
        figures = interleave(starts, options.rounds)
    what = f"iii dev ready, {WORKERS} workers, against {WORKERS} bare starts"
    return [Comparison("B9", what, "ms", TARGET_READY).row(figures["dev"], figures["bare"])]


def save(options: Options) -> list[Row]:
    """From writing a worker's file to the first answer of the new code, against what the target allows."""
    answers = iter(range(6, 1000))
    with project(1) as folder, engine(folder, "dev"):
        await_answer(folder, 5)
        runs: dict[str, Callable[[], float]] = {
            "bare": partial(wall_ms, BARE, folder),
            "save": lambda: save_ms(folder, next(answers)),
        }
        figures = interleave(runs, options.rounds)
    allowed = [SAVE_FACTOR * start + SAVE_ALLOWANCE_MS for start in figures["bare"]]
    what = "save to new answer, against 1.5 bare starts + 100 ms"
    return [Comparison("B9", what, "ms", 1.0).row(figures["save"], allowed)]


@contextmanager
def project(workers: int) -> Iterator[Path]:
    """Yield a folder with an iii.toml and that many trivial workers."""
    with tempfile.TemporaryDirectory(prefix="iii-bench-") as folder:
        root, tables = Path(folder), ['[engine]\nlisten = "off"\n']
        for number in range(workers):
            (root / f"w{number}.py").write_text(WORKER.replace("NAME", f"w{number}"), encoding="utf-8")
            tables.append(f'[workers.w{number}]\nrun = "w{number}.py"\n')
        (root / "iii.toml").write_text("".join(tables), encoding="utf-8")
        yield root


def installed_command() -> list[str]:
    """Return the `iii` of this environment, or the module where it is not installed."""
    script = shutil.which("iii", path=str(Path(sys.executable).parent))
    return [script] if script else [sys.executable, "-m", "cli.main"]


def wall_ms(command: list[str], folder: Path) -> float:
    """Run a command to its end."""
    begin = time.perf_counter()
    subprocess.run(command, cwd=folder, check=True, stdout=subprocess.DEVNULL)
    return (time.perf_counter() - begin) * 1e3


def bare_starts_ms() -> float:
    """Start that many interpreters at once and wait for all."""
    begin = time.perf_counter()
    started = [subprocess.Popen(BARE) for _ in range(WORKERS)]
    for process in started:
        process.wait()
    return (time.perf_counter() - begin) * 1e3


def ready_ms(folder: Path) -> float:
    """Start `iii dev` and wait for the line that says it is ready."""
    begin = time.perf_counter()
    process = subprocess.Popen(
        [*installed_command(), "dev"], cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    )
    assert process.stdout is not None
    impatience = threading.Timer(PATIENCE, process.terminate)
    impatience.start()
    with process.stdout:
        shown = first_lines(process.stdout, "ready in")
        elapsed = (time.perf_counter() - begin) * 1e3
        process.send_signal(signal.SIGINT)
        process.stdout.read()
    impatience.cancel()
    process.wait()
    if "ready in" not in shown:
        raise RuntimeError(f"iii dev never said that it is ready:\n{shown}")
    return elapsed


def first_lines(stream: IO[str], wanted: str) -> str:
    """Read up to the line that holds `wanted`, or to the end."""
    shown = ""
    for line in stream:
        shown += line
        if wanted in line:
            break
    return shown


def save_ms(folder: Path, answer: int) -> float:
    """Change the worker so that it gives another answer, and call it until it does."""
    changed = WORKER.replace("NAME", "w0").replace("+ 0", f"+ {answer - 5}")
    begin = time.perf_counter()
    (folder / "w0.py").write_text(changed, encoding="utf-8")
    await_answer(folder, answer)
    return (time.perf_counter() - begin) * 1e3


def await_answer(folder: Path, answer: int) -> None:
    """Call `w0::add` over the engine's socket until its result is `answer`."""
    deadline = time.monotonic() + PATIENCE
    while time.monotonic() < deadline:
        try:
            with connection(folder) as lines:
                if call_until(lines, answer, deadline):
                    return
        except (OSError, ValueError, KeyError):
            time.sleep(0.02)  # the engine is not up yet
    raise RuntimeError(f"w0::add never answered {answer}")


@contextmanager
def connection(folder: Path) -> Iterator[Any]:
    """Yield a file over the engine's unix socket."""
    where = json.loads((folder / ".iii" / "run" / "engine.json").read_text(encoding="utf-8"))
    with socket.socket(socket.AF_UNIX) as peer:
        peer.settimeout(PATIENCE)
        peer.connect(where["socket"])
        with peer.makefile("rw", encoding="utf-8", newline="\n") as lines:
            yield lines


def call_until(lines: Any, answer: int, deadline: float) -> bool:
    """Make one call after another, a moment apart so that they do not compete with the reload they wait for."""
    while time.monotonic() < deadline:
        result = call(lines)
        if result == {"c": answer}:
            return True
        time.sleep(0.002)
    return False


def call(lines: Any) -> Any:
    """Make one call and return its result, None when it failed."""
    invocation_id = f"00000000-0000-4000-8000-{os.urandom(6).hex()}"
    message = {"type": "invokefunction", "invocation_id": invocation_id, "function_id": "w0::add"}
    lines.write(json.dumps({**message, "data": {"a": 2, "b": 3}}) + "\n")
    lines.flush()
    for line in lines:
        found = json.loads(line)
        if found["type"] == "invocationresult" and found["invocation_id"] == invocation_id:
            return found.get("result")
    raise OSError("the engine closed the connection")
