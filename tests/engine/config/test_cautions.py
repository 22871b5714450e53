"""What a user is told although the project can run: files that others can write, environments that cannot be used."""

from __future__ import annotations

import os
import sys
from pathlib import Path

import pytest

from iii.engine.config.cautions import cautions_of
from iii.engine.config.project import load_project


def told(folder: Path, toml: str = "[workers.a]\nrun = 'a.py'\n", **environ: str) -> list[str]:
    folder.chmod(0o755)
    for name, text in {"iii.toml": toml, "a.py": ""}.items():
        if not (folder / name).exists():
            (folder / name).write_text(text)
    return cautions_of(load_project(folder / "iii.toml", environ=environ), environ)


def test_a_project_of_ones_own_has_none(tmp_path: Path) -> None:
    assert told(tmp_path) == []


@pytest.mark.parametrize("name", ["iii.toml", "a.py", ".env", "."])
def test_what_everybody_can_write_is_named(tmp_path: Path, name: str) -> None:
    (tmp_path / ".env").touch()
    told(tmp_path)
    (tmp_path / name).chmod(0o777)
    (said,) = cautions_of(load_project(tmp_path / "iii.toml", environ={}), {})
    assert said.startswith(f"{(tmp_path / name).resolve()} can be written by everybody: they can run code as ")


@pytest.mark.skipif(os.getuid() != 0, reason="only root can give files away")
def test_files_of_another_user_are_named_once(tmp_path: Path) -> None:
    told(tmp_path)
    for name in ("iii.toml", "a.py"):
        os.chown(tmp_path / name, 64123, 64123)
    (said,) = told(tmp_path)
    assert said.startswith(f"{tmp_path / 'iii.toml'} belongs to the user 64123, as 1 more of this project: ")


def test_an_environment_whose_interpreter_is_gone_is_named(tmp_path: Path) -> None:
    (tmp_path / ".venv/bin").mkdir(parents=True)
    (tmp_path / ".venv/bin/python").symlink_to("/opt/gone/python3")
    (said,) = told(tmp_path)
    python = tmp_path / ".venv/bin/python"
    assert said.startswith(f"a: {python} is a link to /opt/gone/python3, which is not there, so {sys.executable} runs ")


@pytest.mark.parametrize("kind", ["empty", "folder", "plain"])
def test_an_environment_without_an_interpreter_is_named(tmp_path: Path, kind: str) -> None:
    (tmp_path / ".venv/bin").mkdir(parents=True)
    python = tmp_path / ".venv/bin/python"
    if kind == "folder":
        python.mkdir()
    if kind == "plain":
        python.touch()
    (said,) = told(tmp_path)
    assert said.startswith(f"a: {python} is {'not there' if kind == 'empty' else 'no program'}, so ")


def test_a_virtual_env_of_the_shell_that_is_gone_is_named(tmp_path: Path) -> None:
    (said,) = told(tmp_path, VIRTUAL_ENV="/opt/gone")
    assert said.startswith("a: /opt/gone/bin/python is not there, so ")


def test_what_a_better_choice_hides_is_not_named(tmp_path: Path) -> None:
    (tmp_path / "w/.venv/bin").mkdir(parents=True)
    (tmp_path / "w/.venv/bin/python").symlink_to(sys.executable)
    (tmp_path / "w/a.py").touch()
    toml = f"[workers.a]\nrun = 'w/a.py'\n[workers.b]\nrun = 'a.py'\npython = '{sys.executable}'\n"
    assert told(tmp_path, toml, VIRTUAL_ENV="/opt/gone") == []


@pytest.mark.parametrize(
    ("keys", "said"),
    [
        ('run = "python missing.py"', "run: there is no file missing.py"),
        ('run = "python3.11 -u -B lib/missing.py --port 3"', "run: there is no file lib/missing.py"),
        ('run = "node web.mjs"', "run: there is no file web.mjs"),
        ('run = "sh ./start.sh"', "run: there is no file ./start.sh"),
        ('run = "bin/serve --fast"', "run: there is no file bin/serve"),
        ('run = "a.py"\npre = "python build.py"', "pre: there is no file build.py"),
        ('run = "python -m missing.py"', None),
        ('run = "python -c print(1.0)"', None),
        ('run = "python -W error a.py"', None),
        ('run = "python a.py other.py"', None),
        ('run = "sh -c ./start.sh"', None),
        ('run = "bin/serve"\npre = "sh a.py"', None),
    ],
)
def test_a_file_of_a_command_that_is_not_there_is_named(
    tmp_path: Path, programs: dict[str, str], keys: str, said: str | None
) -> None:
    text = f"[workers.b]\nrun = 'a.py'\n[workers.a]\n{keys}\n"
    way_out = f" in {tmp_path}; make it, or mend its path"
    assert told(tmp_path, text, **programs) == ([] if said is None else [f"iii.toml:3: a: {said}{way_out}"])


@pytest.fixture
def programs(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    """Return the environment of a shell that has these programs."""
    folder = tmp_path_factory.mktemp("bin")
    for name in ("python", "python3.11", "node", "sh"):
        (folder / name).touch(0o755)
    return {"PATH": str(folder)}
