"""`iii explain`: every code that the source can produce has an entry, and every entry a code."""

from __future__ import annotations

import ast
import json
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from cli.project.explain import entries
from stdlib_workers.stream.functions import CODES
from tests.support.command import Iii
from tests.support.live_project import ROOT

# What takes a code, and which argument of it that is.
PLACES = {
    "ErrorBody": 0,
    "InvocationError": 0,
    "LocalProtocolError": 0,
    "NotAMessage": 0,
    "ObserveRejection": 0,
    "Refusal": 1,
    "Rejected": 0,
    "RemoteProtocolError": 0,
    "map_storage_errors": 0,
}
# Texts that stand in such places and are no codes of errors.
OTHERS = {"error", "STATUS_CODE_ERROR"}
# Dictionaries that name the code of each function's failures.
TABLE_ENTRY = re.compile(r"[A-Z][A-Z_]+_ERROR|[a-z]+(_[a-z]+)*_failed")


def text_of(node: ast.AST | None) -> list[str]:
    parts = [node.body, node.orelse] if isinstance(node, ast.IfExp) else [node]
    return [part.value for part in parts if isinstance(part, ast.Constant) and isinstance(part.value, str)]


def codes_of(node: ast.AST) -> Iterator[str]:
    if isinstance(node, ast.Call):
        name = node.func.id if isinstance(node.func, ast.Name) else getattr(node.func, "attr", "")
        place = PLACES.get(name)
        if place is not None and len(node.args) > place:
            yield from text_of(node.args[place])
        for keyword in node.keywords:
            if keyword.arg == "code" or (keyword.arg or "").endswith("_code"):
                yield from text_of(keyword.value)
    elif isinstance(node, ast.Dict):
        for key, value in zip(node.keys, node.values, strict=True):
            if text_of(key) == ["code"] or any(map(TABLE_ENTRY.fullmatch, text_of(value))):
                yield from text_of(value)
    elif isinstance(node, ast.ClassDef) and node.name == "ErrorCode":
        yield from (text for line in node.body if isinstance(line, ast.Assign) for text in text_of(line.value))


def produced() -> dict[str, Path]:
    """Return each code that the source can produce, with a file that does."""
    found = dict.fromkeys(CODES.values(), Path("stdlib_workers/stream/functions.py"))
    for folder in ("iii", "stdlib_workers"):
        for file in sorted((ROOT / folder).rglob("*.py")):
            for node in ast.walk(ast.parse(file.read_text(encoding="utf-8"))):
                found |= dict.fromkeys(codes_of(node), file.relative_to(ROOT))
    return {code: file for code, file in found.items() if code not in OTHERS and " " not in code}


def test_every_code_that_the_source_can_produce_is_explained() -> None:
    codes = produced()
    assert len(codes) > 100
    assert {code: str(file) for code, file in codes.items() if code not in entries()} == {}


def test_nothing_is_explained_that_does_not_exist() -> None:
    sources = [file.read_text() for folder in ("iii", "stdlib_workers") for file in (ROOT / folder).rglob("*.py")]
    texts = "\n".join(sources)
    known = produced()
    assert [code for code in entries() if code not in known and f'"{code}"' not in texts] == []


@pytest.mark.parametrize("code", sorted(entries()))
def test_an_entry_says_what_it_means_and_what_to_do(code: str) -> None:
    meaning, way_out = entries()[code]
    assert meaning.endswith(".")
    assert way_out.endswith(".")


def test_the_command(iii: Iii) -> None:
    done = iii("explain", "timeout")
    assert done.returncode == 0
    assert done.stdout.startswith("TIMEOUT\n  The call had a deadline")
    assert "\n  Way out: give the call more time" in done.stdout
    assert json.loads(iii("explain", "CONFLICT", "--json").stdout)["code"] == "CONFLICT"
    assert "function_not_found" in iii("explain").stdout.split()


def test_a_code_that_is_not_ours(iii: Iii) -> None:
    done = iii("explain", "functon_not_found")
    assert done.returncode == 2
    assert "did you mean function_not_found?" in done.stderr
    assert "the function that failed has made it" in iii("explain", "out_of_stock").stderr
