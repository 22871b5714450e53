"""The page about state, stream and pubsub names the codes that the code tells."""

from __future__ import annotations

from pathlib import Path

import pytest

from stdlib_workers.state import __main__ as state_main
from stdlib_workers.state.schemas import CODES as STATE_CODES
from stdlib_workers.storage import UNUSABLE
from stdlib_workers.storage.errors import CORRUPT, FULL
from stdlib_workers.storage.store import MAX_WAITING
from stdlib_workers.stream import options as stream_options
from stdlib_workers.stream.schemas import CODES as STREAM_CODES

TEXT = (Path(__file__).resolve().parents[3] / "docs" / "state.md").read_text(encoding="utf-8")


def test_the_page_has_the_code_of_every_function_and_reason() -> None:
    codes = {*STATE_CODES.values(), *STREAM_CODES.values(), FULL, UNUSABLE, CORRUPT}
    assert [code for code in sorted(codes) if f"`{code}`" not in TEXT] == []


@pytest.mark.parametrize("keys", [state_main._KEYS, stream_options._KEYS])
def test_the_page_has_every_option(keys: tuple[str, ...]) -> None:
    assert [key for key in keys if f"`{key}`" not in TEXT and f"`{key} =" not in TEXT] == []


def test_the_page_has_the_limit_of_the_storage() -> None:
    assert f"| `overloaded` | {MAX_WAITING:,} commands wait" in TEXT
