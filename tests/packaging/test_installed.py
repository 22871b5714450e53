"""What `pip install` makes of the project, beside other packages: real virtual environments, the wheel and `-e`.

Each environment goes through its installations one after the other, and after each of them a project is run in it: the
command, a standard worker, a worker on our SDK, one on the official SDK, one on whichever SDK the environment has, and
a pytest run.
"""

from __future__ import annotations

import json
import shutil
import sys
import sysconfig
import zipfile
from pathlib import Path

import pytest

from iii.version import VERSION
from tests.support import official
from tests.support.installed import BOUND, run, running
from tests.support.live_project import ROOT

SDK = "0.25.0"

WORKER = """
import iii
from iii import InitOptions, register_worker

worker = register_worker(options=InitOptions(worker_name="{name}"))


def where(payload: dict) -> dict:
    return {{"file": iii.__file__, "doubled": payload["n"] * 2}}


worker.register_function("{name}::where", where)
"""
TEST = """
def test_a_call(iii):
    assert iii.call("own::where", n=4)["doubled"] == 8


def test_the_names_of_other_packages_are_theirs():
    {imports}
"""
# Packages that own our folders' names, as an application or a careless library does.
FOREIGN = ("cli", "stdlib_workers", "tests")

pytestmark = pytest.mark.timeout(BOUND)


def wheel_of(folder: Path, name: str) -> Path:
    """Make the wheel of a package that consists of one top-level module with the given name."""
    path = folder / f"foreign_{name}-1.0-py3-none-any.whl"
    info = f"foreign_{name}-1.0.dist-info"
    files = {
        f"{name}/__init__.py": "OWNER = 'foreign'\n",
        f"{name}/main.py": f"def main():\n    print('the {name} of another package')\n",
        f"{info}/METADATA": f"Metadata-Version: 2.1\nName: foreign-{name}\nVersion: 1.0\n",
        f"{info}/WHEEL": "Wheel-Version: 1.0\nGenerator: test\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
    }
    with zipfile.ZipFile(path, "w") as archive:
        for file, text in files.items():
            archive.writestr(file, text)
        archive.writestr(f"{info}/RECORD", "".join(f"{file},,\n" for file in files) + f"{info}/RECORD,,\n")
    return path


