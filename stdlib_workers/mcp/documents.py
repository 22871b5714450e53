"""The pages of the documentation, which come with the package: their index `llms.txt`, and each by its name."""

from __future__ import annotations

import re
from pathlib import Path

FOLDER = Path(__file__).parents[2] / "docs"
INDEX = "llms.txt"
_PAGE = re.compile(r"- \[(?P<name>[a-z0-9/-]+)\.md\]\([^)]*\): (?P<summary>.*)")


def pages() -> dict[str, str]:
    """Return name -> summary of every page in the index; nothing where the documentation is not installed."""
    try:
        index = (FOLDER / INDEX).read_text(encoding="utf-8")
    except OSError:
        return {}
    return {found["name"]: found["summary"] for found in map(_PAGE.match, index.splitlines()) if found}


def page(name: str) -> str | None:
    """Return a page of the index as Markdown, None for any other name."""
    return (FOLDER / f"{name}.md").read_text(encoding="utf-8") if name in pages() else None
