"""The end-to-end tests stand on the same ground as the fault tests: a real engine, a canary, the laws at the end."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.support.ground import Ground

MATH = """
    from iii import InvocationError, register_worker

    worker = register_worker()


    @worker.function("math::add")
    def add(a: float, b: float) -> dict:
        \"\"\"Add two numbers.\"\"\"
        return {"c": a + b}


    @worker.function("math::fail")
    def fail(payload: dict) -> dict:
        return {"c": 1 / payload["zero"]}
"""


@pytest.fixture
def ground(tmp_path: Path) -> Iterator[Ground]:
    """Return the ground of one test with a `math` worker: declare more, then `start()`."""
    made = Ground(tmp_path)
    made.worker("math", MATH)
    try:
        yield made
    finally:
        made.close()
