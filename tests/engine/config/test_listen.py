"""Where a worker listens: `listen` of its table, or host and port of the http worker's config."""

from __future__ import annotations

from pathlib import Path

import pytest

from iii.engine.config.project import load_project
from iii.engine.config.spec import WorkerSpec
from iii.errors import ProjectError


def worker(folder: Path, text: str, name: str = "http") -> WorkerSpec:
    (folder / "a.py").touch()
    (folder / "iii.toml").write_text(f"[workers.{name}]\n{text}")
    return load_project(folder / "iii.toml", environ={}).workers[name]


@pytest.mark.parametrize(
    ("text", "listen", "is_default"),
    [
        ("", "127.0.0.1:3111", True),
        ("config.port = 80", "127.0.0.1:80", False),
        ("config.port = 0", "127.0.0.1:0", False),
        ('config.host = "0.0.0.0"', "0.0.0.0:3111", True),
        ('config = { host = "::1", port = 1 }', "[::1]:1", False),
        ('listen = "0.0.0.0:8080"', "0.0.0.0:8080", False),
    ],
)
def test_the_http_worker_listens_where_its_config_says(
    tmp_path: Path, text: str, listen: str, *, is_default: bool
) -> None:
    spec = worker(tmp_path, text)
    assert (spec.listen, spec.is_default_listen, spec.reload) == (listen, is_default, "swap")


def test_any_worker_may_listen_and_none_has_to(tmp_path: Path) -> None:
    assert worker(tmp_path, 'run = "a.py"\nlisten = "127.0.0.1:0"', "app").listen == "127.0.0.1:0"
    assert worker(tmp_path, 'run = "a.py"', "app").listen is None
    assert worker(tmp_path, "", "state").listen is None


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ('listen = "off"', 'listen must be "HOST:PORT"'),
        ('listen = "8080"', 'listen must be "HOST:PORT"'),
        ('listen = "127.0.0.1:70000"', 'listen must be "HOST:PORT"'),
        ("listen = 8080", "listen must be a string"),
        ('listen = "127.0.0.1:1"\nconfig.port = 1', "listen and the config's host and port name the same"),
    ],
)
def test_an_address_that_is_none_is_refused_with_its_place(tmp_path: Path, text: str, named: str) -> None:
    with pytest.raises(ProjectError, match=r"iii\.toml:2") as caught:
        worker(tmp_path, text)
    assert named in str(caught.value)
