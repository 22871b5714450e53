"""Notes that the running engine has another version than this command, which explains what then goes wrong.

Not part of the short path: `iii ps` notes it, and the report of a failed call.
"""

from __future__ import annotations

import os

from cli.client.discovery import running_engine
from cli.text.output import shown, write_error
from iii.version import VERSION


def note_other_version() -> None:
    """Write a note to stderr if the versions differ."""
    version = str(running_engine(os.getcwd()).get("version", VERSION))
    if version != VERSION:
        text = f"note: the engine is iii {version} and this is iii {VERSION}; stop it and start it anew"
        write_error(shown(text))
