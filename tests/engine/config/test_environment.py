"""The environment of a worker: which source wins, what the shell may pass, what an env file may hold."""

from __future__ import annotations

import json
import os
import socket
from pathlib import Path
from types import MappingProxyType

import pytest

from iii.engine.config.environment import environment_of, merge, read_env_file
from iii.engine.config.spec import ProjectSpec, WorkerSpec
from iii.errors import ProjectError

NAMES = ["A", "B", "C", "D", "E", "F"]


def test_the_order_is_reserved_shell_env_env_file_env_local_env(tmp_path: Path) -> None:
    def values(source: str, count: int) -> dict[str, str]:
        return dict.fromkeys(NAMES[:count], source)

    def write(name: str, count: int) -> Path:
        (tmp_path / name).write_text("".join(f"{key}={value}\n" for key, value in values(name, count).items()))
        return tmp_path / name

    write(".env", 6)
    write(".env.local", 5)
    files = (write("weak.env", 4), write("strong.env", 3))
    spec = WorkerSpec("w", tmp_path, env=values("env", 2), env_files=files)
    project = ProjectSpec(tmp_path, "p", tmp_path / "iii.toml")
    merged = environment_of(spec, project, {"A": "shell", "III_NAMESPACE": "shell"})
    assert [merged[name] for name in NAMES] == [
        ("shell", "shell"),
        ("env", "env"),
        ("strong.env", "strong.env"),
        ("weak.env", "weak.env"),
        (".env.local", ".env.local"),
        (".env", ".env"),
    ]
    assert merged["III_NAMESPACE"] == ("default", "reserved")


def test_from_the_shell_only_harmless_and_declared_names_pass() -> None:
    shell = {
        "PATH": "p",
        "LC_ALL": "C",
        "SSL_CERT_FILE": "f",
        "AWS_SECRET_ACCESS_KEY": "s",
        "AWS_REGION": "r",
        "X": "x",
    }
    merged = merge({}, shell, [("env", {"X": "declared"})], ["*_REGION"])
    assert sorted(merged) == ["AWS_REGION", "LC_ALL", "PATH", "SSL_CERT_FILE", "X"]
    assert merged["X"] == ("x", "shell")


def test_names_of_the_engine_come_from_the_engine_alone() -> None:
    merged = merge(
        {"III_URL": "stdio:"}, {"III_TOKEN": "t"}, [(".env", {"III_URL": "ws://x", "III_TOKEN": "t"})], ["*"]
    )
    assert merged == {"III_URL": ("stdio:", "reserved")}


def test_the_config_is_handed_over_as_json(tmp_path: Path) -> None:
    config = MappingProxyType({"port": 3111, "nested": {"a": [1]}})
    spec = WorkerSpec("http", tmp_path, standard="http", config=config)
    merged = environment_of(spec, ProjectSpec(tmp_path, "p", tmp_path / "iii.toml"), {})
    assert json.loads(merged["III_CONFIG"][0]) == config
    assert merged["III_WORKER_NAME"] == ("http", "reserved")


def test_an_env_file_knows_quotes_comments_and_export(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("# note\nexport A='x # y'\nB=\"two\\nlines\"\nC\nD=${A}\n", encoding="utf-8-sig")
    assert read_env_file(tmp_path / ".env") == {"A": "x # y", "B": "two\nlines", "C": "", "D": "x # y"}


def test_a_broken_line_of_an_env_file_is_pointed_at(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A=1\nB='open\n")
    with pytest.raises(ProjectError, match=r"\.env:2:1: this is not NAME=value"):
        read_env_file(tmp_path / ".env")


def test_an_env_file_that_is_no_text_is_said_so(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"B=1\nA=\xff\n")
    with pytest.raises(ProjectError, match=r"\.env:2: the byte 0xff is not UTF-8"):
        read_env_file(tmp_path / ".env")


def test_a_variable_with_a_nul_is_refused_where_it_stands(tmp_path: Path) -> None:
    (tmp_path / ".env").write_bytes(b"B=1\nA=a\0b\n")
    with pytest.raises(ProjectError, match=r"\.env:2: a variable cannot hold a NUL character"):
        read_env_file(tmp_path / ".env")


@pytest.mark.timeout(10)
@pytest.mark.parametrize("is_optional", [True, False])
def test_what_is_no_file_is_refused_and_never_waited_for(tmp_path: Path, is_optional: bool) -> None:
    os.mkfifo(tmp_path / "pipe")
    (tmp_path / "folder").mkdir()
    (tmp_path / "device").symlink_to("/dev/zero")
    with socket.socket(socket.AF_UNIX) as bound:
        bound.bind(str(tmp_path / "socket"))
    for name, kind in {
        "pipe": "a named pipe",
        "folder": "a folder",
        "device": "a device",
        "socket": "a socket",
    }.items():
        with pytest.raises(ProjectError, match=f"{name}: cannot be read: this is {kind}, not a file"):
            read_env_file(tmp_path / name, optional=is_optional)


def test_a_huge_env_file_is_not_read(tmp_path: Path) -> None:
    with (tmp_path / ".env").open("wb") as file:
        file.truncate(10**10)
    with pytest.raises(ProjectError, match=r"\.env: cannot be read: larger than 1024 KiB"):
        read_env_file(tmp_path / ".env")


def test_only_an_optional_file_may_be_missing(tmp_path: Path) -> None:
    assert read_env_file(tmp_path / ".env", optional=True) == {}
    with pytest.raises(ProjectError, match="cannot be read"):
        read_env_file(tmp_path / ".env")


def test_an_env_file_refers_to_earlier_lines_weaker_files_and_the_shell(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("HOST=localhost\nURL=http://${HOST}:${PORT:-80}/$${x}\nRAW='${HOST}'\n")
    (tmp_path / ".env.local").write_text('LOCAL="${URL} of ${USER}"\n')
    (tmp_path / "one.env").write_text("ONE=${LOCAL}\nHOST=other\n")
    spec = WorkerSpec("a", tmp_path, env_files=(tmp_path / "one.env",))
    merged = environment_of(spec, ProjectSpec(tmp_path, "p", tmp_path / "iii.toml"), {"USER": "ada"})
    assert merged["URL"] == ("http://localhost:80/${x}", ".env")
    assert merged["LOCAL"] == ("http://localhost:80/${x} of ada", ".env.local")
    assert merged["ONE"] == (merged["LOCAL"][0], "one.env")
    assert (merged["RAW"], merged["HOST"]) == (("${HOST}", ".env"), ("other", "one.env"))


def test_an_unset_reference_in_an_env_file_is_pointed_at(tmp_path: Path) -> None:
    (tmp_path / ".env").write_text("A=1\nB=${NOTHING}\n")
    message = (
        r"^\.env:2: the variable NOTHING is not set; set it, or write \$\{NOTHING:default\}; single quotes keep a value"
    )
    with pytest.raises(ProjectError, match=message):
        read_env_file(tmp_path / ".env")
