"""`iii worker restart|stop|start NAME...`: a printer over the engine's management functions."""

from __future__ import annotations

import click

from cli.client.connection import connect
from cli.commands.options import engine_options
from cli.text.output import shown, shown_json, write

# A restart waits for the new generation's `ready`, a stop for the old one's last process.
TIMEOUT_MS = 120_000


@click.group("worker")
def command() -> None:
    """Restart, stop or start a worker; returns when it has happened."""


def _add(verb: str, text: str) -> None:
    @command.command(verb, help=text)
    @click.argument("names", nargs=-1, required=True, metavar="NAME...")
    @engine_options
    def manage(names: tuple[str, ...], engine: str | None, as_json: bool) -> None:
        workers = []
        with connect(engine) as connection:
            for name in names:
                workers += connection.call(f"engine::workers::{verb}", {"name": name}, TIMEOUT_MS)["workers"]
        if as_json:
            write(shown_json({"workers": workers}))
            return
        for worker in workers:
            generation = f", generation {worker['generation']}" if worker.get("generation") else ""
            write(shown(f"{worker['name']}: {worker['state']}{generation}"))


_add("restart", "Start a new process of the worker.")
_add("stop", "Stop the worker until it is started again.")
_add("start", "Start a worker that was stopped or has failed.")