class Environment:
    """One virtual environment and a project that runs in it."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.project = folder / "project"
        self.python = folder / "env" / "bin" / "python"
        self.iii = folder / "env" / "bin" / "iii"
        run(sys.executable, "-m", "venv", folder / "env", cwd=folder)
        run(sys.executable, "-m", "venv", "--without-pip", folder / "bare", cwd=folder)
        self.project.mkdir()
        pythons = {
            "own": self.python,
            "ours": folder / "bare" / "bin" / "python",
            "official": official.python_with(SDK),
        }
        tables = ['[engine]\nlisten = "127.0.0.1:0"\n[workers.state]\n']
        for name, python in pythons.items():
            (self.project / f"{name}.py").write_text(WORKER.format(name=name))
            tables.append(f'[workers.{name}]\nrun = "{name}.py"\npython = "{python}"\n')
        (self.project / "iii.toml").write_text("".join(tables))

    def pip(self, *words: str | Path) -> None:
        """Run pip in the environment."""
        run(self.python, "-m", "pip", "-q", "--disable-pip-version-check", *words, cwd=self.folder)

    def trigger(self, *words: str) -> str:
        """Call a function of the running project; return what is printed."""
        return run(self.iii, "trigger", *words, cwd=self.project).stdout.strip()

    def check(self, own: str, foreign: tuple[str, ...] = ()) -> None:
        """Use the command, the workers and pytest; `own` is the SDK that the environment has: ours or official."""
        assert run(self.iii, "--version", cwd=self.project).stdout == f"iii, version {VERSION}\n"
        with running(self.iii, self.project):
            answers = {name: json.loads(self.trigger(f"{name}::where", "n=2")) for name in ("own", "ours", "official")}
            assert [answer["doubled"] for answer in answers.values()] == [4, 4, 4]
            is_official = {name: "site-packages/iii/" in answer["file"] for name, answer in answers.items()}
            assert is_official == {"own": own == "official", "ours": False, "official": True}, answers
            sdks = json.loads(run(self.iii, "doctor", "--json", cwd=self.project, check=False).stdout)["checks"]
            texts = {check["text"].partition(":")[0]: check["text"] for check in sdks if check["name"] == "sdk"}
            assert ("official iii-sdk" in texts["own"], "iii-engine" in texts["own"]) == (
                own == "official",
                own == "ours",
            )
            assert "ours, by the path" in texts["ours"]
            assert "official iii-sdk" in texts["official"]
            self.trigger("state::set", "scope=s", "key=k", "value=7")
            assert self.trigger("state::get", "scope=s", "key=k") == "7"
        imports = "\n    ".join(f"import {name}\n    assert {name}.OWNER == 'foreign'" for name in foreign) or "pass"
        (self.project / "test_project.py").write_text(TEST.format(imports=imports))
        done = run(self.python, "-m", "pytest", "-q", "-p", "no:cacheprovider", cwd=self.project)
        assert "2 passed" in done.stdout


@pytest.fixture
def environment(tmp_path: Path) -> Environment:
    """Return a fresh environment with pytest."""
    made = Environment(tmp_path)
    made.pip("install", "pytest")
    return made


@pytest.fixture(params=["wheel", "editable"])
def engine(request: pytest.FixtureRequest) -> tuple[str | Path, ...]:
    """Return what pip installs: the wheel, or the checkout with `-e`."""
    return ("-e", ROOT) if request.param == "editable" else (request.getfixturevalue("wheel"),)


def test_the_official_sdk_comes_and_goes(environment: Environment, engine: tuple[str | Path, ...]) -> None:
    environment.pip("install", *engine)
    environment.check(own="ours")
    environment.pip("install", f"iii-sdk=={SDK}")
    environment.check(own="official")
    environment.pip("uninstall", "-y", "iii-sdk")
    environment.check(own="ours")


def test_the_official_sdk_was_there_before(environment: Environment, engine: tuple[str | Path, ...]) -> None:
    environment.pip("install", f"iii-sdk=={SDK}")
    environment.pip("install", *engine)
    environment.check(own="official")
    environment.pip("uninstall", "-y", "iii-engine")
    where = run(environment.python, "-c", "import iii; print(iii.__file__)", cwd=environment.folder).stdout
    assert "site-packages/iii/" in where  # nothing of theirs went with ours


def test_packages_that_own_the_names_of_our_folders(environment: Environment, engine: tuple[str | Path, ...]) -> None:
    environment.pip("install", *engine)
    environment.pip("install", *(wheel_of(environment.folder, name) for name in FOREIGN))
    environment.check(own="ours", foreign=FOREIGN)
    environment.pip("install", f"iii-sdk=={SDK}")
    environment.check(own="official", foreign=FOREIGN)


def installed(folder: Path, wheel: Path) -> Path:
    """Make an environment that has the wheel, and what it depends on from ours; return its folder of scripts."""
    run(sys.executable, "-m", "venv", folder, cwd=folder.parent)
    python = folder / "bin/python"
    run(python, "-m", "pip", "-q", "install", "--no-deps", wheel, cwd=folder)
    packages = run(python, "-c", "import sysconfig; print(sysconfig.get_path('purelib'))", cwd=folder).stdout.strip()
    (Path(packages) / "zz_dependencies.pth").write_text(sysconfig.get_path("purelib"))
    return folder / "bin"


def test_the_command_finds_its_python_from_wherever_it_is_called(tmp_path: Path, wheel: Path) -> None:
    folder = tmp_path / "my projects" / ("long" * 40)  # a line `#!` can hold neither the space nor the length
    folder.mkdir(parents=True)
    scripts = installed(folder / "env", wheel)
    (tmp_path / "direct").symlink_to(scripts / "iii")
    (tmp_path / "bin").mkdir()
    (tmp_path / "bin/iii").symlink_to("../direct")
    (folder / "iii").symlink_to("env/bin/iii")
    for command in (scripts / "iii", tmp_path / "bin/iii", tmp_path / "direct", "./iii"):
        assert run(command, "--version", cwd=folder).stdout == f"iii, version {VERSION}\n"
    assert run("iii", "--version", cwd=tmp_path, first=tmp_path / "bin").stdout == f"iii, version {VERSION}\n"


def test_the_command_of_a_user_installation_has_no_python_beside_it(tmp_path: Path, wheel: Path) -> None:
    # `pip install --user` puts it into a folder of its own, for the Python that is found first.
    scripts = installed(tmp_path / "env", wheel)
    script = Path(shutil.copy(scripts / "iii", tmp_path))
    assert run(script, "--version", cwd=tmp_path, first=scripts).stdout == f"iii, version {VERSION}\n"


def test_the_wheel_puts_one_package_at_the_top(wheel: Path) -> None:
    with zipfile.ZipFile(wheel) as archive:
        names = archive.namelist()
    tops = {name.partition("/")[0] for name in names}
    info = f"iii_engine-{VERSION}"
    assert tops == {"iii_engine", "iii_engine.pth", f"{info}.data", f"{info}.dist-info"}
    assert [name for name in names if name.startswith(f"{info}.data")] == [f"{info}.data/scripts/iii"]
    templates = "iii_engine/_root/cli/project/templates/"
    assert {f"{templates}common/gitignore", f"{templates}typescript/workers/hello.ts"} <= set(names)
    roots = {name.split("/")[2] for name in names if name.startswith("iii_engine/_root/")}
    assert roots == {"cli", "docs", "iii", "stdlib_workers"}
