"""The README's console blocks do what they show.

A block under `<!-- runs -->` is run in a copy of the repository's project while `iii dev` runs there. A line that
starts with `$ ` is a command, the lines under it are its output; `...` stands for any text, and `# exits N` behind
a command for its exit code.
"""

from __future__ import annotations

import os
import re
import shutil
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).resolve().parent.parent
BLOCK = re.compile(r"<!-- runs -->\n```console\n(.*?)```", re.DOTALL)
# Starting five workers takes a second; a machine that is busy with other tests may need much longer.
PATIENCE = 30


@dataclass(frozen=True)
class Step:
    """One command of a block and what the README says it does."""

    command: str
    output: str
    exit_code: int


def steps_of(block: str) -> list[Step]:
    """Cut a console block into its commands."""
    found = []
    for part in re.split(r"^\$ ", block, flags=re.MULTILINE)[1:]:
        line, _, output = part.partition("\n")
        code = re.search(r"# exits (\d+)$", line)
        found.append(Step(line, output, int(code[1]) if code else 0))
    return found


def matches(output: str, expected: str) -> bool:
    """Whether the output is as shown, `...` standing for any text within its line."""
    return re.fullmatch(re.escape(expected).replace(r"\.\.\.", "[^\n]*"), output) is not None


STEPS = [step for block in BLOCK.findall((ROOT / "README.md").read_text(encoding="utf-8")) for step in steps_of(block)]


@pytest.fixture(scope="module")
def project(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Path]:
    folder = tmp_path_factory.mktemp("readme")
    shutil.copy(ROOT / "iii.toml", folder)
    shutil.copytree(ROOT / "examples", folder / "examples", ignore=shutil.ignore_patterns("__pycache__"))
    command = [sys.executable, "-m", "cli.main", "dev"]
    engine = subprocess.Popen(
        command,
        cwd=folder,
        env=environment(),
        stdin=subprocess.DEVNULL,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    try:
        await_ready(engine)
        yield folder
    finally:
        engine.send_signal(signal.SIGINT)
        engine.communicate(timeout=PATIENCE)


def await_ready(engine: subprocess.Popen[str]) -> None:
    """Read what the engine shows until it says that it is ready, or is stopped for never saying so."""
    assert engine.stdout is not None
    impatience = threading.Timer(PATIENCE, engine.terminate)
    impatience.start()
    shown: list[str] = []
    for line in engine.stdout:
        shown.append(line)
        if "ready in" in line:
            break
    impatience.cancel()
    assert "ready in" in "".join(shown), "".join(shown)


def environment() -> dict[str, str]:
    """Ours, with `iii` on the PATH and nothing that points at another engine."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith("III_")}
    path = os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", "")])
    return {**kept, "PATH": path, "PYTHONPATH": str(ROOT)}


def test_the_readme_has_blocks_to_run() -> None:
    assert len(STEPS) >= 5
    assert any(step.exit_code for step in STEPS)


def test_a_block_is_cut_into_commands_with_output_and_exit_code() -> None:
    block = "$ echo a\na\n$ false    # exits 1\n"
    assert steps_of(block) == [Step("echo a", "a\n", 0), Step("false    # exits 1", "", 1)]


def test_dots_stand_for_any_text_of_one_line_only() -> None:
    assert matches("at math.py:9)\n", "at math.py:...)\n")
    assert not matches("at math.py:\n9)\n", "at math.py:...)\n")


@pytest.mark.parametrize("step", STEPS, ids=lambda step: step.command)
def test_the_command_does_what_the_readme_shows(step: Step, project: Path) -> None:
    run = subprocess.run(
        ["bash", "-c", step.command],
        cwd=project,
        env=environment(),
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=PATIENCE,
        check=False,
    )
    assert (run.returncode, matches(run.stdout, step.output)) == (step.exit_code, True), run.stdout
