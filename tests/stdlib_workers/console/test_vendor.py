"""The vendored libraries are what the registry serves, but for the paths behind `from`; each has its license."""

from __future__ import annotations

import hashlib
import io
import json
import shutil
import subprocess
import tarfile
from pathlib import Path
from typing import Any

import pytest

from stdlib_workers.console.application import STATIC

VENDOR = STATIC / "vendor"
DESCRIBED: dict[str, dict[str, Any]] = json.loads((VENDOR / "vendor.json").read_text())


@pytest.mark.parametrize("name", DESCRIBED)
def test_a_vendored_file_is_the_one_that_was_recorded(name: str) -> None:
    described = DESCRIBED[name]
    assert hashlib.sha256((VENDOR / name).read_bytes()).hexdigest() == described["sha256"]
    assert (VENDOR / described["license"]).stat().st_size > 500


def test_nothing_else_is_there() -> None:
    licenses = {described["license"] for described in DESCRIBED.values()}
    assert {path.name for path in VENDOR.iterdir()} == DESCRIBED.keys() | licenses | {"vendor.json"}


@pytest.mark.slow
@pytest.mark.parametrize("package", sorted({(d["package"], d["version"]) for d in DESCRIBED.values()}))
def test_a_vendored_file_is_what_the_registry_serves(package: tuple[str, str], tmp_path: Path) -> None:
    name, version = package
    npm = shutil.which("npm")
    command = [npm or "npm", "pack", f"{name}@{version}", "--json", "--fetch-retries=0"]
    packed = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=50, check=False)
    if packed.returncode:
        assert "ENOTFOUND" in packed.stderr or "EAI_AGAIN" in packed.stderr or "ECONN" in packed.stderr, packed.stderr
        return  # the registry cannot be reached: the recorded hashes have to do
    (archive,) = tmp_path.glob("*.tgz")
    with tarfile.open(fileobj=io.BytesIO(archive.read_bytes())) as files:
        for file, described in DESCRIBED.items():
            if (described["package"], described["version"]) != package:
                continue
            member = files.extractfile(f"package/{described['path']}")
            assert member is not None
            content = member.read().decode()
            for bare, path in described.get("imports", {}).items():
                content = content.replace(f'from"{bare}"', f'from"{path}"')
            assert content.encode() == (VENDOR / file).read_bytes(), file


def test_a_page_loads_nothing_from_elsewhere() -> None:
    scripts = [path for path in STATIC.rglob("*") if path.suffix in (".js", ".mjs")]
    for path in [*STATIC.glob("*.html"), *STATIC.glob("*.css"), *(p for p in scripts if p.parent != VENDOR)]:
        text = path.read_text().replace("http://www.w3.org/2000/svg", "")
        assert "https://" not in text, path
        assert "//cdn" not in text, path
