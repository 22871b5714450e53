"""The page about flows runs as it stands, and its tables agree with the code."""

from __future__ import annotations

import json
import re
from typing import Any

from stdlib_workers.flow.model import State
from tests.support.live_project import ROOT

PAGE = (ROOT / "docs" / "flows.md").read_text(encoding="utf-8")
FLOW = ROOT / "stdlib_workers" / "flow"


def rows_of(section: str) -> set[str]:
    [body] = re.findall(rf"## {section}\n(.*?)(?:\n## |\Z)", PAGE, re.DOTALL)
    return {
        word for cell in re.findall(r"^\| (`[^|]*) \|", body, re.MULTILINE) for word in re.findall(r"`([^`]+)`", cell)
    }


def test_the_blocks_of_the_page_run() -> None:
    blocks = re.findall(r"^```python\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    assert len(blocks) > 4
    names: dict[str, Any] = {"__name__": "page"}
    exec(compile("\n".join(blocks), "docs/flows.md", "exec"), names)


def test_the_tables_name_every_key_and_every_state() -> None:
    schema = json.loads((FLOW / "config.schema.json").read_text(encoding="utf-8"))
    assert rows_of("Config") == set(schema["properties"])
    assert rows_of("Looking and mending") == {state.name.lower() for state in State}
