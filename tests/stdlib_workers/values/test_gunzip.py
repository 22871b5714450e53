"""Gzip is decompressed in pieces and never past its limit."""

from __future__ import annotations

import gzip

import pytest
from hypothesis import given
from hypothesis import strategies as st

from stdlib_workers.values.gunzip import Gunzip

TEXTS = st.lists(st.binary(max_size=2000), min_size=1, max_size=4)


@given(TEXTS, st.integers(1, 500))
def test_members_in_pieces_of_any_size_give_the_whole_text(texts: list[bytes], size: int) -> None:
    body, gunzip = b"".join(map(gzip.compress, texts)), Gunzip(10_000)
    pieces = [gunzip.feed(body[start : start + size]) for start in range(0, len(body), size)]
    gunzip.close()
    assert b"".join(pieces) == b"".join(texts)


@given(st.integers(1, 3000), st.integers(0, 3000))
def test_nothing_larger_than_the_limit_comes_out(size: int, limit: int) -> None:
    body, gunzip = gzip.compress(bytes(size)), Gunzip(limit)
    if size <= limit:
        assert gunzip.feed(body) == bytes(size)
    else:
        with pytest.raises(OverflowError):
            gunzip.feed(body)


def test_what_is_no_gzip_and_what_ends_in_the_middle_are_errors() -> None:
    with pytest.raises(ValueError, match="no gzip"):
        Gunzip(10).feed(b"plain text")
    half = Gunzip(1000)
    half.feed(gzip.compress(bytes(range(200)))[:-9])
    with pytest.raises(ValueError, match="in the middle"):
        half.close()
    Gunzip(10).close()
