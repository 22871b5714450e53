"""Who follows a how-to literally ends at its last line; what a page says to write elsewhere is at least well formed."""

from __future__ import annotations

import json
import re
import tomllib
from pathlib import Path

import pytest
import yaml

from tests.support.live_project import ROOT, free_ports
from tests.support.tutorial import following

PAGES = sorted((ROOT / "docs/how-to").glob("*.md"))
FOLLOWED = ("operate", "monitor", "debug", "ci", "projects", "secrets")
BLOCK = re.compile(r"^```(\w+)\n(.*?)^```$", re.MULTILINE | re.DOTALL)


def test_every_how_to_is_followed_or_has_tests_of_its_own() -> None:
    assert {page.stem for page in PAGES} == {*FOLLOWED, "deploy"}  # tests/test_deployment.py


@pytest.mark.timeout(300)
@pytest.mark.parametrize("name", FOLLOWED)
def test_a_how_to_works_as_it_is_written(name: str, tmp_path: Path) -> None:
    ports = free_ports("prometheus")
    page = ROOT / f"docs/how-to/{name}.md"
    with following(page, tmp_path, {"9464": str(ports["prometheus"])}) as follower:
        assert follower.steps >= 3


@pytest.mark.parametrize("page", PAGES, ids=lambda page: page.stem)
def test_files_for_others_can_be_read(page: Path) -> None:
    for kind, text in BLOCK.findall(page.read_text(encoding="utf-8")):
        if kind == "toml":
            assert tomllib.loads(text)
        elif kind == "yaml":
            assert yaml.safe_load(text)


def test_the_configuration_for_an_editor_is_json_with_comments() -> None:
    text = (ROOT / "cli/project/templates/common/launch.json").read_text(encoding="utf-8")
    names = [each["name"] for each in json.loads(re.sub(r"^\s*//.*$", "", text, flags=re.MULTILINE))["configurations"]]
    assert len(names) == 2
