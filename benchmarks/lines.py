"""Counts the lines of the example apps beside the same apps in FastAPI and Celery: `python -m benchmarks.lines`.

Counted is what a person writes to have the app: code and configuration without blank lines, comments and docstrings.
Tests, READMEs and pages are not; what both have is in both.
"""

from __future__ import annotations

import ast
import io
import tokenize
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent
APPS = ("shortener", "orders", "agent")
COMMENTS = {".toml": "#", ".ts": "//"}
_EMPTY = {tokenize.COMMENT, tokenize.NL, tokenize.NEWLINE, tokenize.INDENT, tokenize.DEDENT, tokenize.ENDMARKER}


def lines_of(folder: Path) -> int:
    """Return how many lines of code and configuration a folder has, without those of its subfolders."""
    total = 0
    for path in sorted(folder.iterdir()):
        text = path.read_text(encoding="utf-8") if path.suffix in (".py", *COMMENTS) else ""
        if path.suffix == ".py":
            total += _python_lines(text)
        elif text:
            lines = map(str.strip, text.splitlines())
            total += sum(bool(line) and not line.startswith(COMMENTS[path.suffix]) for line in lines)
    return total


def _python_lines(text: str) -> int:
    documented = (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)
    found: set[int] = set()
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type not in _EMPTY:
            found.update(range(token.start[0], token.end[0] + 1))
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, documented) and ast.get_docstring(node, clean=False) is not None:
            first = node.body[0]
            found.difference_update(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    return len(found)


def counts() -> dict[str, tuple[int, int]]:
    """Return for each app its lines here, and those in FastAPI and Celery."""
    return {
        app: (lines_of(ROOT / "examples" / app), lines_of(ROOT / "benchmarks" / "frameworks" / app)) for app in APPS
    }


if __name__ == "__main__":
    print(f"{'app':<12}{'iii':>6}{'FastAPI and Celery':>22}")
    for app, (ours, theirs) in counts().items():
        print(f"{app:<12}{ours:>6}{theirs:>22}")
