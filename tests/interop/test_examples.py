"""The examples with the official SDKs, as their READMEs have them. Those that need npm or cargo are slow."""

from __future__ import annotations

import re
import shutil
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import official
from tests.support.dev_project import ROOT, Caller, Project, running_project
from tests.support.harness import BOUND

EXAMPLES = ROOT / "examples"
BUILD = 900.0  # seconds that a first build of the Rust worker may take on a busy machine
LISTEN = '[engine]\nlisten = "127.0.0.1:0"\n'


@pytest.fixture(autouse=True)
def build_beside_the_other_environments(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("CARGO_TARGET_DIR", str(official.CACHE / "rust-target"))
    monkeypatch.setenv("CARGO_PROFILE_DEV_DEBUG", "0")


def copied(name: str, folder: Path) -> Path:
    """Copy an example, and let its engine listen on a port that is free."""
    place = folder / name
    ignored = shutil.ignore_patterns("target", "node_modules", ".iii", ".venv")
    # New times for the files: cargo takes what is older than its last build for built.
    shutil.copytree(EXAMPLES / name, place, ignore=ignored, copy_function=shutil.copyfile)
    (place / "iii.toml").write_text(LISTEN + (place / "iii.toml").read_text())
    return place


def with_official_python(place: Path) -> None:
    """Give a copy the environment that its README makes."""
    (place / "official").mkdir()
    (place / "official" / ".venv").symlink_to(official.python_with("0.25.0").parent.parent)


def called(project: Project, function_id: str, data: Any) -> Any:
    """Call one function, as soon as it is there, and return its result; the test's own timeout bounds the wait.

    A program that is new to the engine counts as ready after some silence, whatever it is still building.
    """
    caller = project.caller()
    try:
        while (answer := caller.call(function_id, data)).get("error", {}).get("code") == "function_not_found":
            pass
        assert "error" not in answer, answer
        return answer["result"]
    finally:
        caller.close()


def test_the_official_python_worker_and_ours_call_each_other(tmp_path: Path) -> None:
    place = copied("official_python", tmp_path)
    with_official_python(place)
    with running_project(place) as project:
        assert called(project, "text::greet", {"name": "ada"}) == {"text": "HELLO ADA!", "version": 1}


@pytest.mark.slow
@pytest.mark.timeout(300)
def test_the_typescript_worker_answers_and_is_reloaded(tmp_path: Path) -> None:
    place = copied("official_node", tmp_path)
    subprocess.run(["npm", "install", "--no-audit", "--no-fund", "--loglevel=error"], cwd=place, check=True)
    with running_project(place) as project:
        lines = [{"name": "tea", "price": 3.5, "count": 2}]
        assert called(project, "cart::checkout", {"lines": lines}) == {"paid": 7}
        caller = project.caller()
        assert "nothing in the cart" in caller.call("cart::checkout", {"lines": []})["error"]["message"]
        caller.close()
        script = place / "cart.ts"
        script.write_text(script.read_text().replace("version: 1", "version: 2"))
        project.hear(r"cart\s+~.*reloaded", seconds=90)
        assert called(project, "cart::total", {"lines": lines}) == {"total": 7, "version": 2}


@pytest.mark.slow
@pytest.mark.timeout(1200)
def test_the_rust_worker_is_built_answers_and_keeps_serving_when_its_code_is_broken(tmp_path: Path) -> None:
    place = copied("rust", tmp_path)
    with running_project(place, BUILD) as project:
        assert called(project, "words::count", {"text": "one two three"}) == {"words": 3, "version": 1}
        source = place / "src" / "main.rs"
        good = source.read_text()
        source.write_text(good.replace("fn main", "fn mian"))
        project.hear(r"still serving", seconds=BUILD)
        assert called(project, "words::count", {"text": ""}) == {"words": 0, "version": 1}
        source.write_text(good.replace('"version": 1', '"version": 2'))
        project.hear(r"words\s+~.*reloaded", seconds=BUILD)
        assert called(project, "words::count", {"text": "a"}) == {"words": 1, "version": 2}


SOURCES = {
    "ours": "mixed/ours.py",
    "python": "mixed/official.py",
    "node": "mixed/official.mjs",
    "words": "rust/src/main.rs",
}


@pytest.fixture(scope="module")
def mixed(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    folder = tmp_path_factory.mktemp("mixed")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("CARGO_TARGET_DIR", str(official.CACHE / "rust-target"))
        patch.setenv("CARGO_PROFILE_DEV_DEBUG", "0")
        copied("rust", folder)
        place = copied("mixed", folder)
        with_official_python(place)
        (place / "node_modules").symlink_to(official.node_with() / "node_modules")
        with running_project(place, BUILD) as running:
            yield running


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("asking", SOURCES)
def test_each_of_the_four_calls_each(mixed: Project, asking: str) -> None:
    counts = {asked: called(mixed, f"{asking}::ask", {"of": f"{asked}::count"}) for asked in SOURCES}
    assert counts == {
        "ours": {"letters": 3, "version": 1},
        "python": {"lines": 1, "version": 1},
        "node": {"spaces": 2, "version": 1},
        "words": {"words": 3, "version": 1},
    }


@pytest.mark.slow
@pytest.mark.timeout(1200)
@pytest.mark.parametrize("name", SOURCES)
def test_a_reload_of_any_of_the_four_under_load_loses_no_call(mixed: Project, name: str) -> None:
    """Every other worker keeps calling the one that is reloaded, and itself through the engine."""
    is_over = threading.Event()
    outcomes: dict[str, list[dict[str, Any]]] = {asking: [] for asking in SOURCES}

    def load(asking: str) -> None:
        caller: Caller = mixed.caller()
        while not is_over.is_set():
            outcomes[asking].append(caller.call(f"{asking}::ask", {"of": f"{name}::count"}))
        caller.close()

    loading = [threading.Thread(target=load, args=(asking,)) for asking in SOURCES]
    for thread in loading:
        thread.start()
    script = mixed.folder.parent / SOURCES[name]
    script.write_text(re.sub(r'(version"?: )1', r"\g<1>2", script.read_text()))
    mixed.hear(rf"{name}\s+~.*reloaded", seconds=BUILD)
    assert called(mixed, f"{name}::count", {"text": "a"})["version"] == 2
    is_over.set()
    for thread in loading:
        thread.join(BOUND)
    for asking, seen in outcomes.items():
        assert [outcome for outcome in seen if "error" in outcome] == [], asking
        assert len(seen) > 10
        versions = [outcome["result"]["version"] for outcome in seen]
        assert versions == sorted(versions)
