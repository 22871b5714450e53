"""`iii console`: open the running project's page in a browser, or print its link."""

from __future__ import annotations

import os
import sys
import webbrowser
from html import escape
from pathlib import Path

import click

from cli.client.connection import connect
from cli.client.discovery import running_engine
from cli.client.errors import UsageError
from cli.commands.options import file_option, json_option
from cli.commands.project_file import project_file
from cli.text.output import shown_json, write
from iii.errors import EngineNotRunning, InvocationError
from iii.one_time_keys import make_key, private_folder

OPENER = "<!doctype html><meta charset=utf-8><meta name=referrer content=no-referrer><title>iii console</title>"


@click.command("console")
@click.option("--link", "only_link", is_flag=True, help="Print the link instead of opening a browser.")
@file_option
@json_option
def command(only_link: bool, file: Path | None, as_json: bool) -> None:
    """Open the page that shows what the project does. Its link is good for one browser, once."""
    root = project_file(file).absolute().parent
    engine = running_engine(str(root))
    if not engine:
        raise EngineNotRunning(f"no engine is running in {root}; start one with `iii dev`")
    address = engine.get("console") or _address_of_worker(engine)
    try:
        link = f"{address}/#key={make_key(root / '.iii')}"
        if as_json or only_link or not _is_opened(root / ".iii", link):
            write(shown_json({"link": link}) if as_json else link)
        else:
            write(f"opened {address}")
    except OSError as error:
        raise UsageError(
            f"{error.filename} cannot be written: {error.strerror}", "make .iii a folder of yours"
        ) from None


def _address_of_worker(engine: dict[str, str]) -> str:
    """Return the address of a console that the project has named since its engine started."""
    try:
        with connect(engine["socket"]) as connection:
            address: str = connection.call("console::about", None)["address"]
            return address
    except InvocationError:
        hint = "run `iii add console`, or `iii dev` without --no-console"
        raise UsageError("this project has no console", hint) from None


def _is_opened(state_dir: Path, link: str) -> bool:
    """Open the link in a browser, if there is one; return whether that was done.

    The browser is started with a file that leads on to the link: a command line is seen by everybody on the machine.
    """
    has_screen = sys.platform == "darwin" or os.environ.get("DISPLAY") or os.environ.get("WAYLAND_DISPLAY")
    if not has_screen and not os.environ.get("BROWSER"):
        return False
    opener = private_folder(state_dir, "console") / "open.html"
    opener.unlink(missing_ok=True)
    with open(os.open(opener, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600), "w", encoding="utf-8") as page:
        page.write(
            f'{OPENER}<meta http-equiv=refresh content="0; url={escape(link)}"><a href="{escape(link)}">open</a>'
        )
    return webbrowser.open(opener.as_uri())
