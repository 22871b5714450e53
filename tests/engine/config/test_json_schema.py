"""The JSON Schema of iii.toml agrees with what `load_project` takes, and its file is private and left alone."""

from __future__ import annotations

import json
import tomllib
from pathlib import Path

import jsonschema
import pytest

from iii.engine.config.json_schema import schema, write_schema
from iii.errors import ProjectError

VALID = """
[engine]
listen = "off"
[workers.a]
run = "ls"
watch = false
env_file = ["x"]
ready_timeout = "1.5s"
max_memory = "512MB"
[workers.http.config]
port = 1
[profiles.big.workers.a]
instances = 8
"""


def test_the_schema_is_valid_and_accepts_a_project() -> None:
    jsonschema.Draft202012Validator.check_schema(schema())
    jsonschema.validate(tomllib.loads(VALID), schema())


@pytest.mark.parametrize(
    "line",
    ["restrat = 'never'", "restart = 'no'", "instances = 0", "ready_timeout = 5", "watch = true", "env = {A = 1}"],
)
def test_the_schema_refuses_what_loading_refuses(line: str) -> None:
    with pytest.raises(jsonschema.ValidationError):
        jsonschema.validate(tomllib.loads(f"[workers.a]\nrun = 'ls'\n{line}"), schema())


def test_the_file_is_private_ignored_by_git_and_written_once(tmp_path: Path) -> None:
    path = write_schema(tmp_path / ".iii")
    assert json.loads(path.read_text()) == schema()
    assert (path.stat().st_mode & 0o777, path.parent.stat().st_mode & 0o777) == (0o600, 0o700)
    assert (tmp_path / ".iii" / ".gitignore").read_text() == "*\n!.gitignore\n!iii.schema.json\n"
    before = path.stat().st_mtime_ns
    (tmp_path / ".iii" / ".gitignore").write_text("mine\n")
    assert write_schema(tmp_path / ".iii").stat().st_mtime_ns == before
    assert (tmp_path / ".iii" / ".gitignore").read_text() == "mine\n"


def test_nothing_is_written_behind_a_link(tmp_path: Path) -> None:
    elsewhere = tmp_path / "elsewhere"
    elsewhere.mkdir()
    (tmp_path / ".iii").symlink_to(elsewhere)
    with pytest.raises(ProjectError, match="is not a directory of yours"):
        write_schema(tmp_path / ".iii")
    assert list(elsewhere.iterdir()) == []
    (tmp_path / "state").mkdir()
    (tmp_path / "state/iii.schema.json").symlink_to(elsewhere / "theirs")
    with pytest.raises(ProjectError, match="cannot be written: this is a symbolic link"):
        write_schema(tmp_path / "state")
    assert list(elsewhere.iterdir()) == []


def test_the_config_of_a_standard_worker_is_described_with_its_table() -> None:
    validator = jsonschema.Draft202012Validator(schema())
    assert validator.is_valid(
        {"workers": {"http": {"config": {"port": 3111}}, "mine": {"run": "a", "config": {"x": 1}}}}
    )
    assert not validator.is_valid({"workers": {"http": {"config": {"prot": 3111}}}})
    assert validator.is_valid({"workers": {"http": {"run": "my_http.py", "config": {"prot": 3111}}}})
