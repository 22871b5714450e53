"""Where a worker's code is wrong, from what it wrote to stderr."""

from __future__ import annotations

from pathlib import Path

from iii.engine.supervision.run import SourceError, parse_traceback

ROOT = Path("/project")


def parse(text: str) -> SourceError | None:
    return parse_traceback(text.splitlines(), ROOT)


def test_a_syntax_error_names_its_line_and_shows_it() -> None:
    text = """starting
  File "/project/workers/web.py", line 12
    def add(req)
                ^
SyntaxError: expected ':'"""
    assert parse(text) == SourceError("workers/web.py", 12, "SyntaxError: expected ':'", "def add(req)")


def test_the_innermost_frame_of_the_project_is_named_not_the_librarys() -> None:
    text = """Traceback (most recent call last):
  File "/project/a.py", line 3, in <module>
    helper.load()
  File "/project/helper.py", line 8, in load
    json.loads("")
    ^^^^^^^^^^^^^^
  File "/project/.venv/lib/python3.12/site-packages/json.py", line 9, in loads
    raise ValueError("no")
ValueError: no"""
    assert parse(text) == SourceError("helper.py", 8, "ValueError: no", 'json.loads("")')


def test_the_last_of_chained_tracebacks_counts() -> None:
    text = """Traceback (most recent call last):
  File "/project/a.py", line 1, in <module>
KeyError: 'x'

During handling of the above exception, another exception occurred:

Traceback (most recent call last):
  File "/project/a.py", line 3, in <module>
    raise
my.CustomError: last"""
    assert parse(text) == SourceError("a.py", 3, "my.CustomError: last", "raise")


def test_a_traceback_outside_the_project_names_its_innermost_frame() -> None:
    text = 'Traceback (most recent call last):\n  File "/usr/lib/a.py", line 3\nKeyboardInterrupt'
    assert parse(text) == SourceError("/usr/lib/a.py", 3, "KeyboardInterrupt", "")


def test_the_source_is_left_out_when_the_frame_is_the_last_thing_but_the_error() -> None:
    assert parse('  File "/project/a.py", line 3\n^^^^\nSyntaxError: x') == SourceError("a.py", 3, "SyntaxError: x")


def test_no_traceback_is_no_error() -> None:
    assert parse("all is well\n") is None
    assert parse('  File "/project/a.py", line 3') is None
