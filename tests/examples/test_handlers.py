"""The examples on handlers: their own tests, what they say to wrong requests, and the agent in a real browser."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path

import pytest

from tests.support.handler_examples import EXAMPLES, copied


@pytest.mark.parametrize("name", EXAMPLES)
def test_the_tests_of_an_example_pass_for_who_has_only_the_example(name: str, tmp_path: Path) -> None:
    place = copied(name, tmp_path)
    command = [
        sys.executable,
        "-m",
        "pytest",
        "-q",
        "-p",
        "no:cacheprovider",
        "--rootdir",
        str(place),
        "-c",
        os.devnull,
    ]
    done = subprocess.run(command, cwd=place, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr
    assert " passed" in done.stdout
