"""`[cluster]` and `only`: who this engine is, and which workers are its."""

from __future__ import annotations

import os
from pathlib import Path

import pytest

from iii.engine.config.project import load_project, those_of_engine
from iii.engine.config.spec import ProjectSpec
from iii.errors import ProjectError

SERVERS = 'servers = ["nats://10.0.0.1:4222"]\n'
WORKERS = """
[workers.math]
run = "math.py"
[workers.embed]
run = "embed.py"
only = ["gpu-*", "b"]
[workers.web]
run = "web.py"
after = ["embed", "math"]
"""


def load(folder: Path, text: str, **environ: str) -> ProjectSpec:
    for name in ("math", "embed", "web"):
        (folder / f"{name}.py").touch()
    (folder / "iii.toml").write_text(text)
    return load_project(folder / "iii.toml", environ=environ)


def test_an_engine_is_called_as_its_machine_and_the_cluster_as_the_folder(tmp_path: Path) -> None:
    cluster = load(tmp_path, f"[cluster]\n{SERVERS}{WORKERS}").cluster
    assert cluster is not None
    assert (cluster.name, cluster.engine) == (tmp_path.name, os.uname().nodename)
    assert cluster.servers == ("nats://10.0.0.1:4222",)


def test_what_is_written_and_in_the_environment_is_taken(tmp_path: Path) -> None:
    (tmp_path / "nats.creds").touch()
    text = f'[cluster]\n{SERVERS}name = "shop"\nengine = "${{WHO}}"\ncredentials = "nats.creds"\n{WORKERS}'
    cluster = load(tmp_path, text, WHO="a").cluster
    assert cluster is not None
    assert (cluster.name, cluster.engine, cluster.credentials) == ("shop", "a", tmp_path / "nats.creds")


def test_a_project_without_a_cluster_has_none(tmp_path: Path) -> None:
    project = load(tmp_path, '[workers.math]\nrun = "math.py"')
    assert project.cluster is None
    assert those_of_engine(project) is project


@pytest.mark.parametrize(
    ("who", "workers"),
    [
        ('engine = "a"', ["math", "web"]),
        ('engine = "b"', ["math", "embed", "web"]),
        ('engine = "a"\nlabels = ["gpu-2"]', ["math", "embed", "web"]),
    ],
)
def test_only_keeps_a_worker_from_other_engines_and_no_worker_waits_for_it_there(
    tmp_path: Path, who: str, workers: list[str]
) -> None:
    everywhere = load(tmp_path, f"[cluster]\n{SERVERS}{who}\n{WORKERS}")
    assert len(everywhere.workers) == 3  # checks and tests see them all
    project = those_of_engine(everywhere)
    assert list(project.workers) == workers
    assert [name for name in project.workers["web"].after if name not in workers] == []


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("[cluster]\n", 'iii.toml:1:1: cluster: no servers; write servers = ["nats://HOST:4222"]'),
        (
            '[cluster]\nservers = ["10.0.0.1"]\n',
            'iii.toml:2:12: cluster: 10.0.0.1 is no URL of a NATS server; write "nats://HOST:4222"',
        ),
        (f'[cluster]\n{SERVERS}durable = ["state", "http"]\n', "http cannot keep its data in the NATS servers; of the"),
        (f'[cluster]\n{SERVERS}monitors = ["n1:8222"]\n', 'is no URL of a monitoring page; write "http://HOST:8222"'),
        (f'[cluster]\n{SERVERS}engine = "a b"\n', "engine must be letters, digits"),
        (f'[cluster]\n{SERVERS}tls_ca = "ca.pem"\n', "tls_ca: there is no file"),
        (f'[cluster]\n{SERVERS}server = "x"\n', "unknown key `server`; did you mean `servers`?"),
        (WORKERS, "only chooses engines of a cluster; add a [cluster] table"),
    ],
)
def test_mistakes_say_where_they_are_and_what_to_write(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(ProjectError) as refused:
        load(tmp_path, text)
    assert message in str(refused.value)
