"""Which folders to watch, and what files hold: the file system's side of the watcher.

Every function may read many files and belongs in a thread.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import stat
from collections.abc import Iterable
from pathlib import Path, PurePosixPath

from iii.engine.reload.globs import NEVER, Ignored, fixed_part

MAX_FOLDERS = 4000  # of globs; half of what a stock kernel lets one user watch
Signature = tuple[int, int, int]  # inode, size, modification time in ns: cheap to compare


def signature_of(path: str) -> Signature | None:
    """Return what changes when a file is written or replaced, None if there is no such file."""
    try:
        found = os.stat(path)
    except OSError:
        return None
    return (found.st_ino, found.st_size, found.st_mtime_ns) if stat.S_ISREG(found.st_mode) else None


def digest_of(path: str) -> str | None:
    """Return the hash of a file's content, None if it cannot be read."""
    try:
        with open(path, "rb") as file:
            return hashlib.file_digest(file, "blake2b").hexdigest()
    except OSError:
        return None


def digests_of(paths: Iterable[str]) -> dict[str, str | None]:
    """Return the hash of every file's content."""
    return {path: digest_of(path) for path in paths}


def folders_of(files: Iterable[str], root: Path) -> set[str]:
    """Return the folders of files, of what symbolic links point to, and the folders above them inside `root`.

    The folders above see it when a folder itself is moved away or put back.
    """
    direct = {folder for file in files for folder in (os.path.dirname(file), os.path.dirname(os.path.realpath(file)))}
    found = {str(root)}
    for folder in direct:
        path = Path(folder)
        found.add(folder)
        found.update(str(parent) for parent in path.parents if parent.is_relative_to(root))
    return {folder for folder in found if os.path.isdir(folder)}


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
        text = (root / folder / ".gitignore").read_text("utf-8", "replace")
        ignored.add("" if folder == "." else folder, text)
