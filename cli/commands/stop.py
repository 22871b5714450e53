"""`iii stop`: end the engine of this project by signal, as Ctrl-C in its terminal would."""

from __future__ import annotations

import os
import select
import signal
import time
from collections.abc import Callable
from pathlib import Path

import click

from cli.client.errors import UsageError, not_running
from cli.commands.options import json_option
from cli.commands.project_file import project_file
from cli.text.output import shown_json, write

# Seconds. The engine kills workers that do not stop long before: they drain for 30 s at most, then stop in 5 s.
STOP_TIMEOUT = 60.0


@click.command("stop")
@click.option("--file", type=click.Path(path_type=Path), help="The project file.  [default: nearest iii.toml]")
@json_option
def command(file: Path | None, as_json: bool) -> None:
    """Stop the engine of this project; returns when it is gone."""
    from iii.engine.boot.run_dir import lock_holder  # keeps `--help` light

    folder = project_file(file).absolute().parent / ".iii"
    began = time.monotonic()
    pid = lock_holder(folder)
    if pid is None or not end(pid, lambda: lock_holder(folder) == pid):
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
