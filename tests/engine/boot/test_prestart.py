"""The first workers of a start: who is begun before the engine is there, and what becomes of them."""

from __future__ import annotations

import json
import os
import socket
import subprocess
import sys
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import pytest
from msgspec.structs import replace

from iii.engine.boot.prestart import Prestart
from iii.engine.config.spec import ProjectSpec, WorkerSpec
from iii.engine.supervision.process import Command, Process
from iii.engine.supervision.run import Run
from iii.engine.supervision.start_order import AT_A_TIME

SLEEPER = (sys.executable, "-c", "import time; time.sleep(3600)")
BOUND = 20.0


def environment(spec: WorkerSpec, run: Run) -> Mapping[str, str]:
    return {**os.environ, "WORKER": f"{spec.name} {run.instance}"}


def command_of(name: str, instance: int = 0, **more: str) -> Command:
    return Command(SLEEPER, Path("/"), {**os.environ, "WORKER": f"{name} {instance}", **more})


def project_of(**workers: dict[str, Any]) -> ProjectSpec:
    """Workers that sleep, by name, each with what its table says."""
    known = {"cwd": Path("/"), "command": SLEEPER}
    specs = {name: WorkerSpec(name=name, **known | table) for name, table in workers.items()}
    return ProjectSpec(root=Path("/"), name="p", file=Path("/iii.toml"), workers=specs)


@pytest.fixture
def prestart() -> Iterator[Prestart]:
    started = Prestart()
    yield started
    started.close()


def end(process: Any) -> None:
    """End a process that has been taken."""
    taken = Prestart()
    taken._waiting.append((command_of(""), process))
    taken.close()


def begun(prestart: Prestart) -> list[str]:
    return [command.env["WORKER"] for command, _ in prestart._waiting]


def test_a_process_is_taken_once_by_the_command_it_was_started_with(prestart: Prestart) -> None:
    prestart.begin(project_of(a={}), (), environment)
    other = prestart.take(command_of("a", OTHER="1"))
    first = prestart.take(command_of("a"))
    second = prestart.take(command_of("a"))
    assert isinstance(first, Process)
    assert isinstance(other, Process)
    assert isinstance(second, Process)
    assert first.started_at < other.started_at < second.started_at
    for process in (other, first, second):
        end(process)


def test_no_more_are_begun_than_may_start_at_a_time(prestart: Prestart) -> None:
    prestart.begin(project_of(a={}, b={"instances": 5}), (), environment)
    assert begun(prestart) == ["a 0", "b 0"]
    assert len(begun(prestart)) == AT_A_TIME


def test_who_comes_after_others_or_runs_something_else_first_is_not_begun(prestart: Prestart) -> None:
    workers = {"a": {"after": ("d",)}, "b": {"pre": ("true",)}, "c": {}, "d": {}}
    prestart.begin(project_of(**workers), (), environment)
    # b has the first place, as it will have in the queue of starts.
    assert begun(prestart) == ["c 0"]


def test_of_named_workers_only_these_and_those_they_come_after_are_begun(prestart: Prestart) -> None:
    prestart.begin(project_of(a={}, b={"after": ("d",)}, c={}, d={}), ("b",), environment)
    assert begun(prestart) == ["d 0"]


def test_what_cannot_be_started_is_left_to_the_supervisor(prestart: Prestart, tmp_path: Path) -> None:
    project = project_of(a={"command": ("/no/such/program",)}, b={"command": (), "script": tmp_path / "b.py"})
    prestart.begin(project, (), environment)
    assert begun(prestart) == []


def test_a_worker_whose_children_stay_is_begun_with_the_mark_of_it(prestart: Prestart) -> None:
    prestart.begin(project_of(a={"keep_children": True}), (), environment)
    command, process = prestart._waiting[0]
    assert command.env["III_KEEP_CHILDREN"] == "1"
    assert prestart.take(replace(command)) is process
    end(process)


def test_what_nobody_takes_is_killed(prestart: Prestart) -> None:
    prestart.begin(project_of(a={}), (), environment)
    process = prestart._waiting[0][1]
    prestart.close()
    with pytest.raises(ProcessLookupError):
        os.kill(process.pid, 0)
    assert begun(prestart) == []


def iii_dev(folder: Path, *names: str) -> subprocess.CompletedProcess[str]:
    """Run `iii dev` where it cannot; its worker leaves a file behind if it is ever started."""
    (folder / "a.py").write_text("open('started', 'w')\n")
    command = [sys.executable, "-m", "cli.main", "dev", *names]
    return subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=BOUND, check=False)


@pytest.mark.parametrize("table", ['engine.listen = "{}"', "engine.listeners = [{{ port = {} }}]"])
def test_no_worker_is_started_where_an_address_is_taken(tmp_path: Path, table: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        address = f"127.0.0.1:{port}" if "listeners" not in table else str(port)
        listen = "" if "listen =" in table else 'engine.listen = "off"\n'
        (tmp_path / "iii.toml").write_text(f'{listen}{table.format(address)}\n[workers.a]\nrun = "a.py"\n')
        done = iii_dev(tmp_path)
    assert done.returncode == 2
    assert f"port {port} is taken" in done.stderr
    assert not (tmp_path / "started").exists()


def test_a_start_is_told_to_last_as_long_as_its_longest_worker(tmp_path: Path) -> None:
    (tmp_path / "iii.toml").write_text('[engine]\nlisten = "off"\n[workers.a]\nrun = "a.py"\n')
    (tmp_path / "a.py").write_text("from iii import register_worker\nregister_worker()\n")
    command = [sys.executable, "-m", "cli.main", "dev", "--json"]
    with subprocess.Popen(command, cwd=tmp_path, stdout=subprocess.PIPE) as running:
        assert running.stdout is not None
        seconds: dict[str, float] = {}
        while "AllReady" not in seconds:
            report = json.loads(running.stdout.readline())
            seconds[report["kind"]] = report.get("seconds", 0.0)
        running.terminate()
        running.stdout.read()
    assert seconds["Became"] <= seconds["AllReady"]


def test_an_unknown_worker_is_one_error_and_the_near_name(tmp_path: Path) -> None:
    (tmp_path / "iii.toml").write_text('[workers.alpha]\nrun = "a.py"\n')
    done = iii_dev(tmp_path, "alpho")
    assert done.returncode == 2
    assert "there is no worker `alpho`; did you mean `alpha`?" in done.stderr
    assert not (tmp_path / "started").exists()
