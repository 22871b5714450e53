"""Path patterns: `watch` globs of iii.toml and the lines of a .gitignore. Pure.

Paths are relative to the project's root, with `/`. `*` and `?` stay within one folder, `**` crosses folders.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from msgspec import Struct

_TOKEN = re.compile(r"\*\*/|\*\*|\*|\?|\[[^]]+\]|.", re.DOTALL)
_REGEX = {"**/": "(?:.*/)?", "**": ".*", "*": "[^/]*", "?": "[^/]"}
# Nothing of interest changes in them, and some hold more files than the kernel can watch.
NEVER = frozenset({".git", ".iii", ".venv", "__pycache__", "node_modules", ".mypy_cache", ".pytest_cache"})
# What editors leave beside the file that is being edited: vim, emacs, JetBrains, and the `4913` of vim's write test.
_SWAP = re.compile(r"(^|/)(\.[^/]*\.sw.|4913|[^/]*~|\.?#[^/]*|[^/]*___jb_(tmp|old)___|[^/]*\.py[co])$")


def compile_glob(pattern: str) -> re.Pattern[str]:
    """Compile one `watch` glob."""
    return re.compile(_regex(pattern) + r"\Z")


def fixed_part(pattern: str) -> str:
    """Return the folder before the first wildcard: the place to begin looking, "" for the root."""
    parts = pattern.split("/")
    fixed = next((index for index, part in enumerate(parts) if re.search(r"[*?\[]", part)), len(parts) - 1)
    return "/".join(parts[:fixed])


def is_noise(path: str) -> bool:
    """True for caches, version control and the droppings of editors."""
    return bool(_SWAP.search(path)) or not NEVER.isdisjoint(path.split("/"))


class _Rule(Struct, frozen=True):
    pattern: re.Pattern[str]
    is_negated: bool


class Ignored:
    """The rules of one .gitignore at the project's root. The last rule that matches decides."""

    __slots__ = ("_rules",)

    def __init__(self, lines: Iterable[str] = ()) -> None:
        self._rules: Sequence[_Rule] = [
            _rule(line) for raw in lines if (line := raw.rstrip()) and not line.startswith("#")
        ]

    def __call__(self, path: str) -> bool:
        """True when the file, or a folder that it is in, is ignored."""
        verdicts = [not rule.is_negated for rule in self._rules if rule.pattern.match(path)]
        return bool(verdicts) and verdicts[-1]


def _rule(line: str) -> _Rule:
    is_negated = line.startswith("!")
    pattern = line.removeprefix("!")
    # With a slash anywhere but at its end a pattern starts at the root, without one it holds in every folder.
    is_anchored = "/" in pattern.rstrip("/")
    body = _regex(pattern.strip("/"))
    inside = "/.*" if pattern.endswith("/") else "(?:/.*)?"
    return _Rule(re.compile(("" if is_anchored else "(?:.*/)?") + body + inside + r"\Z"), is_negated)


def _regex(pattern: str) -> str:
    return "".join(_translate(token) for token in _TOKEN.findall(pattern))


def _translate(token: str) -> str:
    if token in _REGEX:
        return _REGEX[token]
    if len(token) > 1:  # a set: [abc], [!abc]
        return "[" + token[1:-1].replace("\\", "\\\\").replace("!", "^", 1 if token[1] == "!" else 0) + "]"
    return re.escape(token)
