"""What is printed: tables, durations, sizes, pages of help, escapes. Pure."""

from __future__ import annotations

import unicodedata
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from cli.observe.workers import row_of
from cli.text.output import shown, write, write_error
from cli.text.table import duration, size, table
from cli.trigger.help import example, page


@given(st.text())
def test_shown_text_holds_no_control_or_bidi_character(text: str) -> None:
    escaped = shown(text)
    assert not [char for char in escaped if unicodedata.category(char) == "Cc"]
    assert not [
        char for char in escaped if unicodedata.bidirectional(char) in ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI")
    ]


def test_a_table_sets_numbers_right_and_shows_nothing_as_a_dash() -> None:
    lines = table(("NAME", "PID"), [("math", 7), ("a\nb", 1234)]).split("\n")
    assert lines == ["NAME     PID", "math       7", "a\\x0ab  1234"]
    assert table(("A", "B"), [(None, "")]) == "A  B\n-  -"


@pytest.mark.parametrize(
    ("seconds", "text"),
    [(None, None), (0.4, "0s"), (59.9, "59s"), (200, "3m 20s"), (3600, "1h 0m"), (90_000, "1d 1h")],
)
def test_durations(seconds: float | None, text: str | None) -> None:
    assert duration(seconds) == text


@pytest.mark.parametrize(
    ("count", "text"), [(None, None), (812, "812 B"), (24_120_000, "24.1 MB"), (3e9, "3.0 GB"), (2e12, "2.0 TB")]
)
def test_sizes(count: float | None, text: str | None) -> None:
    assert size(count) == text


def test_a_row_of_ps_holds_every_column() -> None:
    worker = {
        "name": "math",
        "state": "ready",
        "generation": 2,
        "instance": 1,
        "pid": 4242,
        "restarts": 1,
        "function_count": 3,
        "last_exit": "killed by SIGKILL",
        "metrics": {"cpu_percent": 1.25, "memory_rss": 24_000_000, "uptime_seconds": 61},
    }
    expected = ("math/1", "ready", 2, 4242, "1.2%", "24.0 MB", 1, 3, "1m 1s", "killed by SIGKILL")
    assert row_of(worker) == expected


def test_a_foreign_worker_shows_what_is_known() -> None:
    row = row_of({"name": "web", "status": "connected", "last_exit": {"reason": "closed"}})
    assert row == ("web", "connected", None, None, None, None, None, None, None, "closed")


NESTED = {
    "type": "object",
    "required": ["who"],
    "properties": {
        "who": {"$ref": "#/$defs/person", "description": "Whom\nto greet"},
        "tags": {"type": "array", "items": {"type": "object", "properties": {"key": {"type": "string"}}}},
        "mode": {"enum": ["soft", "loud"], "default": "soft"},
        "extra": {},
    },
    "$defs": {
        "person": {
            "type": "object",
            "required": ["name"],
            "properties": {"name": {"type": "string"}, "friend": {"$ref": "#/$defs/person"}},
        }
    },
}


def test_nested_arguments_are_indented_references_followed_and_circles_cut() -> None:
    text = page({"function_id": "greet::hello", "request_schema": NESTED})
    assert "  who             object         yes                Whom to greet\n" in text
    assert "    name          string         yes\n" in text
    assert "    friend        object         no\n" in text
    assert "    key           string         no\n" in text
    assert '  mode            "soft"|"loud"  no        "soft"\n' in text
    assert "  extra           any            no\n" in text


def test_what_may_be_left_out_needs_no_null() -> None:
    kinds = {"type": ["string", "null"]}
    schema = {"properties": {"a": kinds, "b": kinds, "c": {"type": "null"}}, "required": ["a"]}
    text = page({"function_id": "x::y", "request_schema": schema})
    assert "  a     null|string  yes\n  b     string       no\n  c     null         no\n" in text


def test_a_function_without_schema_says_so() -> None:
    assert "(no request schema published)" in page({"function_id": "x::y"})
    assert "(none)" in page({"function_id": "x::y", "request_schema": {"type": "object"}})


def test_a_result_that_is_no_object_shows_its_type() -> None:
    assert "Result:\n  string\n" in page({"function_id": "x::y", "response_schema": {"type": "string"}})


def test_a_page_escapes_what_a_worker_wrote() -> None:
    text = page({"function_id": "x::\x1b[2J", "description": "one\ntwo\x1b", "request_schema": None})
    assert "\x1b" not in text
    assert "one\ntwo\\x1b\n" in text


@pytest.mark.parametrize(
    ("schema", "line"),
    [
        (None, "iii trigger x::y"),
        (NESTED, 'iii trigger x::y \'who={"name": "text"}\''),
        ({"properties": {"a": {"type": "integer", "minimum": 5}}, "required": ["a"]}, "iii trigger x::y a=5"),
        ({"properties": {"a": {"type": "string", "examples": ["it's"]}}}, "iii trigger x::y 'a=it'\"'\"'s'"),
        ({"properties": {"a": {"const": True}, "b": {"enum": ["u"]}}}, "iii trigger x::y a=true b=u"),
        ({"properties": {"a": {"type": "array"}}}, "iii trigger x::y 'a=[]'"),
        ({"properties": {"a": {}}, "required": ["a"], "examples": [{"b": "é"}]}, "iii trigger x::y 'b=é'"),
        (
            {"properties": {"a": {"type": "string"}}, "examples": [{"a": "5", "b": "5"}]},
            "iii trigger x::y a=5 'b=\"5\"'",
        ),
        ({"properties": {"a": {}}, "examples": [{}]}, "iii trigger x::y"),
    ],
)
def test_the_example_is_a_line_for_a_shell(schema: Any, line: str) -> None:
    assert example("x::y", schema) == line


ROWS = [("order-7", "shop::mail", "the mail server at mail.example is away", 2), ("order-8", "shop::mail", "no", 11)]
COLUMNS = ("ID", "FUNCTION", "ERROR", "TRIES")


@pytest.mark.parametrize(
    ("width", "lines"),
    [
        (
            80,
            [
                "ID       FUNCTION    ERROR                                    TRIES",
                "order-7  shop::mail  the mail server at mail.example is away      2",
                "order-8  shop::mail  no                                          11",
            ],
        ),
        (
            50,
            [
                "ID       FUNCTION    ERROR                   TRIES",
                "order-7  shop::mail  the mail server at ma…      2",
                "order-8  shop::mail  no                         11",
            ],
        ),
        (
            33,
            [
                "ID       FUNCTION    ERROR",
                "order-7  shop::mail  the mail se…",
                "order-8  shop::mail  no",
            ],
        ),
        (20, ["ID       FUNCTION", "order-7  shop::mail", "order-8  shop::mail"]),
        (5, ["ID", "order-7", "order-8"]),
    ],
)
def test_a_table_fits_the_terminal_and_never_cuts_an_id(width: int, lines: list[str]) -> None:
    drop = ("TRIES", "ERROR", "FUNCTION")
    assert table(COLUMNS, ROWS, cut="ERROR", drop=drop, width=width).split("\n") == lines


def test_what_is_written_is_harmless_line_by_line(capsys: pytest.CaptureFixture[str]) -> None:
    write("a\x1b[2Jb\u202ec\n\tdé\r")
    write_error("\x9b31m")
    assert capsys.readouterr() == ("a\\x1b[2Jb\\u202ec\n\tdé\\x0d\n", "\\x9b31m\n")
