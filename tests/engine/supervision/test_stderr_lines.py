"""Bytes of a log -> lines within a budget."""

from __future__ import annotations

from hypothesis import given
from hypothesis.strategies import binary, lists

from iii.engine.supervision.stderr_lines import BUDGET, MAX_LINE, StderrLines


def test_lines_come_out_when_their_newline_has_come() -> None:
    feed = StderrLines()
    assert feed.feed(b"on", 1.0) == []
    assert feed.feed(b"e\n\ntwo\r\nthr", 1.0) == ["one", "", "two"]
    assert feed.is_waiting
    assert feed.flush(1.2) == ([], "thr")
    assert not feed.is_waiting
    assert feed.flush(1.3) == ([], "")


def test_a_line_that_comes_in_pieces_is_one_line() -> None:
    feed, data = StderrLines(), "Loading \u4e16 done".encode()
    shown = []
    for index in range(len(data)):
        assert feed.feed(data[index : index + 1], 1.0 + index) == []
        if index == 9:
            shown.append(feed.flush(1.5 + index)[1])
    assert shown == ["Loading "]  # without the first bytes of a letter
    assert feed.feed(b"\nnext", 90.0) == ["Loading \u4e16 done"]
    assert feed.flush(91.0) == ([], "next")
    assert feed.close() == ["next"]


@given(lists(binary(max_size=40).map(lambda data: data.replace(b"\r", b"")), max_size=12))
def test_cutting_the_bytes_elsewhere_changes_nothing(chunks: list[bytes]) -> None:
    whole, parts = StderrLines(), StderrLines()
    expected = whole.feed(b"".join(chunks), 1.0) + whole.close()
    assert [line for chunk in chunks for line in parts.feed(chunk, 1.0)] + parts.close() == expected


def test_bytes_that_are_no_text_are_shown_as_replacements() -> None:
    assert StderrLines().feed(b"a\xffb\n", 1.0) == ["a\ufffdb"]


def test_what_is_over_the_budget_is_counted_exactly() -> None:
    feed, line = StderrLines(), b"x" * 1023 + b"\n"
    kept = feed.feed(line * 1500, 1.0)
    kept += feed.feed(line * 3, 1.5)
    assert len(kept) == BUDGET // 1024
    assert feed.feed(b"after\n", 2.0) == [f"{1503 - len(kept)} lines suppressed (over 1 MiB a second)", "after"]


def test_a_line_cut_by_the_budget_counts_once() -> None:
    feed = StderrLines()
    feed.feed(b"x" * 60_000 + b"\n", 1.0)
    feed.feed(b"head", 1.0)
    assert feed.feed(b"y" * BUDGET, 1.1) == []  # no newline in it: the line goes on
    assert feed.feed(b"still the same line", 2.1) == []
    assert feed.feed(b" and its end\nnext\n", 2.2) == ["next"]
    assert feed.close() == ["1 lines suppressed (over 1 MiB a second)"]


def test_a_very_long_line_is_cut_and_its_rest_is_not_counted() -> None:
    feed = StderrLines()
    (line,) = feed.feed(b"x" * (MAX_LINE + 7), 1.0)
    assert line == "x" * MAX_LINE + " ... 7 bytes more"
    assert feed.feed(b"rest\nnext\n", 1.1) == ["next"]
    assert feed.close() == []
