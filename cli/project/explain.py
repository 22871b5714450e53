"""`iii explain CODE`: what an error code means and what to do, as the documentation's page of all codes says it."""

from __future__ import annotations

import re
import shutil
from pathlib import Path

import click

from cli.client.errors import UsageError
from cli.commands.options import json_option
from cli.text.output import shown_json, write
from iii.suggestions import nearest_names

# Beside the package, in a checkout and in an installation.
PAGE = Path(__file__).parents[2] / "docs/reference/errors.md"

_ENTRY = re.compile(r"^### (`[^\n]+`)\n\n(.+?)(?=\n##|\Z)", re.MULTILINE | re.DOTALL)
_WAY_OUT = "**Way out:** "
_LINK = re.compile(r"\[([^\]]+)\]\((?:\.\./)*([^)]+)\)")


def entries() -> dict[str, tuple[str, str]]:
    """Return what each code means and the way out, by code."""
    found: dict[str, tuple[str, str]] = {}
    for heading, text in _ENTRY.findall(PAGE.read_text(encoding="utf-8")):
        meaning, _, way_out = _LINK.sub(r"\1 (docs/\2)", text.strip()).partition(_WAY_OUT)
        for code in re.findall(r"`([^`]+)`", heading):
            found[code] = (_one_line(meaning), _one_line(way_out))
    return found


def _one_line(text: str) -> str:
    return " ".join(text.split())


@click.command("explain")
@click.argument("code", required=False)
@json_option
def command(code: str | None, as_json: bool) -> None:
    """Say what an error CODE means and what to do; without CODE list all codes."""
    known = entries()
    if code is None:
        write(shown_json(list(known)) if as_json else "\n".join(known))
        return
    # `TIMEOUT` and `timeout` are no two things to who types them.
    names = [name for name in known if name == code] or [name for name in known if name.lower() == code.lower()]
    if not names:
        near = nearest_names(code, known)
        hint = (
            f"did you mean {near[0]}?" if near else "it is no code of iii's own: the function that failed has made it"
        )
        raise UsageError(f"there is no error code {code!r} in iii", hint)
    for name in names:
        meaning, way_out = known[name]
        if as_json:
            write(shown_json({"code": name, "meaning": meaning, "way_out": way_out}))
        else:
            write(f"{name}\n{_wrapped(meaning)}\n\n{_wrapped(f'Way out: {way_out}')}")


def _wrapped(text: str) -> str:
    width = min(shutil.get_terminal_size().columns, 100)
    return click.wrap_text(text, width=width, initial_indent="  ", subsequent_indent="  ")
