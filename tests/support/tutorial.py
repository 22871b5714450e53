"""A tutorial of the documentation, followed literally: every file of the page saved, every command typed.

A paragraph that is one bold file name, and the block under it, are a file to save. In a `console` block a line that
starts with `$ ` is a command, the lines under it are its output: `...` stands for any text in its line, a line that is
`...` alone for any lines. `iii dev` stays running, `cd` stays in force, and what changes while `iii dev` runs has
until `PATIENCE` to come true. What only a person can do (read, open a browser) is left out, and so are `bash` blocks:
they install.
"""

from __future__ import annotations

import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager
from pathlib import Path

PATIENCE = 90.0
_BLOCK = re.compile(
    r"(?:^\*\*(?P<file>[\w./-]+)\*\*\n\n)?^```(?P<kind>\w+)\n(?P<text>.*?)^```$", re.MULTILINE | re.DOTALL
)


# What is said for a moment after a save: a person types slower than that, and looks again.
_NOT_YET = re.compile(r"\A\Z|\A404\b|not found|no http trigger|worker_unavailable|Not Found")


def matches(output: str, expected: str) -> bool:
    """Whether the output is as shown."""
    lines = [
        "(?:.*\n)*" if line == "..." else re.escape(line).replace(r"\.\.\.", ".*") + "\n"
        for line in expected.splitlines()
    ]
    return re.fullmatch("".join(lines), output if output.endswith("\n") or not output else output + "\n") is not None


# Commands that only look: a person who does not see what the page shows yet looks again.
_LOOKS = re.compile(r"curl -s \S+|iii (queue dead|traces|trace|logs)\b.*")


class Follower:
    """Somebody who follows a page in a folder; `replacements` are made in every file and command."""

    def __init__(self, page: Path, folder: Path, replacements: dict[str, str]) -> None:
        self._text = page.read_text(encoding="utf-8")
        self.folder = folder
        self._replacements = replacements
        self._engine: subprocess.Popen[bytes] | None = None
        self.log = folder / "iii-dev.log"
        self.steps = 0

    def follow(self) -> None:
        """Do all that the page says."""
        for block in _BLOCK.finditer(self._text):
            text = block["text"]
            for old, new in self._replacements.items():
                text = text.replace(old, new)
            if block["file"]:
                file = self.folder / block["file"]
                file.parent.mkdir(parents=True, exist_ok=True)
                file.write_text(text, encoding="utf-8")
                self.steps += 1
            elif block["kind"] == "console":
                for part in re.split(r"^\$ ", text, flags=re.MULTILINE)[1:]:
                    command, _, expected = part.partition("\n")
                    self._type(command, expected)
                    self.steps += 1

    def _type(self, command: str, expected: str) -> None:
        if command.startswith("cd "):
            self.folder /= command.removeprefix("cd ")
        elif command == "iii dev":
            self._start()
        else:
            self._run(command, expected)

    def _start(self) -> None:
        self.stop()  # one that the page has ended itself
        with self.log.open("wb") as log:
            self._engine = subprocess.Popen(
                ["iii", "dev"], cwd=self.folder, env=environment(), stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        until = time.monotonic() + PATIENCE
        while b"ready in" not in self.log.read_bytes():
            assert self._engine.poll() is None, self.log.read_text()
            assert time.monotonic() < until, self.log.read_text()
            time.sleep(0.02)  # a file gives no event that is worth waiting for here

    def _run(self, command: str, expected: str) -> None:
        until = time.monotonic() + PATIENCE
        while True:
            done = subprocess.run(
                ["bash", "-c", command],
                cwd=self.folder,
                env=environment(),
                stdout=subprocess.PIPE,
                stderr=subprocess.STDOUT,
                text=True,
                timeout=PATIENCE,
                check=False,
            )
            if matches(done.stdout, expected):
                return
            may_come = _NOT_YET.search(done.stdout) or _LOOKS.fullmatch(command)
            is_early = may_come and time.monotonic() < until
            assert is_early, f"$ {command}\n{done.stdout}\ninstead of\n{expected}\n{self._said()}"

    def _said(self) -> str:
        return self.log.read_text() if self.log.is_file() else ""

    def stop(self) -> None:
        """End `iii dev`, as with Ctrl-C."""
        if self._engine is not None:
            self._engine.send_signal(signal.SIGINT)
            assert self._engine.wait(PATIENCE) in (0, 130)
            self._engine = None


@contextmanager
def following(page: Path, folder: Path, replacements: dict[str, str]) -> Iterator[Follower]:
    """Follow a page from its first to its last line; the project runs on until the context is left."""
    with ExitStack() as stack:
        follower = Follower(page, folder, replacements)
        stack.callback(follower.stop)
        follower.follow()
        yield follower


def environment() -> dict[str, str]:
    """Return ours, with `iii` and `pytest` of this environment first and nothing that points at another engine."""
    kept = {key: value for key, value in os.environ.items() if not key.startswith(("III_", "PYTEST_", "COV_"))}
    return {**kept, "PATH": os.pathsep.join([str(Path(sys.executable).parent), kept.get("PATH", "")])}
