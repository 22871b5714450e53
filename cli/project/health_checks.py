"""What can be wrong with a machine or a project, one function a question. Looks, changes nothing.

Every function takes what it judges as arguments, so that it is tested without a sick machine.
"""

from __future__ import annotations

import json
import os
import shutil
import stat
import subprocess
import sys
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any, Literal

State = Literal["ok", "warn", "fail"]

OLDEST_PYTHON = (3, 11)
PACKAGES = (
    *("click", "httpx", "jsonschema-rs", "mcp", "msgspec", "orjson", "psutil"),
    *("starlette", "tomlkit", "uvicorn", "uvloop", "watchfiles", "websockets"),
)
# A worker holds four descriptors, a client one, and every socket of its own comes on top.
FILES_NEEDED = 1024
# One watch a folder below the workers' files; trees with build output have thousands.
WATCHES_NEEDED = 8192
INSTANCES_NEEDED = 64


# Run by a worker's interpreter. Without the current folder on the path, which the launcher leaves out too.
_WHICH_SDK = """
import importlib.metadata as metadata, importlib.util, json, os, sys
sys.path = [folder for folder in sys.path if folder]
spec = importlib.util.find_spec("iii")
owners = ["iii-engine"]
if spec and spec.origin and not os.path.exists(os.path.join(os.path.dirname(spec.origin), "worker", "launch.py")):
    owners = metadata.packages_distributions().get("iii", ["another program"])
try:
    version = metadata.version(owners[0])
except metadata.PackageNotFoundError:
    version = ""
print(json.dumps({"name": owners[0], "version": version, "file": spec.origin} if spec and spec.origin else None))
"""


@dataclass(frozen=True)
class SdkPackage:
    """The installed package that a worker's `import iii` loads, and the file it loads."""

    name: str
    version: str
    file: str


@dataclass(frozen=True)
class Finding:
    """The answer to one question. `hint` says what to do about it."""

    name: str
    state: State
    text: str
    hint: str = ""

    def as_dict(self) -> dict[str, Any]:
        """Return it for JSON."""
        return asdict(self)


def check_python(version: tuple[int, ...] = sys.version_info[:3]) -> Finding:
    """Judge the interpreter that runs us."""
    text = ".".join(map(str, version))
    if version < OLDEST_PYTHON:
        return Finding("python", "fail", text, "iii needs Python 3.11 or newer")
    return Finding("python", "ok", f"{text} at {sys.executable}")


def check_packages(versions: Mapping[str, str | None]) -> Iterator[Finding]:
    """Judge the packages we need (name -> installed version)."""
    missing = [name for name in PACKAGES if versions.get(name) is None]
    if missing:
        hint = "install iii-engine again in this environment"
        yield Finding("packages", "fail", f"missing: {', '.join(missing)}", hint)
    else:
        yield Finding("packages", "ok", ", ".join(f"{name} {versions[name]}" for name in PACKAGES))


def check_sdk(workers: Sequence[str], python: str, package: SdkPackage | None, *, listens: bool) -> Finding:
    """Judge which `iii` these workers import: `package` is what their interpreter has under that name."""
    names = ", ".join(workers)
    if package is None:
        return Finding("sdk", "ok", f"{names}: ours, by the path of {python}")
    if package.name == "iii-engine":
        return Finding("sdk", "ok", f"{names}: iii-engine {package.version} in {python}")
    if package.name != "iii-sdk":
        text = f"{names}: `iii` in {python} belongs to {package.name} {package.version}, not to an SDK ({package.file})"
        return Finding("sdk", "fail", text, f"uninstall {package.name} there, or give the workers another `python`")
    text = f"{names}: the official iii-sdk {package.version} in {python}, which connects over WebSocket"
    if not listens:
        return Finding(
            "sdk", "fail", text, "set [engine] listen, or uninstall iii-sdk there to use the SDK of this engine"
        )
    return Finding("sdk", "ok", text)


def sdk_package(python: str) -> SdkPackage | None:
    """Ask an interpreter which package its `iii` belongs to; None if it has none, and gets ours from the engine.

    Raises OSError, subprocess.SubprocessError or ValueError for an interpreter that cannot say.
    """
    done = subprocess.run([python, "-c", _WHICH_SDK], capture_output=True, text=True, timeout=10, check=True)
    answer = json.loads(done.stdout)
    return None if answer is None else SdkPackage(**answer)


