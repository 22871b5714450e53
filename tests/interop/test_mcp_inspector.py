"""The inspector of the protocol against `iii mcp` and the HTTP endpoint: it checks messages by the official schemas."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.support import official
from tests.support.live_project import BOUND, ROOT, Project, project

pytestmark = [pytest.mark.slow, pytest.mark.timeout(600)]

TOML = """
[engine]
listen = "127.0.0.1:0"
[workers.state]
[workers.shop]
run = "shop.py"
[workers.mcp.config]
port = 0
tools = ["state::set"]
introspection = true
"""
SHOP = '''
from collections.abc import Iterator

@worker.function("shop::count", metadata={"mcp": True})
def count(upto: int) -> Iterator[int]:
    """Count."""
    yield from range(upto)
'''


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Project]:
    with project(tmp_path_factory.mktemp("shop"), TOML, {"shop": SHOP}) as made:
        yield made


@pytest.fixture(params=["http", "stdio"])
def server(request: pytest.FixtureRequest, running: Project) -> list[str]:
    """The arguments that say where the server is."""
    if request.param == "stdio":
        return [sys.executable, "-m", "cli.main", "mcp", "--file", str(running.folder / "iii.toml")]
    return [*url_of(running), "--header", f"Authorization: Bearer {(running.folder / '.iii' / 'mcp.key').read_text()}"]


def url_of(running: Project) -> list[str]:
    line = running.wait("as bearer token")[-1]
    return [next(word for word in line.split() if word.startswith("http://")), "--transport", "http"]


def inspect(server: list[str], *arguments: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [*official.mcp_inspector(), *server, *arguments],
        env=official.plain_environment() | {"PYTHONPATH": str(ROOT)},
        cwd=Path(__file__).parent,
        capture_output=True,
        text=True,
        timeout=BOUND * 3,
        check=False,
    )


def result_of(server: list[str], *arguments: str) -> Any:
    done = inspect(server, *arguments)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)


def test_the_inspector_lists_and_calls_tools(server: list[str]) -> None:
    tools = {tool["name"]: tool for tool in result_of(server, "--method", "tools/list")["tools"]}
    assert {"shop__count", "state__set", "iii_functions"} <= set(tools)
    assert tools["state__set"]["outputSchema"]["type"] == "object"
    call = ("--method", "tools/call", "--tool-name")
    counted = result_of(server, *call, "shop__count", "--tool-arg", "upto=2")
    assert [block["text"] for block in counted["content"]] == ["0", "1"]
    place = ("--tool-arg", "scope=s", "--tool-arg", "key=k", "--tool-arg", "value=1")
    assert result_of(server, *call, "state__set", *place)["structuredContent"]["new_value"] == 1


def test_the_inspector_lists_and_reads_resources(server: list[str]) -> None:
    resources = result_of(server, "--method", "resources/list")["resources"]
    assert "iii://docs/mcp" in {row["uri"] for row in resources}
    read = result_of(server, "--method", "resources/read", "--uri", "iii://docs/mcp")
    assert read["contents"][0]["text"].startswith("# Agents")


def test_without_the_key_the_inspector_gets_nothing(running: Project) -> None:
    done = inspect(url_of(running), "--method", "tools/list")
    assert done.returncode == 1
    assert "show the key of this project" in done.stderr
