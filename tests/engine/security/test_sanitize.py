"""No byte that a terminal would obey gets through."""

from __future__ import annotations

import re

from hypothesis import given
from hypothesis.strategies import text

from iii.engine.security.sanitize import SHOWN, sanitize, shorten


def test_cursor_movements_and_titles_vanish() -> None:
    assert sanitize("a\x1b[2Jb\x1b[10;5Hc\x1b]0;title\x07d\x1b]8;;http://x\x1b\\e\x1b7f") == "abcdef"


def test_colors_stay_only_where_colors_are_on() -> None:
    assert sanitize("a\x1b[31mred") == "ared"
    assert sanitize("a\x1b[31mred", color=True) == "a\x1b[31mred\x1b[0m"
    assert sanitize("plain", color=True) == "plain"


def test_controls_and_direction_marks_are_shown_as_what_they_are() -> None:
    assert sanitize("bell\x07 nul\x00 c1\x9b bidi\u202e bom\ufeff\ttab") == (
        "bell\\x07 nul\\x00 c1\\x9b bidi\\u202e bom\\ufeff\ttab"
    )
    assert sanitize("half \x1b[") == "half \\x1b["


def test_a_progress_bar_shows_its_last_state() -> None:
    assert sanitize("10%\r50%\r100%\r") == "100%"


@given(text())
def test_nothing_dangerous_is_left(value: str) -> None:
    assert not re.search("[\x00-\x08\x0a-\x1f\x7f-\x9f\u2028-\u202e\u2066-\u2069]", sanitize(value))
    colored = sanitize(value, color=True)
    assert not re.search("[\x00-\x08\x0a-\x1f\x7f-\x9f]", re.sub(r"\x1b\[[0-9;:]*m", "", colored))


def test_long_lines_are_shown_up_to_a_limit() -> None:
    assert shorten("x" * SHOWN) == "x" * SHOWN
    assert shorten("x" * (SHOWN + 2)).endswith("x ... 2 characters more")
