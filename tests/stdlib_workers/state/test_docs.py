"""The page about state, stream and pubsub names the codes that the code tells."""

from __future__ import annotations

from pathlib import Path

import pytest

from iii.config_schema import load_schema
from stdlib_workers.state.functions import CODES as STATE_CODES
from stdlib_workers.storage import UNUSABLE
from stdlib_workers.storage.errors import CORRUPT, FULL
from stdlib_workers.storage.store import MAX_WAITING
from stdlib_workers.stream.functions import CODES as STREAM_CODES

ROOT = Path(__file__).resolve().parents[3]
TEXT = (ROOT / "docs" / "state.md").read_text(encoding="utf-8")


def test_the_page_has_the_code_of_every_function_and_reason() -> None:
    codes = {*STATE_CODES.values(), *STREAM_CODES.values(), FULL, UNUSABLE, CORRUPT}
    assert [code for code in sorted(codes) if f"`{code}`" not in TEXT] == []


@pytest.mark.parametrize("worker", ["state", "stream"])
def test_the_page_has_every_option(worker: str) -> None:
    schema = load_schema(ROOT / "stdlib_workers", worker)
    assert schema is not None
    assert [key for key in schema["properties"] if f"`{key}`" not in TEXT and f"`{key} =" not in TEXT] == []


def test_the_page_has_the_limit_of_the_storage() -> None:
    assert f"| `overloaded` | {MAX_WAITING:,} commands wait" in TEXT
