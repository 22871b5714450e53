"""Which folders to watch, what files hold, and which of them git ignores: the file system's side of the watcher.

Every function may read many files and belongs in a thread.
"""

from __future__ import annotations

import contextlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from iii.engine.config.regular_file import digest_of_file, read_regular
from iii.engine.reload.globs import NEVER, Ignored, fixed_part

MAX_FOLDERS = 4000  # of globs; half of what a stock kernel lets one user watch
MAX_GITIGNORE = 1024 * 1024  # bytes
# Inode, size, modification and change time in ns: cheap to compare. The last cannot be set by a program.
Signature = tuple[int, int, int, int]


def signature_of(path: str) -> Signature | None:
    """Return what changes when a file is written or replaced, None if there is no such file (folder: with a slash)."""
    try:
        status = os.stat(path)
    except OSError:
        return None
    if path.endswith("/"):
        return (status.st_ino, 0, 0, 0)
    is_file = stat.S_ISREG(status.st_mode)
    return (status.st_ino, status.st_size, status.st_mtime_ns, status.st_ctime_ns) if is_file else None


def digests_of(paths: Iterable[str]) -> dict[str, str | None]:
    """Return the digest of every file's content, None for what is no file or cannot be read.

    A path that ends with a slash stands for a folder, of which only its being there counts.
    """
    return {path: _digest_of_folder(path) if path.endswith("/") else digest_of_file(path) for path in paths}


def _digest_of_folder(path: str) -> str | None:
    return "" if os.path.isdir(path) else None


def folders_of(files: Iterable[str], root: Path) -> set[str]:
    """Return the folders of files and of the targets of symbolic links, and the folders above them inside `root`.

    The kernel reports that a folder was moved away or put back to the folder above it.
    """
    direct = {folder for file in files for folder in (os.path.dirname(file), os.path.dirname(os.path.realpath(file)))}
    above = {str(parent) for folder in direct for parent in Path(folder).parents if parent.is_relative_to(root)}
    return {folder for folder in {str(root)} | direct | above if os.path.isdir(folder)}


def files_of_globs(globs: Iterable[str], root: Path) -> tuple[set[str], set[str], Ignored]:
    """Return the folders in which files of the globs can appear, the files there now, and what git ignores there."""
    folders: set[str] = set()
    files: set[str] = set()
    ignored = Ignored()
    for glob in globs:
        start = fixed_part(glob)
        levels = glob.count("/") - len(PurePosixPath(start).parts)  # of folders below `start`, where no `**` has more
        for parent in reversed(PurePosixPath(start).parents):
            _read_gitignore(root, parent.as_posix(), ignored)
        for folder, subfolders, names in os.walk(root / start):
            relative = os.path.relpath(folder, root)
            if ".gitignore" in names:
                _read_gitignore(root, relative, ignored)
            inside = "" if relative == "." else f"{relative}/"
            is_deepest = "**" not in glob and len(PurePosixPath(os.path.relpath(folder, root / start)).parts) >= levels
            subfolders[:] = [
                name for name in subfolders if not (is_deepest or name in NEVER or ignored(f"{inside}{name}/"))
            ]
            folders.add(folder)
            files.update(os.path.join(folder, name) for name in names)
            if len(folders) >= MAX_FOLDERS:
                break
    return folders, files, ignored


def _read_gitignore(root: Path, folder: str, ignored: Ignored) -> None:
    with contextlib.suppress(OSError):
        text = read_regular(root / folder / ".gitignore", MAX_GITIGNORE).decode("utf-8", "replace")
        ignored.add("" if folder == "." else folder, text)
