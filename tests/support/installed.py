"""Commands and projects of an installed package, without our checkout on the path."""

from __future__ import annotations

import os
import signal
import subprocess
from pathlib import Path

import pytest

BOUND = 240  # seconds for what pip downloads


def plain_environment() -> dict[str, str]:
    """Return the environment without what leads to our checkout."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("III_", "PYTHON", "VIRTUAL_ENV"))}


def run(
    *command: str | Path, cwd: Path, check: bool = True, first: Path | None = None
) -> subprocess.CompletedProcess[str]:
    """Run a command; its output is shown when it fails. `first`: a folder that is looked in before the PATH."""
    environment = plain_environment()
    if first is not None:
        environment["PATH"] = f"{first}{os.pathsep}{environment['PATH']}"
    done = subprocess.run(
        list(map(str, command)),
        cwd=cwd,
        env=environment,
        capture_output=True,
        text=True,
        timeout=BOUND,
        check=False,
    )
    if check and done.returncode != 0:
        pytest.fail(f"`{' '.join(map(str, command))}` exits with {done.returncode}\n{done.stdout}{done.stderr}")
    return done


class running:
    """`iii dev` in a project, ready; interrupted at the end, after which nothing may be left of it.

    The context is what it has written until then.
    """

    def __init__(self, iii: Path, project: Path) -> None:
        self._iii, self._project = iii, project

    def __enter__(self) -> str:
        self._process = subprocess.Popen(
            [str(self._iii), "dev"],
            cwd=self._project,
            env=plain_environment(),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        lines = []
        assert self._process.stdout is not None
        for line in self._process.stdout:
            lines.append(line)
            if "ready in" in line:
                return "".join(lines)
        pytest.fail("iii dev did not become ready:\n" + "".join(lines))

    def __exit__(self, *_: object) -> None:
        self._process.send_signal(signal.SIGINT)
        rest, _ = self._process.communicate(timeout=30)
        assert "stopped" in rest
        assert self._process.returncode in (0, 130)
