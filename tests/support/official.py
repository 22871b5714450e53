"""Environments with the published SDKs, made once under ~/.cache/iii-tests, and programs that run in them."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import pytest

from tests.support.harness import BOUND

CACHE = Path(os.environ.get("XDG_CACHE_HOME", Path.home() / ".cache")) / "iii-tests"
HERE = Path(__file__).parent
PYTHON_VERSIONS = ("0.21.6", "0.23.0", "0.24.6", "0.25.0")
NODE_VERSION = "0.22.1"
GENERATOR = "0.29.1"  # of openapi-python-client
# The newest one that runs on Node 20 and sends headers.
INSPECTOR = "0.16.8"
# The protocol's suite needs a newer Node than the machine may have: one comes as a package.
CONFORMANCE, CONFORMANCE_NODE = "0.1.16", "22.23.3"
HAS_NODE = shutil.which("npm") is not None
# What tests are parametrized with. Without node its tests count as slow, and the header of the run says so.
needs_node = () if HAS_NODE else (pytest.mark.slow,)
KINDS = [*(f"python {version}" for version in PYTHON_VERSIONS), pytest.param("node", marks=needs_node)]


def python_with(version: str) -> Path:
    """Return the interpreter of an environment that has `iii-sdk` of this version."""
    return _made(f"py-{version}", lambda folder: _make_python(folder, version)) / "bin" / "python"


def client_generator() -> Path:
    """Return the interpreter of an environment that has openapi-python-client."""

    def make(folder: Path) -> None:
        _install([sys.executable, "-m", "venv", str(folder)], folder)
        _install(
            [str(folder / "bin" / "python"), "-m", "pip", "install", "-q", f"openapi-python-client=={GENERATOR}"],
            folder,
        )

    return _made(f"openapi-python-client-{GENERATOR}", make) / "bin" / "python"


def node_with(version: str = NODE_VERSION) -> Path:
    """Return a folder whose node_modules has `iii-sdk` of this version."""
    return _made(f"node-{version}", lambda folder: _make_node(folder, version))


def _make_python(folder: Path, version: str) -> None:
    _install([sys.executable, "-m", "venv", str(folder)], folder)
    _install([str(folder / "bin" / "python"), "-m", "pip", "install", "-q", f"iii-sdk=={version}"], folder)


def _make_node(folder: Path, version: str) -> None:
    folder.joinpath("package.json").write_text('{"private": true}')
    _install(["npm", "install", "--no-audit", "--no-fund", "--loglevel=error", f"iii-sdk@{version}"], folder)


def mcp_inspector() -> list[str]:
    """Return the command of the Model Context Protocol's own inspector, as a program without a page."""

    def make(folder: Path) -> None:
        folder.joinpath("package.json").write_text('{"private": true}')
        command = ["npm", "install", "--no-audit", "--no-fund", "--loglevel=error", "--ignore-scripts"]
        _install([*command, f"@modelcontextprotocol/inspector@{INSPECTOR}"], folder, 300)

    place = _made(f"mcp-inspector-{INSPECTOR}", make)
    return ["node", str(place / "node_modules" / ".bin" / "mcp-inspector"), "--cli"]


def mcp_conformance() -> list[str]:
    """Return the command of the Model Context Protocol's conformance suite; skip where its packages cannot be had."""

    def make(folder: Path) -> None:
        folder.joinpath("package.json").write_text('{"private": true}')
        packages = [f"@modelcontextprotocol/conformance@{CONFORMANCE}", f"node@{CONFORMANCE_NODE}"]
        command = ["npm", "install", "--no-audit", "--no-fund", "--loglevel=error", *packages]
        try:
            subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=300, check=True)
        except (OSError, subprocess.SubprocessError) as error:
            said = getattr(error, "stderr", None) or error
            pytest.skip(f"the suite of the protocol cannot be had: `{' '.join(command)}`: {said}")

    place = _made(f"mcp-conformance-{CONFORMANCE}-node-{CONFORMANCE_NODE}", make) / "node_modules" / ".bin"
    return [str(place / "node"), str(place / "conformance")]


def typescript_with(packages: dict[str, Any]) -> Path:
    """Return a node_modules with what a package.json asks for."""
    wanted = {**packages["dependencies"], **packages["devDependencies"]}
    name = "-".join(f"{name.rpartition('/')[2]}{version.strip('^')}" for name, version in sorted(wanted.items()))

    def make(folder: Path) -> None:
        folder.joinpath("package.json").write_text(json.dumps(packages))
        _install(["npm", "install", "--no-audit", "--no-fund", "--loglevel=error"], folder)

    return _made(f"typescript-{name}", make) / "node_modules"


def _made(name: str, make: Callable[[Path], None]) -> Path:
    place = CACHE / name
    if not place.exists():
        CACHE.mkdir(parents=True, exist_ok=True)
        fresh = Path(tempfile.mkdtemp(prefix=f".{name}-", dir=CACHE))
        try:
            make(fresh)
            fresh.rename(place)
        finally:
            shutil.rmtree(fresh, ignore_errors=True)
    return place


def _install(command: list[str], folder: Path, timeout: float = 50) -> None:
    if shutil.which(command[0]) is None:
        pytest.fail(f"{command[0]} is needed for the tests with the official SDKs; install it")
    done = subprocess.run(command, cwd=folder, capture_output=True, text=True, timeout=timeout, check=False)
    if done.returncode != 0:
        pytest.fail(f"`{' '.join(command)}` failed; is the package registry reachable?\n{done.stderr}", pytrace=False)


def plain_environment() -> dict[str, str]:
    """Return this environment without what tells Python or an SDK anything."""
    return {key: value for key, value in os.environ.items() if not key.startswith(("III_", "PYTHON"))}


@contextmanager
def running(command: list[str], cwd: Path = HERE, **env: str) -> Iterator[subprocess.Popen[bytes]]:
    """Run a program until the block ends; its output is shown if the test fails."""
    process = subprocess.Popen(command, cwd=cwd, env=plain_environment() | env)
    try:
        yield process
    finally:
        process.terminate()
        try:
            process.wait(BOUND)
        except subprocess.TimeoutExpired:
            process.kill()
            process.wait()


@contextmanager
def official_worker(kind: str, url: str, prefix: str = "") -> Iterator[str]:
    """Run official_worker.py or .mjs on the SDK of this kind (`python VERSION`, `node`); yield the worker's name."""
    name = prefix + kind.replace(" ", "-").replace(".", "-")
    if kind == "node":
        folder = node_with()
        script = folder / "official_worker.mjs"  # beside node_modules, where imports are looked up
        shutil.copyfile(HERE / "official_worker.mjs", script)
        command = ["node", str(script), url, name]
    else:
        folder = HERE
        command = [str(python_with(kind.removeprefix("python "))), str(HERE / "official_worker.py"), url, name]
    with running(command, folder, III_URL=url):
        yield name
