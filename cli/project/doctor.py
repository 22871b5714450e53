"""`iii doctor`: is this machine fit for iii, and is this project well? The judging is in `health_checks`."""

from __future__ import annotations

import contextlib
import importlib.metadata
import json
import os
import socket
import subprocess
from collections.abc import Iterator
from pathlib import Path

import click

from cli.client.errors import UsageError
from cli.commands.options import json_option, profile_option
from cli.commands.project_file import project_file
from cli.project import health_checks
from cli.project.health_checks import Finding
from cli.text.output import count, shown, shown_json, write
from iii.engine.config.spec import ProjectSpec
from iii.errors import IIIError, ProjectError

_INOTIFY = Path("/proc/sys/fs/inotify")


@click.command("doctor")
@click.option("--file", type=click.Path(path_type=Path), help="The project file.  [default: nearest iii.toml]")
@profile_option
@json_option
def command(file: Path | None, profile: str | None, as_json: bool) -> int:
    """Check the machine and the project; exit code 1 when something cannot work."""
    findings = [*of_machine(), *of_project(file, profile)]
    if as_json:
        write(shown_json({"checks": [finding.as_dict() for finding in findings]}))
    else:
        for finding in findings:
            write(f"{finding.state:<4}  {finding.name:<10}  {shown(finding.text)}")
            if finding.hint:
                write(f"{'':<18}{shown(finding.hint)}")
    return int(any(finding.state == "fail" for finding in findings))


def of_machine() -> Iterator[Finding]:
    """Yield the findings that need no project."""
    import resource  # not on every platform

    yield health_checks.check_python()
    versions: dict[str, str | None] = dict.fromkeys(health_checks.PACKAGES)
    for name in versions:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):
            versions[name] = importlib.metadata.version(name)
    yield from health_checks.check_packages(versions)
    yield health_checks.check_open_files(*resource.getrlimit(resource.RLIMIT_NOFILE))
    settings = {path.name: int(path.read_text()) for path in sorted(_INOTIFY.glob("max_user_*"))}
    yield health_checks.check_inotify(settings)


def of_project(file: Path | None, profile: str | None) -> Iterator[Finding]:
    """Yield the findings about the project, if there is one here."""
    from iii.engine.config.cautions import cautions_of
    from iii.engine.config.project import load_project  # keeps `--help` light

    try:
        project = load_project(project_file(file), environ=os.environ, profile=profile)
    except UsageError as error:
        yield Finding("project", "warn", error.message, error.hint)
        return
    except ProjectError as error:
        for each in (error, *error.others):
            yield Finding("project", "fail", str(each), "see `iii check`")
        return
    yield Finding("project", "ok", f"{project.file}: {count(len(project.workers), 'worker')}")
    yield from (Finding("project", "warn", caution) for caution in cautions_of(project, os.environ))
    yield from _of_running(project)
    yield from _of_workers(project)
    yield health_checks.check_state(project.state_dir)
    yield from _of_sdks(project)
    commands = {spec.name: spec.command[0] for spec in project.workers.values() if spec.command}
    yield from health_checks.check_programs(commands, os.environ.get("PATH", os.defpath))


def _of_running(project: ProjectSpec) -> Iterator[Finding]:
    from iii.engine.boot.run_dir import lock_holder
    from iii.engine.transport.tcp_address import holder_of  # keeps `--help` light

    pid = lock_holder(project.state_dir)
    yield health_checks.check_engine(pid, is_announced=(project.state_dir / "run" / "engine.json").exists())
    listen = project.engine.listen
    if listen == "off":
        yield health_checks.check_listener(listen, is_free=True, holder="", is_ours=False)
        return
    is_free = _can_bind(listen)
    holder = "" if is_free else holder_of(int(listen.rpartition(":")[2]))
    yield health_checks.check_listener(listen, is_free, holder, is_ours=f"(pid {pid})" in holder)


def _of_workers(project: ProjectSpec) -> Iterator[Finding]:
    """Ask the project's engine, if it runs, which workers have failed."""
    from cli.client.connection import connect  # keeps `--help` light

    try:
        socket = json.loads((project.state_dir / "run" / "engine.json").read_text())["socket"]
        with connect(socket) as connection:
            rows = connection.call("engine::workers::list")["workers"]
    except (OSError, ValueError, KeyError, IIIError):
        return  # no engine runs, which another finding says
    yield health_checks.check_workers(rows)


def _of_sdks(project: ProjectSpec) -> Iterator[Finding]:
    """Say which SDK the Python workers use, once for each interpreter."""
    by_python: dict[str, list[str]] = {}
    for spec in project.workers.values():
        if spec.python is not None:
            by_python.setdefault(str(spec.python), []).append(spec.name)
    for python, workers in by_python.items():
        try:
            package = health_checks.sdk_package(python)
        except (OSError, subprocess.SubprocessError, ValueError) as error:
            yield Finding(
                "sdk", "fail", f"{', '.join(workers)}: {python} does not run: {error}", "mend that environment"
            )
            continue
        yield health_checks.check_sdk(workers, python, package, listens=project.engine.listen != "off")


def _can_bind(listen: str) -> bool:
    host, _, port = listen.rpartition(":")
    with socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((host.strip("[]"), int(port)))
        except OSError:
            return False
    return True
