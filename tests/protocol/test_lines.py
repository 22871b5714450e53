"""Cutting bytes into lines: any split gives the same lines, the limit is exact, and skipped bytes are not kept."""

from __future__ import annotations

import itertools
import tracemalloc

import pytest
from hypothesis import given
from hypothesis import strategies as st

from iii.protocol.lines import HEAD, MAX_LINE, LineSplitter, Oversized

LIMIT = 24
# Bytes that other line readers cut at, and enough newlines to make many lines.
STREAM = st.lists(
    st.one_of(
        st.just(b"\n"),
        st.sampled_from([b"\r", b"\x0c", b"\x1c", "\u2028".encode(), b"x" * (LIMIT - 1), b"y" * LIMIT]),
        st.binary(),
    )
).map(b"".join)
CUTS = st.lists(st.integers(min_value=0, max_value=400))


def pieces(data: bytes, cuts: list[int]) -> list[bytes]:
    """Cut `data` at these places; equal ones make empty pieces."""
    places = [0, *sorted(min(cut, len(data)) for cut in cuts), len(data)]
    return [data[start:end] for start, end in itertools.pairwise(places)]


def fed(splitter: LineSplitter, *data: bytes) -> list[bytes | Oversized]:
    return [line for piece in data for line in splitter.feed(piece)]


def reference(data: bytes) -> list[bytes | tuple[int, bytes]]:
    lines = [line for line in data.split(b"\n")[:-1] if line]
    return [line if len(line) <= LIMIT else (len(line), line[:LIMIT]) for line in lines]


def shown(lines: list[bytes | Oversized]) -> list[bytes | tuple[int, bytes]]:
    # A head may hold more than the limit: how much depends on where the bytes were cut.
    return [line if isinstance(line, bytes) else (line.size, line.head[:LIMIT]) for line in lines]


@given(STREAM, CUTS)
def test_any_split_of_the_bytes_gives_the_same_lines(data: bytes, cuts: list[int]) -> None:
    splitter = LineSplitter(LIMIT)
    assert shown(fed(splitter, *pieces(data, cuts))) == reference(data)
    assert splitter.pending == len(data.rpartition(b"\n")[2])


@given(STREAM, CUTS)
def test_a_buffer_that_is_used_again_gives_the_same_lines(data: bytes, cuts: list[int]) -> None:
    splitter, buffer, lines = LineSplitter(LIMIT), bytearray(len(data) + 1), list[bytes | Oversized]()
    for piece in pieces(data, cuts):
        buffer[: len(piece)] = piece
        lines += splitter.feed_from(buffer, len(piece))
        buffer[:] = b"\n" * len(buffer)
    assert shown(lines) == reference(data)
    assert data.rpartition(b"\n")[2].startswith(splitter.partial)


@given(STREAM, CUTS)
def test_the_unfinished_line_is_kept_whole_up_to_the_limit(data: bytes, cuts: list[int]) -> None:
    splitter = LineSplitter(LIMIT)
    fed(splitter, *pieces(data, cuts))
    rest = data.rpartition(b"\n")[2]
    assert rest.startswith(splitter.partial)
    assert len(splitter.partial) >= min(len(rest), LIMIT)


@pytest.mark.parametrize("whole", [True, False], ids=["in one read", "byte by byte"])
@pytest.mark.parametrize(("size", "is_kept"), [(LIMIT - 1, True), (LIMIT, True), (LIMIT + 1, False)])
def test_the_limit_is_exact_and_costs_only_its_line(size: int, is_kept: bool, whole: bool) -> None:
    data = b"a" * size + b"\nnext\n"
    feeds = [data] if whole else [data[i : i + 1] for i in range(len(data))]
    expected = b"a" * size if is_kept else Oversized(b"a" * size, size)
    assert fed(LineSplitter(LIMIT), *feeds) == [expected, b"next"]


@pytest.mark.parametrize(("size", "is_kept"), [(MAX_LINE - 1, True), (MAX_LINE, True), (MAX_LINE + 1, False)])
def test_a_line_of_sixteen_mebibytes_is_the_last_that_passes(size: int, is_kept: bool) -> None:
    splitter = LineSplitter()
    chunk = b"x" * 65536
    lines = fed(splitter, *[chunk] * (size // 65536), b"x" * (size % 65536), b"\n", b"ok\n")
    first = lines[0]
    assert lines[1:] == [b"ok"]
    assert len(first) == size if isinstance(first, bytes) else (first.size, len(first.head)) == (size, HEAD)
    assert isinstance(first, bytes) is is_kept


def test_the_head_of_an_oversized_line_is_its_first_four_kibibytes() -> None:
    head = bytes(range(1, 10)) * 500
    splitter = LineSplitter(5000)
    assert fed(splitter, head, b"y" * 9000, b"\n") == [Oversized(head[:HEAD], len(head) + 9000)]


def test_bytes_over_the_limit_are_counted_but_not_kept() -> None:
    splitter = LineSplitter(100_000)
    chunk = b"z" * 65536
    fed(splitter, chunk, chunk)
    tracemalloc.start()
    try:
        fed(splitter, *[chunk] * 1000)
        grown, _ = tracemalloc.get_traced_memory()
    finally:
        tracemalloc.stop()
    assert splitter.is_over
    assert splitter.pending == 1002 * 65536
    assert splitter.partial == chunk[:HEAD]
    assert grown < 65536


def test_after_an_oversized_line_the_splitter_is_as_new() -> None:
    splitter = LineSplitter(4)
    assert fed(splitter, b"toolonger", b"!\n") == [Oversized(b"toolonger", 10)]
    assert (splitter.pending, splitter.partial, splitter.is_over) == (0, b"", False)
    assert fed(splitter, b"a", b"b\n") == [b"ab"]
