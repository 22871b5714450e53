"""The generated modules: what they call, and that every contract gives code that parses, runs and type-checks."""

from __future__ import annotations

import asyncio
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, Phase, given, settings
from mypy import api

from cli.stubs.command import stubs_of
from cli.stubs.contract import Function
from tests.support.json_schemas import CONTRACTS

ORDER = {
    "type": "object",
    "properties": {
        "id": {"type": "string", "description": "Which one."},
        "from": {"type": "string"},
        "n": {"type": "integer"},
    },
    "required": ["id"],
    "additionalProperties": False,
}
FUNCTIONS = [
    Function("publish", "default", "", None, None),
    Function("shop::import", "default", 'Say "hello".', ORDER, {"type": "array", "items": ORDER}),
    Function("shop::list", "default", "", {"type": ["object", "null"], "properties": {}}, {"type": "array"}),
    Function("shop::list::old", "default", "", {"type": ["string", "null"]}, {"type": "null"}),
    Function("shop::open", "default", "", {"type": "object"}, None),
    Function("shop::order", "eu", "", {"type": "object", "required": ["id"]}, False),
]


class Recorder:
    """A worker that notes what is triggered."""

    def __init__(self) -> None:
        self.requests: list[Any] = []

    def trigger(self, request: Any) -> Any:
        self.requests.append(request)
        return request["function_id"]

    async def trigger_async(self, request: Any) -> Any:
        return self.trigger(request)


def loaded(text: str) -> dict[str, Any]:
    """Run a generated module."""
    module: dict[str, Any] = {"__name__": "generated"}
    exec(compile(text, "generated", "exec"), module)
    return module


def test_a_method_sends_what_it_is_given_and_leaves_out_what_it_is_not() -> None:
    worker = Recorder()
    module = loaded(stubs_of(FUNCTIONS, "python")["__init__.py"])
    functions = module["Functions"](worker)
    assert functions.shop.import_(id="7", from_="ada") == "shop::import"
    functions.shop.list()
    functions.shop.list.old()
    functions.shop.list.old("x")
    functions.shop.open(a=1)
    functions.publish("text")
    functions.publish(a=1)
    module["EuFunctions"](worker, timeout_ms=50).shop.order(id=2)
    assert worker.requests == [
        {"function_id": "shop::import", "payload": {"id": "7", "from": "ada"}},
        {"function_id": "shop::list", "payload": {}},
        {"function_id": "shop::list::old", "payload": None},
        {"function_id": "shop::list::old", "payload": "x"},
        {"function_id": "shop::open", "payload": {"a": 1}},
        {"function_id": "publish", "payload": "text"},
        {"function_id": "publish", "payload": {"a": 1}},
        {"function_id": "shop::order", "payload": {"id": 2}, "namespace": "eu", "timeout_ms": 50},
    ]
    with pytest.raises(TypeError):
        functions.shop.import_(ident="7")


def test_the_twin_is_awaited() -> None:
    worker = Recorder()
    functions = loaded(stubs_of(FUNCTIONS, "python")["__init__.py"])["AsyncFunctions"](worker)
    assert asyncio.run(functions.shop.import_(id="7")) == "shop::import"
    assert worker.requests == [{"function_id": "shop::import", "payload": {"id": "7"}}]


def test_descriptions_are_docstrings() -> None:
    module = loaded(stubs_of(FUNCTIONS, "python")["__init__.py"])
    text = module["Functions"](Recorder()).shop.import_.__doc__
    assert text.split() == ["Say", '"hello".', "Args:", "id:", "Which", "one."]
    assert "/** Which one. */" in stubs_of(FUNCTIONS, "typescript")["index.d.ts"]


def mypy(cache: Path, script: Path) -> str:
    """Return what mypy says. It deepens this process's recursion limit, by which other tests are judged."""
    limit = sys.getrecursionlimit()
    try:
        return api.run(["--strict", "--no-site-packages", "--cache-dir", str(cache), str(script)])[0]
    finally:
        sys.setrecursionlimit(limit)