def check_workers(rows: Sequence[Mapping[str, Any]]) -> Finding:
    """Judge the workers of a running engine (rows of `engine::workers::list`)."""
    failed = [row for row in rows if row.get("state") == "failed"]
    if not failed:
        return Finding("workers", "ok", f"{len(rows)} known, none has failed")
    texts = []
    for row in failed:
        error = row.get("last_error")
        why = f"{error['text']} ({error['file']}:{error['line']})" if isinstance(error, dict) else row.get("last_exit")
        texts.append(f"{row.get('name')}: {why}")
    return Finding("workers", "fail", "; ".join(texts), "mend it and save, or see `iii logs`")


def check_open_files(soft: int, hard: int) -> Finding:
    """Judge RLIMIT_NOFILE; -1 is no limit."""
    text = f"{'no limit' if soft < 0 else soft} open files"
    if 0 <= soft < FILES_NEEDED:
        most = "unlimited" if hard < 0 else hard
        return Finding("open files", "warn", text, f"raise it with `ulimit -n {FILES_NEEDED}` (at most {most})")
    return Finding("open files", "ok", text)


def check_inotify(settings: Mapping[str, int]) -> Finding:
    """Judge the limits of file watching (name under fs.inotify -> value); none where there is no inotify."""
    needed = {"max_user_watches": WATCHES_NEEDED, "max_user_instances": INSTANCES_NEEDED}
    small = {name: least for name, least in needed.items() if settings.get(name, least) < least}
    text = ", ".join(f"{name} {value}" for name, value in settings.items()) or "not used on this system"
    if small:
        commands = " ".join(f"fs.inotify.{name}={least}" for name, least in small.items())
        return Finding("inotify", "warn", text, f"reload falls back to polling; raise it: sudo sysctl {commands}")
    return Finding("inotify", "ok", text)


def check_listener(listen: str, is_free: bool, holder: str, *, is_ours: bool) -> Finding:
    """Judge the address for official SDKs; `holder` is the process that has it."""
    if listen == "off":
        return Finding("listener", "ok", "off: official SDKs and the console cannot connect")
    if is_free or is_ours:
        return Finding("listener", "ok", f"{listen} is {'free' if is_free else 'held by this engine'}")
    hint = "stop it, or set another address: [engine] listen"
    return Finding("listener", "warn", f"{listen} is taken by {holder}", hint)


def check_state(folder: Path) -> Finding:
    """Judge which users can read `.iii/`: it holds logs, values and the token."""
    if not folder.exists():
        return Finding("state", "ok", "nothing has run here yet")
    readable = []
    for path in (folder, *folder.rglob("*")):
        status = path.lstat()
        is_private = status.st_uid == os.getuid() and not stat.S_IMODE(status.st_mode) & 0o077
        if not is_private and not stat.S_ISLNK(status.st_mode):
            readable.append(path)
    if readable:
        names = ", ".join(str(path.relative_to(folder.parent)) for path in readable[:3])
        text = f"others may read {names}" + (f" and {len(readable) - 3} more" if len(readable) > 3 else "")
        return Finding("state", "fail", text, f"chmod -R go= {folder}")
    return Finding("state", "ok", f"{folder} is private")


def check_engine(pid: int | None, *, is_announced: bool) -> Finding:
    """Judge whether an engine runs (the lock knows), and whether an earlier one left its announcement."""
    if pid is not None:
        return Finding("engine", "ok", f"runs with pid {pid}")
    if is_announced:
        text = "not running; the last one was killed and left its announcement"
        return Finding("engine", "warn", text, "nothing to do: the next start cleans up")
    return Finding("engine", "ok", "not running")


def check_programs(commands: Mapping[str, str], path: str) -> Iterator[Finding]:
    """Judge the programs of workers that are no Python scripts (worker -> program)."""
    if commands and sys.platform == "linux" and shutil.which("setpriv") is None:
        text = "setpriv is missing: a worker that is no Python script may outlive a killed engine until the next start"
        yield Finding("setpriv", "warn", text, "install util-linux")
    for worker, program in commands.items():
        executable = shutil.which(program, path=path)
        if executable is None:
            hint = f"make it, or correct `run` of worker {worker}"
            yield Finding("program", "fail", f"worker {worker}: there is no program {program}", hint)
        else:
            yield Finding("program", "ok", f"worker {worker}: {executable}")
