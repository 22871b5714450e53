"""An engine in memory with the flow worker, and what a test's functions were called with."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any

import pytest

from iii import Worker
from iii.testing import Engine


class Scene:
    """The engine, a worker, and `calls`: what its recorded functions were called with, in order."""

    def __init__(self, iii: Engine) -> None:
        self.iii = iii
        self.worker: Worker = iii.worker("orders")
        self.calls: list[tuple[str, Any]] = []

    def offer(self, function_id: str, answer: Callable[[Any], Any] = lambda payload: payload) -> None:
        """Register a function that notes its calls."""

        def handler(payload: Any) -> Any:
            self.calls.append((function_id, payload))
            return answer(payload)

        self.worker.register_function(function_id, handler)

    def called(self, function_id: str) -> list[Any]:
        """Return the payloads of the calls of a function."""
        return [payload for name, payload in self.calls if name == function_id]


@pytest.fixture
def scene() -> Iterator[Scene]:
    with Engine(["flow"]) as iii:
        yield Scene(iii)
