"""The code blocks of docs/ run as they stand: in order, one page at a time."""

from __future__ import annotations

import re
import sys
import types
from pathlib import Path
from threading import Event
from time import monotonic

import pytest

from cli.stubs.command import PACKAGE, stubs_of, write_files
from cli.stubs.contract import contract_from
from iii.testing import Engine
from iii.worker.connect import STAND_IN

ROOT = Path(__file__).resolve().parents[2]
BOUND = 20.0


def python_of(page: str) -> list[tuple[int, str]]:
    """The Python blocks of a page, each with the line it starts at."""
    text = (ROOT / "docs" / page).read_text(encoding="utf-8")
    blocks = re.finditer(r"^```python\n(.*?)^```", text, re.DOTALL | re.MULTILINE)
    return [(text.count("\n", 0, block.start(1)), block[1]) for block in blocks]


def wait_until(condition) -> None:
    """What a page uses where something happens on another thread."""
    deadline = monotonic() + BOUND
    while not condition():
        assert monotonic() < deadline, "it never became true"
        Event().wait(0.001)


def write_stubs(engine, folder):
    """Write the stubs of what the page has registered, as `iii types` does."""
    ids = [each["function_id"] for each in engine.call("engine::functions::list")["functions"]]
    rows = engine.call("engine::functions::info", function_ids=ids)["functions"]
    write_files(folder / PACKAGE, stubs_of(contract_from(rows), "python"))


# What a page needs beside its own worker.
STANDARD_WORKERS = {"actions.md": ["queue"], "handlers.md": ["queue"]}
PAGES = [
    *("functions.md", "schemas.md", "triggers.md", "actions.md", "streaming.md", "cancellation.md", "tracing.md"),
    *("http-functions.md", "observe.md", "testing.md", "handlers.md", "mcp.md", "types.md"),
]


@pytest.mark.parametrize("page", PAGES)
def test_the_blocks_of_a_page_run(page, monkeypatch, tmp_path):
    blocks = python_of(page)
    assert blocks
    # Dataclasses look their module up.
    module = types.ModuleType("page")
    monkeypatch.setitem(sys.modules, "page", module)
    with Engine(STANDARD_WORKERS.get(page, ())) as engine:
        token = STAND_IN.set(lambda options: engine.worker("page"))
        vars(module).update(iii=engine, wait_until=wait_until)
        try:
            for line, block in blocks:
                if "from iii_functions import" in block:
                    write_stubs(engine, tmp_path)
                    monkeypatch.syspath_prepend(tmp_path)
                exec(compile("\n" * line + block, page, "exec"), vars(module))
                engine.settle()  # a reader comes to the next block later
        finally:
            STAND_IN.reset(token)
            sys.modules.pop(PACKAGE, None)


def test_the_channels_of_their_page_stream(tmp_path):
    from tests.support.live_project import project

    script = "".join(block for _, block in python_of("channels.md"))
    with project(tmp_path, '[workers.report]\nrun = "report.py"\n', {"report": script}) as running:
        assert running.call("report::print") == ["3 rows follow", "row 0\nrow 1\nrow 2\n"]
        assert running.call("report::print_async") == ["row 0\n", "row 1\n", "row 2\n"]