def checked(folder: Path, text: str) -> str:
    """Return what mypy says of a script beside the stubs."""
    script = folder / "script.py"
    script.write_text(
        f"from iii_functions import Functions, Caller\n\n\ndef use(functions: Functions) -> None:\n    {text}\n"
    )
    return mypy(folder / "cache", script)


def test_a_type_checker_accepts_right_calls_and_refuses_wrong_ones(tmp_path: Path, monkeypatch: Any) -> None:
    package = tmp_path / "iii_functions"
    package.mkdir()
    for name, text in stubs_of(FUNCTIONS, "python").items():
        (package / name).write_text(text)
    monkeypatch.chdir(tmp_path)
    right = 'n: int = functions.shop.import_(id="7", n=1)[0]["n"]; functions.shop.list(); functions.shop.open(a=1)'
    assert "Success" in checked(tmp_path, right)
    for wrong, said in {
        "functions.shop.import_()": 'Missing named argument "id"',
        "functions.shop.import_(id=7)": 'expected "str"',
        'functions.shop.import_(id="7", m=1)': "Unexpected keyword",
        'functions.shop.import_(id="7")[0]["m"]': 'has no key "m"',
        "functions.shop.lost()": 'has no attribute "lost"',
    }.items():
        assert said in checked(tmp_path, wrong), wrong


# Shrinking would type-check hundreds of modules; a failing contract is short enough to read.
@settings(max_examples=12, phases=[Phase.explicit, Phase.reuse, Phase.generate],
          suppress_health_check=list(HealthCheck))  # fmt: skip
@given(CONTRACTS)
def test_every_contract_gives_python_that_runs_and_type_checks(
    tmp_path_factory: Any, functions: list[Function]
) -> None:
    text = stubs_of(functions, "python")["__init__.py"]
    module = loaded(text)
    module["Functions"](Recorder())
    module["AsyncFunctions"](Recorder())
    assert stubs_of(list(functions), "python")["__init__.py"] == text
    folder = tmp_path_factory.mktemp("generated")
    (folder / "generated.py").write_text(text)
    cache = tmp_path_factory.getbasetemp() / "mypy"
    assert mypy(cache, folder / "generated.py").startswith("Success")


def test_a_part_of_an_id_that_objects_have_already_is_still_reached_from_javascript(tmp_path: Path) -> None:
    """Runs where node is; tests/interop type-checks the declarations."""
    import shutil

    if shutil.which("node") is None:
        pytest.skip("node is not installed")
    ids = ["__proto__::x", "a", "a::name", "a::length", "constructor::y", "get-user"]
    functions = [Function(id, "default", "", None, None) for id in ids]
    files = stubs_of(functions, "typescript")
    for name, text in files.items():
        (tmp_path / name).write_text(text)
    (tmp_path / "call.mjs").write_text(
        "import { functions } from './index.js'\n"
        "const f = functions({ trigger: async ({ function_id, payload }) => [function_id, payload] })\n"
        "const all = [f['__proto__'].x(), f.a(1), f.a.name(), f.a.length(), f.constructor.y(), f['get-user']()]\n"
        "console.log(JSON.stringify(await Promise.all(all)))\n"
    )
    done = subprocess.run(["node", "call.mjs"], cwd=tmp_path, capture_output=True, text=True, timeout=30, check=True)
    assert done.stdout == (
        '[["__proto__::x",{}],["a",1],["a::name",{}],["a::length",{}],["constructor::y",{}],["get-user",{}]]\n'
    )


def test_the_python_stubs_need_nothing_but_the_standard_library(tmp_path: Path) -> None:
    (tmp_path / "iii_functions.py").write_text(stubs_of(FUNCTIONS, "python")["__init__.py"])
    subprocess.run([sys.executable, "-I", "-S", "-c", "import sys; sys.path.append('.'); import iii_functions"],
                   cwd=tmp_path, check=True)  # fmt: skip
