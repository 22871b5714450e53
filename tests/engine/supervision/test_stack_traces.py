"""Where a worker's code is wrong, from the traceback that it wrote or sent."""

from __future__ import annotations

from pathlib import Path

import pytest
from msgspec.structs import replace

from iii.engine.supervision.run import Frame, SourceError
from iii.engine.supervision.stack_traces import (
    TRACEBACK_WINDOW,
    begins_traceback,
    error_behind,
    parse_traceback,
)

ROOT = Path("/project")


def parse(text: str) -> SourceError | None:
    """Return the error without what only some tests look at."""
    error = parse_traceback(text.splitlines(), ROOT)
    return error and replace(error, frames=(), causes=())


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


CHAIN = """Traceback (most recent call last):
  File "/project/a.py", line 9, in load
    return values["x"]
           ~~~~~~^^^^^
KeyError: 'x'

The above exception was the direct cause of the following exception:

Traceback (most recent call last):
  File "/project/a.py", line 14, in <module>
    main()
  File "/project/lib/b.py", line 3, in main
    raise ValueError("no x") from error
ValueError: no x"""


def test_all_lines_of_the_project_and_the_causes_are_kept() -> None:
    assert parse_traceback(CHAIN.splitlines(), ROOT) == SourceError(
        "lib/b.py",
        3,
        "ValueError: no x",
        'raise ValueError("no x") from error',
        (Frame("a.py", 14, "", "main()"), Frame("lib/b.py", 3, "main", 'raise ValueError("no x") from error')),
        ("KeyError: 'x'  a.py:9",),
    )


def test_node_names_the_line_above_its_traceback() -> None:
    text = """/project/web.mjs:3
const a: = 1
       ^

SyntaxError: Unexpected token ':'
    at wrapSafe (node:internal/modules/cjs/loader:1464:18)

Node.js v20.20.2"""
    assert parse(text) == SourceError("web.mjs", 3, "SyntaxError: Unexpected token ':'", "const a: = 1")


def test_a_loader_of_typescript_names_the_line_in_its_message() -> None:
    text = """node:internal/process/promises:288
            triggerUncaughtException(err, true /* fromPromise */);
            ^

Error: Transform failed with 1 error:
/project/web.ts:2:10: ERROR: Expected identifier but found "="
    at failureErrorWithLog (/project/node_modules/esbuild/lib/main.js:1465:15)
    at Pipe.onStreamRead (node:internal/stream_base_commons:191:23) {
}"""
    assert parse(text) == SourceError("web.ts", 2, 'SyntaxError: Expected identifier but found "="')


def test_the_stack_of_a_javascript_error_shows_the_lines_of_the_project() -> None:
    text = """TypeError: amount is not a number
    at check (file:///project/mail.mjs:7:11)
    at async send (file:///project/mail.mjs:12:3)
    at async run (file:///project/node_modules/iii-sdk/index.mjs:90:5)"""
    error = parse_traceback(text.splitlines(), ROOT)
    assert error is not None
    assert str(error) == "TypeError: amount is not a number (mail.mjs:7)"
    assert error.frames == (Frame("mail.mjs", 12, "send"), Frame("mail.mjs", 7, "check"))


def test_a_traceback_is_known_by_its_first_line() -> None:
    assert begins_traceback("Traceback (most recent call last):")
    assert begins_traceback('  File "/project/a.py", line 3')
    assert begins_traceback("file:///project/a.mjs:3")
    assert not begins_traceback("all is well")


TRACEBACK = ["Traceback (most recent call last):", '  File "/project/a.py", line 3', "ValueError: no"]


@pytest.mark.parametrize(
    ("code", "age", "is_cause"),
    [(1, 0.0, True), (1, -0.5, True), (1, 1.9, True), (1, TRACEBACK_WINDOW, False), (0, 0.0, False), (-9, 0.0, False)],
)
def test_a_traceback_is_the_cause_of_an_exit_right_after_it(code: int, age: float, is_cause: bool) -> None:
    # Less than 0: it was read from the pipe when the process was dead.
    error = error_behind(code, [(100.0 - age, line) for line in TRACEBACK], 100.0, ROOT)
    assert (error is not None) == is_cause
    assert error is None or str(error) == "ValueError: no (a.py:3)"
