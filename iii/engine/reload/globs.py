"""Path patterns: `watch` globs of iii.toml, what .gitignore files leave out, and what editors leave behind. Pure.

Paths are relative to the project's root, with `/`. `*` and `?` stay within one folder, `**` crosses folders.
"""

from __future__ import annotations

import contextlib
import re
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from pathspec import GitIgnoreSpec

_TOKEN = re.compile(r"\*\*/|\*\*|\*|\?|\[[^]]+\]|.", re.DOTALL)
_REGEX = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
# Folders in which nothing of a worker changes; some hold more files than the kernel can watch.
NEVER = frozenset({".git", ".iii", ".venv", "__pycache__", "node_modules", ".mypy_cache", ".pytest_cache"})
# Files that editors put beside the edited one: vim, emacs, JetBrains, and the `4913` of vim's write test.
_SWAP = re.compile(r"(^|/)(\.[^/]*\.sw.|4913|[^/]*~|\.?#[^/]*|[^/]*___jb_(tmp|old)___|[^/]*\.py[co])$")


def compile_glob(pattern: str) -> re.Pattern[str]:
    """Compile one `watch` glob."""
    regex = ""
    for token in _TOKEN.findall(pattern):
        if token in _REGEX:
            regex += _REGEX[token]
        elif len(token) > 1:  # a set: [abc], [!abc]
            negated = token[1] == "!"
            regex += "[" + "^" * negated + token[1 + negated : -1].replace("\\", "\\\\") + "]"
        else:
            regex += re.escape(token)
    return re.compile(regex + r"\Z")


def fixed_part(pattern: str) -> str:
    """Return the folder before the first wildcard: the place to begin looking, "" for the root."""
    parts = pattern.split("/")
    fixed = next((index for index, part in enumerate(parts) if re.search(r"[*?\[]", part)), len(parts) - 1)
    return "/".join(parts[:fixed])


def is_noise(path: str) -> bool:
    """Tell whether a path is a cache, version control, or a file that editors leave behind."""
    return bool(_SWAP.search(path)) or not NEVER.isdisjoint(path.split("/"))


class Ignored:
    """What the .gitignore files below the project's root leave out.

    Within a file the last line that matches decides. A file in a deeper folder overrides those above it, but one in a
    folder that is itself ignored counts for nothing.
    """

    __slots__ = ("_specs",)

    def __init__(self) -> None:
        self._specs: dict[str, GitIgnoreSpec] = {}  # folder -> its .gitignore; "" is the root

    def add(self, folder: str, text: str) -> None:
        """Take over the text of the .gitignore in `folder`, after those above it. Lines git cannot read are skipped."""
        if folder and self(f"{folder}/"):
            return
        from pathspec import GitIgnoreSpec  # 25 ms, which only a project with `watch` globs and a .gitignore pays

        spec = GitIgnoreSpec([])
        for line in text.splitlines():
            with contextlib.suppress(ValueError, re.error):
                spec += GitIgnoreSpec.from_lines([line])
        self._specs[folder] = spec

    def __call__(self, path: str) -> bool:
        """Tell whether a file is ignored, by itself or with a folder that it is in. A folder's path ends with `/`."""
        folder = path.rstrip("/")
        while folder:
            folder = folder.rpartition("/")[0]
            spec = self._specs.get(folder)
            is_ignored = spec.check_file(path[len(folder) + 1 if folder else 0 :]).include if spec else None
            if is_ignored is not None:
                return is_ignored
        return False
