"""What a project can be run with, and its user should know all the same: one sentence for each thing, with the way out.

Mistakes in iii.toml are errors and found elsewhere.
"""

from __future__ import annotations

import os
import stat
from collections.abc import Iterator, Mapping
from pathlib import Path

from iii.config_schema import brief
from iii.engine.config.environment import ENV_FILES
from iii.engine.config.interpreter import missing_file, unusable_environments
from iii.engine.config.spec import ProjectSpec


def cautions_of(project: ProjectSpec, environ: Mapping[str, str]) -> list[str]:
    """Return what is to be said before the project runs. Looks at the file system, reads no file."""
    return [*_missing_files(project), *_files_of_others(project), *_environments(project, environ)]


def _missing_files(project: ProjectSpec) -> Iterator[str]:
    """A file that a command names may be made later: by its `pre`, by another worker, by the user."""
    for spec in project.workers.values():
        key, command = ("pre", spec.pre) if spec.pre else ("run", spec.command)
        missing = missing_file(command, spec.cwd) if command else None
        if missing is not None:
            what = f"{spec.name}: {key}: there is no file {brief(missing)} in {spec.cwd}"
            yield f"{project.file.name}:{spec.line}: {what}; make it, or mend its path"


def _files_of_others(project: ProjectSpec) -> Iterator[str]:
    """Whoever can write a file that we run or read is us."""
    paths = [project.root, project.file, *(project.root / name for name in ENV_FILES)]
    for spec in project.workers.values():
        paths += [*spec.env_files, *filter(None, (spec.script, spec.cwd))]
        if spec.python is not None and spec.python.is_relative_to(project.root):
            paths.append(spec.python)
    found = [(path, why) for path in dict.fromkeys(paths) if (why := _who_else(path))]
    if found:
        path, why = found[0]
        more = f", as {len(found) - 1} more of this project" if len(found) > 1 else ""
        me = _user(os.getuid())
        yield (
            f"{path} {why}{more}: they can run code as {me}. Run iii as the owner of the project, "
            f"or make the files yours (chown {me}) and yours alone (chmod o-w)"
        )


def _who_else(path: Path) -> str:
    """Say who else may change what is there, "" if only this user and root may, or nothing is there."""
    try:
        status = path.stat()
    except (OSError, ValueError):
        return ""
    if status.st_uid not in (0, os.getuid()):
        return f"belongs to {_user(status.st_uid)}"
    is_sticky_folder = stat.S_ISDIR(status.st_mode) and status.st_mode & stat.S_ISVTX
    return "can be written by everybody" if status.st_mode & stat.S_IWOTH and not is_sticky_folder else ""


def _user(uid: int) -> str:
    import pwd  # only where something is to be said

    try:
        return pwd.getpwuid(uid).pw_name
    except KeyError:
        return f"the user {uid}"


def _environments(project: ProjectSpec, environ: Mapping[str, str]) -> Iterator[str]:
    reasons: dict[tuple[Path, str], list[str]] = {}
    for spec in project.workers.values():
        if spec.script is not None and not spec.has_declared_python:
            for reason in unusable_environments(spec.script, spec.cwd, project.root, environ):
                reasons.setdefault(reason, []).append(spec.name)
    for (folder, why), names in reasons.items():
        python = project.workers[names[0]].python
        yield (
            f"{', '.join(names)}: {why}, so {python} runs instead. "
            f"Make the environment anew (python3 -m venv --clear {folder}), or name an interpreter with `python`"
        )
