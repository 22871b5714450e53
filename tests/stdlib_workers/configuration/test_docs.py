"""The page about configuration runs as it stands, and its tables agree with the code."""

from __future__ import annotations

import json
import re
import shlex
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from iii.arguments import CONFIG_PROPERTIES
from iii.declarations import load_declarations
from stdlib_workers.configuration import functions
from stdlib_workers.configuration.entries import MAX_BYTES
from tests.support.live_project import BOUND, ROOT, project

PAGE = (ROOT / "docs" / "configuration.md").read_text(encoding="utf-8")


def block(language: str) -> str:
    """Return the first block of the page in a language."""
    found = re.search(rf"^```{language}\n(.*?)^```", PAGE, re.DOTALL | re.MULTILINE)
    assert found
    return found[1]


def rows_of(section: str) -> dict[str, list[str]]:
    """Return the words in code of each row of a section's table, by the first of them."""
    [body] = re.findall(rf"## {section}\n(.*?)(?:\n## |\Z)", PAGE, re.DOTALL)
    rows = [re.findall(r"`([^`]+)`", line) for line in body.splitlines() if line.startswith("| `")]
    return {row[0]: row[1:] for row in rows}


def schema_of(worker: str) -> dict[str, Any]:
    properties: dict[str, Any] = json.loads(
        (ROOT / "stdlib_workers" / worker / "config.schema.json").read_text(encoding="utf-8")
    )["properties"]
    return properties


def test_the_page_runs(tmp_path: Path) -> None:
    (tmp_path / "shop.py").write_text(block("python"))
    commands = [line.removeprefix("$ ") for line in block("console").splitlines()]
    with project(tmp_path, '[engine]\nlisten = "off"\n' + block("toml"), {}) as running:
        outputs = []
        for command in commands:
            program, *arguments = shlex.split(command)
            assert program == "iii"
            done = subprocess.run(
                [sys.executable, "-m", "cli.main", *arguments],
                cwd=tmp_path,
                env={"PATH": "/usr/bin:/bin", "PYTHONPATH": str(ROOT)},
                capture_output=True,
                text=True,
                timeout=BOUND,
                check=True,
            )
            outputs.append(done.stdout)
        running.wait("the currency is SEK")
        running.wait("the currency is EUR")
        assert running.call("configuration::get", {"id": "shop"})["value"] == {"currency": "EUR"}
    assert "What the shop charges." in outputs[0]
    assert json.loads(outputs[1]) == {"currency": "EUR", "vat": 25}
    assert json.loads(outputs[2])["vat"] == "${VAT:25}"


def test_the_page_has_every_function_code_key_and_limit() -> None:
    told = rows_of("Functions")
    folder = Path(functions.__file__).parent
    declared = load_declarations(folder)
    assert set(told) == declared.functions.keys() - {"configuration::on-functions-available"}
    source = "".join(path.read_text(encoding="utf-8") for path in folder.glob("*.py"))
    codes = set(re.findall(r'InvocationError\(\s*"([A-Z_]+)"', source))
    assert codes <= {word for row in told.values() for word in row}
    assert f"{MAX_BYTES >> 20} MiB at most, and there are {functions.MAX_CONFIGURATIONS} at most" in PAGE
    properties = declared.trigger_types["configuration"]["trigger_request_format"]["properties"]
    assert set(rows_of("Trigger")) == properties.keys() - CONFIG_PROPERTIES.keys()
    assert set(rows_of("Config")) == set(schema_of("configuration"))


@pytest.mark.parametrize("worker", ["http", "queue", "observability"])
def test_the_page_has_every_key_that_changes_live(worker: str) -> None:
    live = {key for key, field in schema_of(worker).items() if field.get("x-live")}
    assert set(rows_of("Standard workers")[worker]) == live
