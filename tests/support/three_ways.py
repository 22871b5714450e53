"""The same scripts under the engine, by hand over WebSocket, and on the official SDK."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import ExitStack, contextmanager, suppress
from pathlib import Path
from time import monotonic

from tests.support.live_project import BOUND, ROOT, Project, project
from tests.support.official import python_with

WAYS = ("supervised", "by hand", "official")


@contextmanager
def running(way: str, folder: Path, scripts: list[Path], is_ready: Callable[[Project], bool]) -> Iterator[Project]:
    """Run the scripts in one of the WAYS; they are ready when `is_ready` says so."""
    if way == "supervised":
        tables = [f'[workers.{script.stem}]\nrun = "{script}"\n' for script in scripts]
        with project(folder, "".join(tables), {}) as made:
            _wait(made, is_ready)
            yield made
    elif way == "by hand":
        with _by_hand(folder, scripts, [sys.executable], PYTHONPATH=str(ROOT)) as made:
            _wait(made, is_ready)
            yield made
    else:
        with _by_hand(folder, scripts, [str(python_with("0.25.0")), "-W", "ignore"]) as made:
            _wait(made, is_ready)
            yield made


def _wait(made: Project, is_ready: Callable[[Project], bool]) -> None:
    """Wait for the last registration; the engine's own trigger says when it is worth another look."""
    deadline = monotonic() + BOUND
    with made.connect() as connection:
        binding = {"type": "registertrigger", "id": "watch", "trigger_type": "engine::functions-available"}
        connection.send({"type": "registerfunction", "id": "test::changed"})
        connection.send({**binding, "function_id": "test::changed", "config": {}})
        while not is_ready(made):
            assert monotonic() < deadline, "the scripts did not register everything"
            with suppress(TimeoutError):
                connection.receive(0.1)


@contextmanager
def _by_hand(folder: Path, scripts: list[Path], command: list[str], **environment: str) -> Iterator[Project]:
    """An engine whose own worker does nothing, and the scripts started beside it."""
    with project(folder, '[workers.idle]\nrun = "idle.py"\n', {"idle": ""}) as made, ExitStack() as started:
        url = json.loads((folder / ".iii" / "run" / "engine.json").read_text())["url"]
        plain = {key: value for key, value in os.environ.items() if not key.startswith(("III_", "PYTHON"))}
        for script in scripts:
            process = subprocess.Popen(
                [*command, str(script)],
                cwd=folder,
                env=plain | {"III_URL": url, "OTEL_ENABLED": "false"} | environment,
                stdin=subprocess.DEVNULL,
                stdout=subprocess.DEVNULL,
                stderr=subprocess.DEVNULL,
            )
            started.callback(process.wait, BOUND)
            started.callback(process.terminate)
        yield made
