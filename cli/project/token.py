"""`iii token`: print the token of the running engine's WebSocket listener.

Programs of the same user on the same machine need no token; others send it as `Authorization: Bearer TOKEN`.
"""

from __future__ import annotations

from pathlib import Path

import click

from cli.text.output import write
from iii.engine.boot.run_dir import read_token
from iii.errors import EngineNotRunning


@click.command("token")
def command() -> None:
    """Print the token that lets other users, machines and browsers connect to the engine."""
    tokens = (read_token(folder / ".iii" / "run") for folder in (Path.cwd(), *Path.cwd().parents))
    token = next(filter(None, tokens), None)
    if token is None:
        raise EngineNotRunning("no engine with a WebSocket listener is running here; start one with `iii dev`")
    write(token)
