"""`iii types` as a real process against a fake engine: where stubs go, and what is said when they cannot be made."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from tests.support.command import Iii
from tests.support.fake_engine import FakeEngine, Refused


def ready(engine: FakeEngine) -> FakeEngine:
    """Let the fake engine answer for several functions at once, as the real one does."""

    def info(data: Any) -> Any:
        if "function_ids" not in data:
            return engine.infos[data["function_id"]]
        rows = [engine.infos[id] for id in data["function_ids"]]
        return {"functions": rows}

    engine.functions["engine::functions::info"] = info
    return engine


def test_stubs_go_beside_the_workers_and_are_written_once(engine: FakeEngine, iii: Iii, folder: Path) -> None:
    ready(engine)
    (folder / "workers").mkdir()
    (folder / "workers" / "math.py").write_text("")
    (folder / "web").mkdir()
    (folder / "web" / "page.mjs").write_text("")
    (folder / "iii.toml").write_text(
        '[workers.math]\nrun = "workers/math.py"\n[workers.page]\nrun = "node web/page.mjs"\n[workers.state]\n'
    )
    done = iii("types")
    assert done.stderr == ""
    assert done.stdout == "wrote workers/iii_functions: 1 function\nwrote web/iii_functions: 1 function\n"
    assert "def add(self, *, a: float, b: float = UNSET)" in (folder / "workers/iii_functions/__init__.py").read_text()
    assert "add(payload: MathAddPayload" in (folder / "web/iii_functions/index.d.ts").read_text()
    assert iii("types").stdout.startswith("unchanged: workers/iii_functions: 1 function\n")
    assert json.loads(iii("types", "--json").stdout) == {
        "functions": 1,
        "folders": ["workers/iii_functions", "web/iii_functions"],
        "written": [],
    }
    assert iii("types", "--check").stdout == "unchanged: 1 function\n"
    (folder / "web/iii_functions/index.js").write_text("// of another version\n")
    done = iii("types", "--check")
    assert (done.returncode, done.stdout) == (
        1,
        "web/iii_functions is not what this version writes; run `iii types`\n",
    )
    del engine.infos["math::add"]
    done = iii("types", "--check")
    assert (done.returncode, done.stdout) == (1, "breaking    math::add  is gone\n")


def said(iii: Iii, *words: str) -> tuple[int, str]:
    done = iii("types", *words)
    assert done.stdout == ""
    return done.returncode, done.stderr


def test_without_an_engine_the_way_to_one_is_shown(iii: Iii) -> None:
    assert said(iii) == (3, "error: no engine is running; start one with `iii dev`\n")


def test_where_stubs_go_has_to_be_clear(engine: FakeEngine, iii: Iii, folder: Path) -> None:
    ready(engine)
    for place in ("a", "b"):
        (folder / place).mkdir()
        (folder / place / f"{place}.py").write_text("")
    (folder / "iii.toml").write_text("[workers.state]\n")
    assert said(iii) == (
        2,
        "error: no worker of this project is Python or TypeScript\ngive --python DIR or --typescript DIR\n",
    )
    (folder / "iii.toml").write_text('[workers.a]\nrun = "a/a.py"\n[workers.b]\nrun = "b/b.py"\n')
    assert said(iii) == (2, "error: the python workers are in several folders: a, b\ngive --python DIR\n")
    assert said(iii, "--check", "--python", "x") == (2, "error: there are no stubs in x\nwrite them with `iii types`\n")
    (folder / "x").write_text("")
    assert said(iii, "--python", "x") == (2, "error: x cannot be written: File exists\n")


def test_nothing_is_written_while_functions_are_missing(engine: FakeEngine, iii: Iii, folder: Path) -> None:
    ready(engine).functions["engine::workers::list"] = lambda _: {
        "workers": [{"name": "web", "state": "failed"}, {"name": "math", "state": "ready"}, {"name": "guest"}]
    }
    assert said(iii, "--python", "x") == (
        2,
        "error: functions would be missing from the stubs: web is failed\nsee `iii ps`, then try again\n",
    )
    assert not (folder / "x").exists()


def test_a_contract_that_is_none_is_named(engine: FakeEngine, iii: Iii, folder: Path) -> None:
    ready(engine)
    (folder / "x").mkdir()
    for text in ("", "[]", '{"format": 2}', '{"format": 1, "functions": [{}]}'):
        (folder / "x" / "functions.json").write_text(text)
        assert "x/functions.json is not what `iii types` has written" in said(iii, "--check", "--python", "x")[1]


def test_a_refusal_of_the_engine_is_an_error(engine: FakeEngine, iii: Iii) -> None:
    def refuse(_: Any) -> Any:
        raise Refused("forbidden", "not for you")

    engine.functions["engine::functions::list"] = refuse
    assert said(iii, "--python", "x")[0] == 1
