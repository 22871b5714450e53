"""`iii mcp`: what an agent starts to reach the running project over its stdin and stdout, as its `[workers.mcp]` says.

This process becomes the mcp worker's, so that the protocol has one implementation and the tables one meaning.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path
from typing import NoReturn

import click

from cli.client.discovery import running_engine
from cli.client.errors import UsageError
from cli.commands.options import file_option, profile_option
from cli.commands.project_file import project_file
from iii.errors import EngineNotRunning

ROOT = Path(__file__).resolve().parents[2]


@click.command("mcp")
@file_option
@profile_option
def command(file: Path | None, profile: str | None) -> NoReturn:
    """Serve the running project to an agent over the Model Context Protocol, on stdin and stdout.

    An agent starts it in the project's folder: `claude mcp add my-project -- iii mcp`.
    """
    from iii.engine.config.project import load_project  # keeps `--help` light

    project = load_project(project_file(file), environ=os.environ, profile=profile)
    spec = next((spec for spec in project.workers.values() if spec.standard == "mcp"), None)
    if spec is None:
        raise UsageError(
            f"{project.file.name} has no [workers.mcp], which says what agents may do", "run `iii add mcp`"
        )
    engine = running_engine(str(project.root))
    if not engine:
        raise EngineNotRunning(f"no engine is running in {project.root}; start one with `iii dev`")
    url = engine.get("url")
    if not url:
        raise UsageError("the engine has no WebSocket listener", 'remove `listen = "off"` from [engine]')
    environment = {
        **os.environ,
        "III_CONFIG": json.dumps(spec.config, default=dict),
        "III_NAMESPACE": spec.namespace,
        "III_PROJECT": str(project.root),
        "III_URL": url,
        "PYTHONPATH": str(ROOT),
    }
    # -P: a script of the project that is called like a package must not take its place.
    os.execve(sys.executable, [sys.executable, "-P", "-m", "stdlib_workers.mcp", "stdio"], environment)
