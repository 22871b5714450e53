"""`iii dev`, `iii start`, `iii stop` and `iii token`: start the engine of a project, end it, show its token."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

from cli.client.errors import UsageError, not_running
from cli.commands import completion
from cli.commands.options import file_option, json_option, profile_option
from cli.commands.project_file import project_file, run_project
from cli.text.output import shown_json, write
from cli.text.progress import progress
from iii.errors import EngineNotRunning

# Seconds. The engine kills workers that do not stop long before: they drain for 30 s at most, then stop in 5 s.
STOP_TIMEOUT = 60.0
_COLORS = click.Choice(["auto", "always", "never"])


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=completion.declared_workers)
@file_option
@profile_option
@click.option("--color", type=_COLORS, default="auto", help="Colored output.  [default: auto]")
@click.option(
    "--debug",
    metavar="NAME",
    shell_complete=completion.declared_workers,
    help="Let a debugger attach to this worker; no deadlines, no reload.",
)
@click.option("--no-console", is_flag=True, help="Offer no page in the browser.")
@click.option("--cluster", "with_nats", is_flag=True, help="Start a NATS server here too, to try [cluster].")
@json_option
def dev(file: Path | None, names: tuple[str, ...], as_json: bool, no_console: bool, **options: Any) -> int:
    """Start the project's workers (or only NAMEs) and reload what changes. Ctrl-C stops them."""
    return run_project(file, names, watch=True, json_output=as_json, console=not no_console, **options)


@click.command()
@click.argument("names", nargs=-1, metavar="[NAME]...", shell_complete=completion.declared_workers)
@file_option
@profile_option
@click.option("--color", type=_COLORS, default="auto", help="Colored output.  [default: auto]")
@json_option
def start(file: Path | None, names: tuple[str, ...], as_json: bool, **options: Any) -> int:
    """Start the project's workers (or only NAMEs) without watching files, for servers."""
    return run_project(file, names, watch=False, json_output=as_json, **options)


@click.command("stop")
@click.option("--file", type=click.Path(path_type=Path), help="The project file.  [default: nearest iii.toml]")
@json_option
def stop(file: Path | None, as_json: bool) -> None:
    """Stop the engine of this project; returns when it is gone."""
    from iii.engine.boot.run_dir import lock_holder  # keeps `--help` light

    folder = project_file(file).absolute().parent / ".iii"
    began = time.monotonic()
    pid = lock_holder(folder)
    with progress("waiting for the workers to stop"):
        is_ended = pid is not None and end(pid, lambda: lock_holder(folder) == pid)
    if not is_ended:
        raise not_running()
    seconds = time.monotonic() - began
    write(shown_json({"pid": pid, "seconds": round(seconds, 3)}) if as_json else f"stopped in {seconds:.1f} s")


def end(pid: int, is_still_it: Callable[[], bool]) -> bool:
    """Terminate a process and wait for it; return False if it is gone, or another process by `is_still_it`.

    The descriptor is opened first: from then on it means this process, even if the pid is given to another. Raises
    UsageError if the process takes longer than STOP_TIMEOUT.
    """
    try:
        fd = os.pidfd_open(pid)
    except ProcessLookupError:
        return False
    try:
        if not is_still_it():
            return False
        signal.pidfd_send_signal(fd, signal.SIGTERM)
        if not select.select([fd], [], [], STOP_TIMEOUT)[0]:
            raise UsageError(f"the engine (pid {pid}) has not stopped within {STOP_TIMEOUT:.0f} s", "see its terminal")
    finally:
        os.close(fd)
    return True


@click.command("token")
def token() -> None:
    """Print the token that lets other users, machines and browsers connect to the engine."""
    from iii.engine.boot.run_dir import read_token  # keeps `--help` light

    # Programs of the same user on the same machine need none; others send it as `Authorization: Bearer TOKEN`.
    tokens = (read_token(folder / ".iii" / "run") for folder in (Path.cwd(), *Path.cwd().parents))
    nearest = next(filter(None, tokens), None)
    if nearest is None:
        raise EngineNotRunning("no engine with a WebSocket listener is running here; start one with `iii dev`")
    write(nearest)
