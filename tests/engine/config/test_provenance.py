"""Where each value of a project comes from, and that no secret is told with it."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest

from iii.engine.config.project import load_project
from iii.engine.config.provenance import configuration_of
from iii.errors import ProjectError

TOML = """\
[engine]
invocation_timeout = "${WAIT:5s}"
[workers.shop]
run = "shop.py"
stop_timeout = "3s"
env = { MODE = "${MODE}", API_KEY = "abcdef-1" }
[workers.http.config]
port = 0
[profiles.prod.workers.shop]
stop_timeout = "9s"
"""


def written(folder: Path, toml: str = TOML, env: str = "MODE=fast\n") -> Path:
    """Write a project; return its file."""
    (folder / "shop.py").write_text("")
    (folder / ".env").write_text(env)
    (folder / "iii.toml").write_text(toml)
    return folder / "iii.toml"


def rows_of(file: Path, environ: dict[str, str] | None = None, **options: Any) -> dict[str, dict[str, Any]]:
    """Return the values by their keys."""
    return {row["key"]: row for row in configuration_of(file, environ or {}, **options)["values"]}


def test_a_value_has_its_line_its_variables_or_is_a_default(tmp_path: Path) -> None:
    rows = rows_of(written(tmp_path), {"WAIT": "7s"})
    stop = rows["workers.shop.stop_timeout"]
    assert (stop["value"], stop["source"], stop["file"], stop["line"], stop["column"]) == (
        "3s",
        "file",
        "iii.toml",
        5,
        1,
    )
    timeout = rows["engine.invocation_timeout"]
    assert (timeout["value"], timeout["source"]) == ("7s", "environment")
    assert timeout["variables"] == [{"name": "WAIT", "source": "shell"}]
    assert rows["workers.shop.env.MODE"]["variables"] == [{"name": "MODE", "source": ".env"}]
    memory = rows["engine.memory"]
    assert (memory["value"], memory["source"], memory.get("line")) == ("512MB", "default", None)
    assert (rows["workers.http.config.port"]["value"], rows["workers.http.config.port"]["line"]) == (0, 8)
    assert rows["workers.http.config.host"]["source"] == "default"
    assert "port" in rows["workers.http.config.port"]["description"]


def test_a_variable_that_is_not_set_is_said_to_be(tmp_path: Path) -> None:
    timeout = rows_of(written(tmp_path))["engine.invocation_timeout"]
    assert (timeout["value"], timeout["variables"]) == ("5s", [{"name": "WAIT", "source": "not set"}])


def test_the_profile_replaces_what_it_names(tmp_path: Path) -> None:
    file = written(tmp_path)
    stop = rows_of(file, profile="prod")["workers.shop.stop_timeout"]
    assert (stop["value"], stop["line"]) == ("9s", 10)
    assert not [key for key in rows_of(file) if key.startswith("profiles")]


def test_mistakes_are_those_of_the_check_and_what_is_written_is_still_listed(tmp_path: Path) -> None:
    file = written(tmp_path, TOML.replace('"3s"', "3") + "[workers.nobody]\n")
    with pytest.raises(ProjectError) as refused:
        load_project(file, environ={}, is_check=True)
    told = configuration_of(file, {})
    assert [mistake["text"] for mistake in told["mistakes"]] == [
        str(error) for error in (refused.value, *refused.value.others)
    ]
    assert len(told["mistakes"]) == 2
    assert {row["key"] for row in told["values"]} >= {"workers.shop.run", "workers.http.config.port"}


@pytest.mark.parametrize(
    "toml", ["[workers", "", "workers = 3\n", '[workers]\nshop = "x"\n', "[[workers.shop]]\nrun = 1\n"]
)
def test_a_file_that_makes_no_sense_has_mistakes_and_no_traceback(tmp_path: Path, toml: str) -> None:
    assert configuration_of(written(tmp_path, toml), {})["mistakes"]


SECRETS = [
    '[workers.shop]\nrun = "shop.py"\nenv = { API_KEY = "hunter2-hunter2" }\n',
    '[workers.shop]\nrun = "shop.py --password hunter2-hunter2"\n',
    '[workers.shop]\nrun = "shop.py"\nenv = { URL = "http://me:hunter2-hunter2@db/" }\n',
    '[workers.shop]\nrun = "shop.py"\nenv = { OTHER = "${DB_PASSWORD}" }\n',
    '[workers.shop]\nrun = "shop.py"\nenv = { OTHER = "a ${SHELL_TOKEN} b" }\n',
    '[workers.shop]\nrun = "shop.py"\nconfig = { deep = [{ secret = "hunter2-hunter2" }] }\n',
    '[workers.shop]\nrun = "shop.py"\nconfig = { token = 123456789 }\n',
    # Mistakes quote what is wrong.
    '[workers.shop]\nrun = "shop.py"\nstop_timeout = "${DB_PASSWORD}"\n',
    '[workers.shop]\nrun = "shop.py"\nenv = { API_KEY = 123456789 }\n',
    '[workers.shop]\nrun = "shop.py"\n[workers.shop.env]\nAPI_KEY = hunter2-hunter2\n',
    '[workers.shop]\nrun = "shop.py"\n[workers.shop.env]\nAPI_KEY = hunter2-hunter2' + "x" * 100 + "\n",
    '[cluster]\nservers = ["nats://me:hunter2-hunter2@host:4222"]\ntoken = "hunter2-hunter2"\n[workers.state]\n',
]


@pytest.mark.parametrize("toml", SECRETS)
def test_no_secret_leaves(tmp_path: Path, toml: str) -> None:
    file = written(tmp_path, toml, "DB_PASSWORD=hunter2-hunter2\n")
    environ = {"SHELL_TOKEN": "hunter2-hunter2", "PATH": "/bin"}
    told = configuration_of(file, environ, worker="shop" if "shop.py" in toml else "state")
    for answer in (told, configuration_of(file, environ)):
        assert "hunter2-hunter2" not in json.dumps(answer)
        assert "123456789" not in json.dumps(answer)


def test_a_worker_may_be_called_as_a_secret_is(tmp_path: Path) -> None:
    rows = rows_of(written(tmp_path, '[workers.token-service]\nrun = "shop.py"\n'))
    assert rows["workers.token-service.run"]["value"] == "shop.py"


def test_a_worker_has_its_environment_with_sources(tmp_path: Path) -> None:
    told = configuration_of(written(tmp_path), {"PATH": "/bin"}, worker="shop")
    assert {row["table"] for row in told["values"]} == {"workers.shop"}
    environment = told["environment"]
    assert environment["MODE"] == {"value": "fast", "source": "env"}
    assert environment["PATH"] == {"value": "/bin", "source": "shell"}
    assert environment["API_KEY"] == {"value": "[REDACTED]", "source": "env"}
    assert environment["III_WORKER_NAME"]["source"] == "reserved"
    with pytest.raises(KeyError):
        configuration_of(tmp_path / "iii.toml", {}, worker="nobody")


def test_what_is_listed_is_bounded(tmp_path: Path) -> None:
    many = "".join(f'v{number} = "{"x" * 50}"\n' for number in range(6000))
    told = configuration_of(written(tmp_path, f'{TOML}[workers.shop.config]\nlong = "{"y" * 5000}"\n{many}'), {})
    assert len(told["values"]) == 5000
    assert told["left_out"] > 1000
    assert max(len(str(row["value"])) for row in told["values"]) < 2100
