"""Where keys stand: golden texts, and agreement with tomllib on texts that nobody wrote by hand."""

from __future__ import annotations

import tomllib
from typing import Any

import pytest
import tomlkit
from hypothesis import given
from hypothesis import strategies as st

from iii.engine.config.toml_positions import Position, Repeat, locate

GOLDEN = '''\
# [not.a.table]
top = "a [b] # c"
[a.b]  # why
  "quoted \\u0041" = 'x'
many.dotted . keys = """
[no.table]
""\\" = 1 """
array = [ 1, # one ]
  "two, ]",
  { three = 3, four = ["x"] }, ]
inline = { x.y = 1, z = '}' }
[[items]]
name = 1
[[items]]
name = 2
[items.sub]
deep = true
date = 1979-05-27T07:32:00Z
'''


def test_every_kind_of_key_is_found() -> None:
    keys = locate(GOLDEN).keys
    assert keys == {
        ("top",): (2, 1),
        ("a",): (3, 1),
        ("a", "b"): (3, 1),
        ("a", "b", "quoted A"): (4, 3),
        ("a", "b", "many"): (5, 1),
        ("a", "b", "many", "dotted"): (5, 6),
        ("a", "b", "many", "dotted", "keys"): (5, 15),
        ("a", "b", "array"): (8, 1),
        ("a", "b", "array", 0): (8, 11),
        ("a", "b", "array", 1): (9, 3),
        ("a", "b", "array", 2): (10, 3),
        ("a", "b", "array", 2, "three"): (10, 5),
        ("a", "b", "array", 2, "four"): (10, 16),
        ("a", "b", "array", 2, "four", 0): (10, 24),
        ("a", "b", "inline"): (11, 1),
        ("a", "b", "inline", "x"): (11, 12),
        ("a", "b", "inline", "x", "y"): (11, 14),
        ("a", "b", "inline", "z"): (11, 21),
        ("items",): (12, 1),
        ("items", 0): (12, 1),
        ("items", 0, "name"): (13, 1),
        ("items", 1): (14, 1),
        ("items", 1, "name"): (15, 1),
        ("items", 1, "sub"): (16, 1),
        ("items", 1, "sub", "deep"): (17, 1),
        ("items", 1, "sub", "date"): (18, 1),
    }


def test_an_unknown_path_is_placed_at_its_nearest_ancestor() -> None:
    found = locate("[a]\nb = 1")
    assert found.of(("a", "b", "c", 1)) == Position(2, 1)
    assert found.of(("x",)) == Position(1, 1)


def test_tables_and_keys_that_are_written_twice_are_told() -> None:
    assert locate("[a]\nb = 1\nb = 2\n [a]").repeats == [
        Repeat(("a", "b"), Position(2, 1), Position(3, 1)),
        Repeat(("a",), Position(1, 1), Position(4, 2)),
    ]


@given(st.text(alphabet="[]{}=\"'\\.,# \nab1"))
def test_no_text_makes_the_locator_fail_or_hang(text: str) -> None:
    for position in locate(text).keys.values():
        assert 1 <= position.line <= text.count("\n") + 1


VALUES = st.recursive(
    st.booleans() | st.integers(-(2**60), 2**60) | st.text(max_size=8),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(st.dictionaries(st.text(max_size=5), VALUES, max_size=4))
def test_every_key_that_tomllib_reads_is_found(data: dict[str, Any]) -> None:
    text = tomlkit.dumps(data)
    assert paths(tomllib.loads(text)) <= set(locate(text).keys)


def paths(value: Any, path: tuple[str | int, ...] = ()) -> set[tuple[str | int, ...]]:
    """Return the paths of all keys and items of a parsed text."""
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    found = {path} if path else set()
    return found.union(*(paths(item, (*path, name)) for name, item in inner))


@pytest.mark.parametrize("text", ["a", "a = [1", "a = {b", "a = {b = 1 c", "[", '"\\x" = 1', "a = ["])
def test_a_broken_text_gives_what_could_be_read(text: str) -> None:
    assert locate(text).repeats == []
