"""`iii token`: print the token of the running engine's WebSocket listener. Called by `commands`.

Programs of the same user on the same machine need none; others show it as `Authorization: Bearer TOKEN`.
"""

from __future__ import annotations

from pathlib import Path

import click

from cli.text.output import write
from iii.engine.boot.run_dir import read_token
from iii.errors import EngineNotRunning


@click.command("token")
def command() -> int:
    """Print the token that lets other users, machines and browsers connect to the engine."""
    token = next(filter(None, map(_token_of, (Path.cwd(), *Path.cwd().parents))), None)
    if token is None:
        raise EngineNotRunning("no engine with a WebSocket listener is running here; start one with `iii dev`")
    write(token)
    return 0


def _token_of(folder: Path) -> str | None:
    return read_token(folder / ".iii" / "run")
