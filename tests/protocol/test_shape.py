"""The depth of a JSON text, counted in its bytes: what stands in strings is none."""

from __future__ import annotations

import json
from typing import Any

from hypothesis import given
from hypothesis import strategies as st

from iii.protocol.shape import MAX_DEPTH, is_moderate

TEXT = st.text(st.sampled_from('[]{},:"\\na\n0\u00e9'), max_size=6)
VALUES = st.recursive(
    TEXT | st.integers() | st.none(),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(TEXT, inner, max_size=4),
    max_leaves=20,
)


def depth_of(value: Any) -> int:
    if not isinstance(value, (list, dict)):
        return 0
    return 1 + max(map(depth_of, value.values() if isinstance(value, dict) else value), default=0)


@given(VALUES, st.booleans())
def test_a_value_may_be_as_deep_as_the_limit_and_no_deeper(value: Any, is_ascii: bool) -> None:
    text = json.dumps(value, ensure_ascii=is_ascii).encode()
    around = MAX_DEPTH - depth_of(value)
    assert is_moderate(b"[" * around + text + b"]" * around)
    assert not is_moderate(b"[" * (around + 1) + text + b"]" * (around + 1))
